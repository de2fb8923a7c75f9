"""ID-ExpO's objective: values worked out by hand, and gradients through the explanation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fex_jax import id_expo, masking

SCORES = np.array([[3.0, 1.0, 0.0, -4.0], [0.0, 2.0, 1.0, 5.0]], np.float32)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_soft_masks_by_hand():
    """Breaks if the threshold lies elsewhere, or the temperature is in other units."""
    found = id_expo.soft_masks(SCORES, jnp.array([0.5, 0.25]), 0.2)
    e = (SCORES - SCORES.mean(1, keepdims=True)) / SCORES.std(1, keepdims=True)
    between = np.array([(e[0, 1] + e[0, 2]) / 2, (e[1, 3] + e[1, 1]) / 2])
    np.testing.assert_allclose(found, sigmoid((e - between[:, None]) / 0.2), rtol=1e-5)
    hard = id_expo.soft_masks(SCORES, jnp.array([0.5, 0.25]), 1e-3)
    np.testing.assert_allclose(hard, [[1, 1, 0, 0], [0, 0, 0, 1]], atol=1e-6)
    assert np.isfinite(id_expo.soft_masks(np.zeros((1, 4)), jnp.array([0.5]), 0.1)).all()


def test_a_flat_map_has_a_finite_gradient():
    """Breaks if an f that is certain whatever is removed, whose map is 0, makes NaN of training."""
    flat, share = jnp.zeros((1, 4)), jnp.array([0.5])
    gradient = jax.grad(lambda e: id_expo.soft_masks(e, share, 0.1)[0, 0])(flat)
    assert np.isfinite(gradient).all()


def keep(fill):
    """Of images of 2 × 2 pixels, each a feature."""
    return lambda images, m: masking.soften(images, m.reshape(-1, 2, 2), fill)


def log_predict(images):
    """log f of two classes whose logit is the sum of the pixels."""
    logit = images.sum((1, 2, 3))
    return jax.nn.log_softmax(jnp.stack([logit, jnp.zeros_like(logit)], -1))


def test_the_regulariser_by_hand():
    """Breaks if insertion and deletion change places or signs, or deletion is not a ratio."""
    images = np.arange(8, dtype=np.float32).reshape(2, 2, 2, 1) / 8  # a pixel is a feature
    classes, shares = np.array([0, 1]), np.array([[0.5, 0.25], [0.75, 0.5]])
    found = id_expo.regularizer(log_predict, keep(0.1), images, classes, SCORES, shares, 0.3)

    def log_of_class(x):
        logit = x.sum(-1)
        return np.log(sigmoid(np.where(classes == 0, logit, -logit)))

    x, inserted, deleted = images.reshape(2, 4), [], []
    for share in shares:
        m = np.asarray(id_expo.soft_masks(SCORES, share, 0.3))
        inserted.append(log_of_class(m * x + (1 - m) * 0.1))
        deleted.append(log_of_class((1 - m) * x + m * 0.1) - log_of_class(x))
    assert float(found.insertion) == pytest.approx(-np.mean(inserted), rel=1e-5)
    assert float(found.deletion) == pytest.approx(np.mean(deleted), rel=1e-5)
    assert float(found.norm) == pytest.approx((SCORES**2).mean())


def test_gradients_flow_through_the_explanation():
    """Breaks if masks are cut off from the map: then no explanation learns. Of a pixel that speaks
    for the class, a higher score is better."""
    images = np.full((1, 2, 2, 1), 0.1, np.float32)
    images[0, 0, 0, 0] = 2.0  # speaks for class 0
    classes, shares = np.array([0]), np.array([[0.25], [0.5]])
    scores = np.array([[0.3, 0.5, 0.2, 0.1]], np.float32)

    def total(scores):
        terms = id_expo.regularizer(log_predict, keep(0.0), images, classes, scores, shares, 0.5)
        return terms.insertion + terms.deletion

    gradient = jax.grad(total)(scores)[0]
    assert gradient[0] < 0 and np.isfinite(gradient).all()
    size = 1e-3
    moved = scores + size * np.eye(4, dtype=np.float32)[:1]
    numeric = (float(total(moved)) - float(total(2 * scores - moved))) / (2 * size)
    assert float(gradient[0]) == pytest.approx(numeric, rel=0.02)
