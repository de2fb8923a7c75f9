"""`fex_jax.attribute`: one method's maps of images, texts and black boxes, and what is refused.

That they are those of a table is checked where tables are: `test_comparison`.
"""

import pathlib
import re
import subprocess
import sys

import jax
import numpy as np
import pytest

import fex_jax
from fex_jax import predictors, tokens
from tests import tiny_text

ROOT = pathlib.Path(__file__).resolve().parents[2]
IMAGES = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)


def corner(images: np.ndarray) -> np.ndarray:
    """Two probabilities [B, 2]: how bright the upper left quarter of a picture is, and the rest."""
    bright = images[:, :16, :16].mean((1, 2, 3)) / 255
    return np.stack([bright, 1 - bright], -1)


def test_texts_by_hand():
    """Breaks if words, targets or padding are mixed up: f is asked without each word in turn."""
    predictor = tiny_text.checkpoint(num_classes=3)
    texts = ["a funny film", "the plot was not bad ."]
    found = fex_jax.attribute("occlusion", predictor, texts, targets=["class 1", 2])
    assert [one.words for one in found] == [tuple(text.split()) for text in texts]
    for text, target, one in zip(texts, (1, 2), found, strict=True):
        split = predictor.tokenizer([text], "word")
        whole = tokens.collate(split, 32, predictor.tokenizer)
        model, inputs = predictors.from_checkpoint(predictor)(predictor.params, whole)
        masks = 1 - np.eye(8, 32, k=-1)  # all, then without word 0, 1, ...; no text has 8
        asked = model.mask(jax.tree.map(lambda x: np.repeat(x, 8, 0), inputs), masks)
        answers = jax.jit(model.predict)(asked)
        expected = answers[0, target] - answers[1 : 1 + len(one.words), target]
        np.testing.assert_allclose(one.scores, expected, atol=1e-6)
        np.testing.assert_allclose(one.probabilities, answers[0], atol=1e-6)
        assert one.target == target


def test_a_function_of_images():
    """Breaks if a function needs more than itself, or is asked about more than there is."""
    asked = []

    def counted(images):
        asked.append(len(images))
        return corner(images)

    found = fex_jax.attribute("occlusion", counted, IMAGES[0], targets=0)
    maps = found.attributions[0]
    assert maps.shape == (4, 4) and found.labels == ("class 0", "class 1")
    assert np.abs(maps[:2, :2]).min() > 4 * np.abs(maps[3:, 3:]).max()
    assert sum(asked) == 1 + 1 + 1 + 16  # classes, f(x), and the method: f(x), a cell at a time
    host = fex_jax.host(corner, labels=("corner", "rest"), input=(32, 32, 3))
    again = fex_jax.attribute("occlusion", host, IMAGES[0], targets="corner")
    np.testing.assert_array_equal(again.attributions, found.attributions)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"method": "all"}, "takes one method, and not 'all'"),
        ({"method": ["rise"]}, r"takes one method, and not \['rise'\]"),
        ({"method": "rises"}, "method 'rises' is unknown"),
        ({"method": "fex"}, "'fex' is an explainer: pass it"),
        ({"num_query": 3}, "rise: .*num_query.*takes num_queries"),
        ({"num_queries": 0}, "num_queries must be at least 1"),
        ({"targets": "cat"}, "class 'cat' is unknown"),
        ({"targets": [1]}, "1 targets for 3 images"),
        ({"things": []}, "there are no images to explain"),
        ({"seed": -1}, "seed is -1; expected an integer"),
        ({"predictor": corner, "method": "rollout"}, "rollout looks inside the classifier"),
        ({"predictor": lambda images: images.mean((1, 2, 3))}, r"gives \[1\] of one image"),
    ],
)
def test_what_is_refused(predictor, changes, message):
    """Breaks if a wrong argument ends deep inside."""
    given = {"method": "rise", "predictor": predictor, "things": IMAGES} | changes
    with pytest.raises(ValueError, match=message):
        fex_jax.attribute(**given)


def test_the_readme_runs_as_printed():
    """Breaks if the first lines that people try fail in a fresh process.

    The picture shows a 6 and an 8, drawn by `scenes.draw(..., seed=0, index=4)`.
    """
    text = (ROOT / "README.md").read_text()
    lines = re.search(r"```python\n(.*?)```", text, re.S)[1]
    call = re.search(r"`(fex_jax\.attribute\(.*?\))`", text)[1]
    lines = f"import fex_jax\nfex_jax.host\n{lines}\nprint({call}.targets)\n"
    done = subprocess.run(
        [sys.executable, "-c", lines], cwd=ROOT, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    *printed, last = done.stdout.splitlines()
    assert [line for line in printed if "[" not in line] == ["6", "8"] and last == "[6]"
