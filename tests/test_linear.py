"""Maps of LIME and KernelSHAP through which f learns: against least squares, and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fex_jax import linear
from fex_jax.attributions.kernel_shap import constrained_regression
from fex_jax.draws import sample_coalitions
from fex_jax.predictors import Model

SIZE, QUERIES = 6, 40
WEIGHTS = np.random.default_rng(0).normal(size=(3, SIZE)).astype(np.float32)
INPUTS = np.random.default_rng(1).normal(size=(2, SIZE)).astype(np.float32)
CLASSES = np.array([0, 2])
KEY = jax.random.key(3)


def model(weights=WEIGHTS, linear=False):
    """f of N numbers, or a linear one that its maps must find."""

    def predict(inputs):
        logits = inputs @ weights.T
        return logits if linear else jax.nn.softmax(logits + logits**2)

    def mask(inputs, masks):
        return inputs * masks.astype(inputs.dtype)

    return Model(predict, mask, (SIZE,), output="value")


def test_a_linear_f_is_found():
    """Breaks if a map is of another class, or coefficients are not those of what f adds up."""
    expected = INPUTS * WEIGHTS[CLASSES]
    found = linear.kernel_shap(model(linear=True), INPUTS, CLASSES, KEY, QUERIES)
    np.testing.assert_allclose(found, expected, atol=2e-5)
    found = linear.lime(model(linear=True), INPUTS, CLASSES, KEY, QUERIES, ridge=1e-4)
    np.testing.assert_allclose(found, expected, atol=2e-3)


def test_lime_is_weighted_ridge():
    """Breaks if weights, ridge or the intercept are others: NumPy's normal equations in float64."""
    masks = np.asarray(jax.random.bernoulli(KEY, 0.5, (QUERIES, SIZE)), float)
    f = model()
    found = linear.lime(f, INPUTS, CLASSES, KEY, QUERIES)
    pi = np.exp(-(((1 - np.sqrt(masks.mean(1))) / 0.25) ** 2) / 2)
    design = np.column_stack([np.ones(QUERIES), masks])
    penalty = np.diag([0.0] + [1.0] * SIZE)
    for row, (x, y) in enumerate(zip(INPUTS, CLASSES, strict=True)):
        v = np.asarray(f.predict(x * masks.astype(np.float32)))[:, y]
        normal = design.T @ (pi[:, None] * design) + penalty
        solution = np.linalg.solve(normal, design.T @ (pi * v))
        np.testing.assert_allclose(found[row], solution[1:], atol=1e-5)


@pytest.mark.parametrize("queries", [8, QUERIES])
def test_kernel_shap_is_the_constrained_regression(queries):
    """Breaks if pairs, the constraint or the shortest solution of few queries are others."""
    f = model()
    found = linear.kernel_shap(f, INPUTS, CLASSES, KEY, queries)
    everything = jnp.ones((1, SIZE), bool)
    masks = sample_coalitions(KEY, queries, everything)[: queries // 2, 0]
    ask = lambda m, i: f.predict(f.mask(INPUTS[i], m))[..., CLASSES[i]]  # noqa: E731
    for i in range(2):
        total = ask(jnp.ones(SIZE), i) - ask(jnp.zeros(SIZE), i)
        gains = (ask(masks, i) - ask(~masks, i) + total) / 2
        ones = jnp.ones(len(masks))
        expected = constrained_regression(masks, gains, total, everything[0], ones)
        np.testing.assert_allclose(found[i], expected, atol=2e-5)
        assert found[i].sum() == pytest.approx(float(total), abs=1e-5)


@pytest.mark.parametrize("method", [linear.lime, linear.kernel_shap])
def test_f_learns_through_the_map(method):
    """Breaks if the answers are cut off from f's weights: against a difference quotient."""

    def first(weights):
        return method(model(weights), INPUTS, CLASSES, KEY, QUERIES)[0, 1]

    gradient = jax.grad(first)(WEIGHTS)
    step = np.zeros_like(WEIGHTS)
    step[0, 1] = 1e-2
    numeric = (first(WEIGHTS + step) - first(WEIGHTS - step)) / 2e-2
    assert float(gradient[0, 1]) == pytest.approx(float(numeric), rel=1e-2)
    assert abs(float(numeric)) > 1e-3
