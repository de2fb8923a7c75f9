"""GradSHAP's draws: from the key alone, and an estimate of Integrated Gradients without noise."""

import jax
import numpy as np
import pytest

from fex_jax.attributions.grad_shap import grad_shap
from fex_jax.attributions.integrated_gradients import integrated_gradients
from tests.attributions.white_box import KEY, perceptron, rows, targets


@pytest.fixture(scope="module")
def model():
    """One hidden layer; with given draws on a ViT, see `test_white_box`."""
    return perceptron()


def test_draws_come_from_the_key(model):
    """Breaks if a score cannot be reproduced, or if the chunk or the sample count redraws it."""

    def score(key, **options):
        return jax.jit(lambda x, y, key: grad_shap(model, x, y, key, **options))(
            rows(), targets(), key
        )

    scores = score(KEY, samples=6)
    np.testing.assert_allclose(score(KEY, samples=6, chunk=5), scores, atol=1e-6)
    assert not np.allclose(score(jax.random.key(1), samples=6), scores)
    # Each sample differs, in α and in noise.
    assert not np.allclose(score(KEY, samples=1), scores)
    assert not np.allclose(score(KEY, samples=6, std=0.0), scores)


def test_expectation_is_integrated_gradients(model):
    """Breaks if α is not uniform on [0, 1]: its expectation is then another integral."""
    estimate, exact = jax.jit(
        lambda x, y, key: (
            grad_shap(model, x, y, key, samples=4000, std=0.0, output="logit", chunk=50),
            integrated_gradients(model, x, y, key, steps=16, output="logit", chunk=16),
        )
    )(rows(), targets(), KEY)
    np.testing.assert_allclose(estimate, exact, atol=0.05 * np.abs(exact).max())


def test_no_samples_is_an_error(model):
    """Breaks if the mean of nothing becomes a score."""
    with pytest.raises(ValueError, match="samples must be at least 1"):
        grad_shap(model, rows(), targets(), KEY, samples=0)
