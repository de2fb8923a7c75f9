"""What holds for every white-box method: the numbers of torch and captum, and a clean batch."""

import dataclasses

import jax
import numpy as np
import pytest

from tests.attributions.white_box import (
    FAMILIES,
    GOLDEN,
    KEY,
    METHODS,
    images,
    of_all_methods,
    ours,
    ours_of_texts,
    targets,
    theirs,
    theirs_of_texts,
    tiny,
)

TOLERANCE = 1e-5  # measured: 3e-6


def assert_equal_scores(actual, expected):
    """Equal up to float32, on the scale of each method's scores."""
    assert actual.keys() == expected.keys()
    for name in expected:
        scale = np.abs(expected[name]).max()
        assert scale > 0 and actual[name].dtype == np.float32, name
        np.testing.assert_allclose(
            actual[name], expected[name], rtol=0, atol=TOLERANCE * scale, err_msg=name
        )


@pytest.mark.parametrize("family", FAMILIES)
def test_equals_golden(family):
    """Breaks where torch is not installed if a score leaves what torch and captum computed."""
    golden = np.load(GOLDEN)
    expected = {name: golden[f"{family}/{name}"] for name in ours(family)}
    assert_equal_scores(ours(family), expected)


@pytest.mark.parametrize("family", FAMILIES)
def test_equals_torch(family):
    """Breaks if a formula, a block's order or a prefix token differs from torch and captum."""
    for package in ("torch", "transformers", "captum"):
        pytest.importorskip(package)
    assert_equal_scores(ours(family), theirs(family))


def test_texts_equal_golden():
    """Breaks where torch is not installed if a text's gradients leave what captum computed."""
    golden = np.load(GOLDEN)
    expected = {name: golden[f"bert/{name}"] for name in ours_of_texts()}
    assert_equal_scores(ours_of_texts(), expected)


def test_texts_equal_captum():
    """Breaks if a text's x, its baseline of [MASK]s or the sum over a word's tokens differs."""
    for package in ("torch", "transformers", "captum"):
        pytest.importorskip(package)
    assert_equal_scores(ours_of_texts(), theirs_of_texts())


@pytest.mark.parametrize("name", METHODS)
def test_padding(name):
    """Breaks if a text's scores depend on the length that its batch is padded to."""
    short, long = of_all_methods(12)[name], of_all_methods(20)[name]
    assert np.isfinite(long).all() and long.any()
    # DeepLIFT divides by differences, and so by a part of the rounding of float32.
    tolerance = 3e-5 if name == "deeplift" else 1e-5
    np.testing.assert_allclose(long[:, :12], short, atol=tolerance * np.abs(short).max())
    for row, words in enumerate((7, 2)):
        assert not long[row, words:].any()


@pytest.mark.parametrize("name", METHODS)
def test_batch(name):
    """Breaks if a score depends on the image's neighbours, or a second batch compiles again."""
    method, options = METHODS[name]
    model, compilations = tiny("vit"), []

    def score(x, y, key):
        compilations.append(name)
        return method(model, x, y, key, **options)

    score = jax.jit(score)
    x, y = images(3), targets(3)
    scores = np.asarray(score(x, y, KEY))
    assert scores.shape == (3, model.num_features) and scores.dtype == np.float32
    assert np.isfinite(scores).all() and scores[:2].any(1).all()
    x[1:], y[1:] = 5 * x[1:], 0
    again = np.asarray(score(x, y, KEY))
    np.testing.assert_allclose(again[0], scores[0], atol=1e-5 * np.abs(scores[0]).max())
    assert not np.allclose(again[1], scores[1])
    assert len(compilations) == 1


@pytest.mark.parametrize("name", METHODS)
def test_black_box_is_an_error(name):
    """Breaks if a model that can only be queried fails somewhere inside JAX."""
    method, options = METHODS[name]
    model = dataclasses.replace(tiny("vit"), logits=None, network=None)
    with pytest.raises(ValueError, match="looks inside the classifier.*(logits|network)"):
        method(model, images(), targets(), KEY, **options)
