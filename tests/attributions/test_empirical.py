"""The exact attribution of Eq. 2."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fex_jax.attributions.empirical import empirical


def predict(x: jax.Array) -> jax.Array:
    """Two classes, with an interaction between the first two features."""
    logit = x @ jnp.linspace(-1, 2, x.shape[-1]) + 3 * x[:, 0] * x[:, 1]
    return jax.nn.softmax(jnp.stack([logit, jnp.zeros_like(logit)], -1))


@pytest.mark.parametrize("num_features", [1, 3, 10])
def test_equals_the_sum_over_all_masks(num_features):
    """Breaks if a mask is left out, counted twice, or divided by the wrong K_m."""
    x = np.random.default_rng(0).uniform(size=(2, num_features)).astype(np.float32)
    targets = np.array([0, 1])
    expected = np.zeros((2, num_features))
    for bits in itertools.product([0, 1], repeat=num_features):
        if any(bits):
            f = np.asarray(predict(jnp.asarray(x * np.array(bits))))[[0, 1], targets]
            expected += np.array(bits) * f[:, None] / sum(bits)
    actual = empirical(predict, lambda x, m: x * m, x, targets, num_features)
    np.testing.assert_allclose(actual, expected, rtol=2e-4)


def test_is_an_expectation():
    """Breaks if φ is not A(x) E_p[m] with p(m|x) = f(m⊙x) / (A(x) K_m) (Eq. 5, 6)."""
    x = jnp.array([[0.3, 0.9, 0.5]])
    masks = np.array([m for m in itertools.product([0, 1], repeat=3) if any(m)])
    weight = np.asarray(predict(x * masks))[:, 0] / masks.sum(-1)
    expectation = (weight / weight.sum()) @ masks
    actual = empirical(predict, lambda x, m: x * m, x, jnp.array([0]), 3)[0]
    np.testing.assert_allclose(actual / weight.sum(), expectation, rtol=1e-5)


def test_refuses_too_many_features():
    """Breaks if 2^N queries are started for an N that never ends."""
    with pytest.raises(ValueError, match="1 to 16"):
        empirical(predict, lambda x, m: x * m, jnp.ones((1, 17)), jnp.array([0]), 17)
