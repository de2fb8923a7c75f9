"""What notebooks show of results."""

import base64
import io
import re

import numpy as np
from PIL import Image

from fex_jax.modalities.images import Explanation
from fex_jax.text_explanation import TextExplanation, TextExplanations


def layers(html: str) -> list[np.ndarray]:
    """The images of a page."""
    found = re.findall(r"data:image/png;base64,([^\"]+)", html)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(one)))) for one in found]


def test_pictures_lie_under_the_maps_of_their_classes():
    """Breaks if a map is laid over another picture, stronger places are fainter, negative ones look
    as positive ones, or a label is HTML."""
    pictures = np.arange(9 * 4 * 4 * 3, dtype=np.uint8).reshape(9, 4, 4, 3)
    maps = np.zeros((9, 2, 2, 2))
    maps[0, 0] = [[-2, 0], [1, 4]]
    targets, answers = np.tile([1, 0], (9, 1)), np.full((9, 2), 0.25)
    result = Explanation(maps, maps, targets, answers, ("<a>", "b"), pictures[:8])
    html = result._repr_html_()
    found = layers(html)
    assert len(found) == 8 * 2 * 2 and "… and 1 more" in html
    np.testing.assert_array_equal(found[0], pictures[0])
    np.testing.assert_array_equal(found[30], pictures[7])
    red, _, blue, alpha = np.moveaxis(found[1], -1, 0).astype(int)
    assert alpha[1, 1] > alpha[0, 0] > alpha[1, 0] > alpha[0, 1] == 0
    assert blue[0, 0] > red[0, 0] and red[1, 1] > blue[1, 1]
    assert html.index("b (25%)") < html.index("&lt;a&gt; (25%)") and "<a>" not in html
    bare = result._replace(pictures=None, probabilities=None, targets=targets[:, 0])
    assert len(layers(bare._replace(attributions=maps[:, 0])._repr_html_())) == 8


def test_a_tall_picture_fits():
    """Breaks if a strip fills pages of a notebook, or is stretched: 64 x 8 become 224 x 28."""
    pictures, maps = np.zeros((1, 64, 8, 3), np.uint8), np.ones((1, 8, 1))
    one = Explanation(maps, maps, np.zeros(1, int), np.ones((1, 1)), ("a",), pictures)
    assert one._repr_html_().count("width:28px;height:224px") == 3


def test_texts_are_shown_one_below_the_other():
    """Breaks if a list of explanations is shown by its repr."""
    spans = np.array([[0, 4]])
    one = TextExplanation("good", spans, np.ones(1), 0, np.ones(1), ("yes",), 1)
    assert TextExplanations([one, one])._repr_html_() == 2 * one._repr_html_() == 2 * one.to_html()


def test_python_shows_an_explanation_in_lines_and_not_in_arrays():
    """Breaks if a result at a prompt is hundreds of lines of numbers, or a label's codes reach the
    terminal."""
    maps, answers = np.zeros((9, 2, 14, 14)), np.tile([0.25, 0.75], (9, 1))
    result = Explanation(maps, maps, np.tile([1, 0], (9, 1)), answers, ("\x1b[31mcat", "dog"))
    first, *lines = repr(result).split("\n")
    assert "attributions [9, 2, 14, 14]" in first and "probabilities [9, 2]" in first
    assert lines[0] == "  0: dog (75%), \\x1b[31mcat (25%)" and lines[8:] == ["  … and 1 more"]
    bare = result._replace(attributions=maps[:1, 0], targets=np.array([1]), probabilities=None)
    assert repr(bare).split("\n")[1:] == ["  0: dog"]
