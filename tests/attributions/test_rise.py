"""RISE: hard patches against its expectation, soft masks against their definition."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fex_jax.attributions.rise import rise, smooth_rise
from fex_jax.predictors import Model


def test_tends_to_its_expectation(game):
    """Breaks if φ_i is not E[f(m⊙x) | m_i = 1]: normalisation, or masks that are not fair."""
    model, inputs, targets = game(4)
    scores = rise(model, inputs, targets, jax.random.key(0), num_queries=20_000)
    masks = np.array(list(itertools.product([0, 1], repeat=4)))
    for i in range(4):
        kept = masks[masks[:, i] == 1]
        answers = [np.asarray(model.predict(inputs * m))[range(5), targets] for m in kept]
        np.testing.assert_allclose(scores[:, i], np.mean(answers, 0), atol=0.02)


@pytest.fixture
def spot() -> tuple[Model, jax.Array]:
    """A classifier that sees one patch of 4x4 only, and an image that is bright everywhere."""

    def predict(images):
        bright = images[:, 8:12, 4:8].mean((1, 2, 3))
        return jnp.stack([bright, 1 - bright], -1)

    return Model(predict, lambda x, m: x, (4, 4)), jnp.ones((2, 16, 16, 3))


def test_smooth_masks_find_the_patch(spot):
    """Breaks if masks are cropped or upsampled elsewhere than where they are credited."""
    model, images = spot
    scores = smooth_rise(
        model, images, jnp.array([0, 1]), jax.random.key(1), num_queries=3000, cells=4, chunk=64
    )
    assert scores.shape == (2, 16)
    assert int(scores[0].argmax()) == int(scores[1].argmin()) == 2 * 4 + 1
    # Σ m p / (K p₁) without the patch's influence: E f = 1/2.
    np.testing.assert_allclose(scores[0, 15], 0.5, atol=0.05)


def test_smooth_masks_need_a_plane(game):
    """Breaks if a text fails at the shape of an image."""
    with pytest.raises(ValueError, match="rows and columns, but they lie in \\(6,\\); rise"):
        smooth_rise(*game(6), jax.random.key(0))


def test_keys_decide(spot, game):
    """Breaks if a method draws anything that its key does not decide."""
    model, inputs, targets = game(6)
    same = [rise(model, inputs, targets, jax.random.key(k), num_queries=9) for k in (0, 0, 1)]
    np.testing.assert_array_equal(same[0], same[1])
    assert np.abs(same[0] - same[2]).max() > 0
