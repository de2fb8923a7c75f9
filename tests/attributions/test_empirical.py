"""The exact attribution of Eq. 2."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fex_jax.attributions.empirical import empirical


@pytest.mark.parametrize("num_features", [1, 3, 10])
def test_equals_the_sum_over_all_masks(game, num_features):
    """Breaks if a mask is left out, counted twice, or divided by the wrong K_m."""
    model, x, targets = game(num_features)
    expected = np.zeros(x.shape)
    for bits in itertools.product([0, 1], repeat=num_features):
        if any(bits):
            f = np.asarray(model.predict(jnp.asarray(x * np.array(bits))))[range(5), targets]
            expected += np.array(bits) * f[:, None] / sum(bits)
    actual = empirical(model, x, targets)
    np.testing.assert_allclose(actual, expected, rtol=2e-4)


def test_padding_changes_nothing(padded):
    """Breaks if features that do not exist count for K_m, or repeat a mask."""
    sizes = [5, 3, 1, 4, 2]
    whole, alone = padded(6, sizes)
    actual = empirical(*whole)
    for row, (few, size) in enumerate(zip(alone, sizes, strict=True)):
        np.testing.assert_allclose(actual[row, :size], empirical(*few)[0], rtol=2e-4)
        assert not actual[row, size:].any()


def test_is_an_expectation(game):
    """Breaks if φ is not A(x) E_p[m] with p(m|x) = f(m⊙x) / (A(x) K_m) (Eq. 5, 6)."""
    model, x, _ = game(3)
    x = x[:1]
    masks = np.array([m for m in itertools.product([0, 1], repeat=3) if any(m)])
    weight = np.asarray(model.predict(x * masks))[:, 0] / masks.sum(-1)
    expectation = (weight / weight.sum()) @ masks
    actual = empirical(model, x, jnp.array([0]))[0]
    np.testing.assert_allclose(actual / weight.sum(), expectation, rtol=1e-5)


def test_sampled_masks_have_the_same_mean(game, padded):
    """Breaks if masks are not drawn evenly, or features that do not exist are kept."""
    model, x, targets = game(5)
    keys = jax.random.split(jax.random.key(0), 5)
    found = empirical(model, x, targets, keys, num_queries=20_000)
    np.testing.assert_allclose(found, empirical(model, x, targets) / 2**5, atol=0.005)
    model, x, targets = game(40)  # of any number
    assert np.isfinite(empirical(model, x, targets, jax.random.key(0), num_queries=10)).all()
    whole, _ = padded(6, [5, 3, 1, 4, 2])
    assert not empirical(*whole, jax.random.key(0), num_queries=50)[2, 1:].any()
    with pytest.raises(ValueError, match="needs a key"):
        empirical(*whole, num_queries=50)


def test_refuses_too_many_features(game):
    """Breaks if 2^N queries are started for an N that never ends."""
    with pytest.raises(ValueError, match="1 to 16"):
        empirical(*game(17))
