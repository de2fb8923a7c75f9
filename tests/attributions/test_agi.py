"""AGI: its ways and sums, written once more in NumPy for a softmax whose gradients are known."""

import numpy as np
import pytest
from scipy.special import softmax

from fex_jax.attributions.agi import agi
from fex_jax.predictors import Model
from tests.attributions.white_box import perceptron, rows, targets

import jax  # isort: skip
import jax.numpy as jnp  # isort: skip

WEIGHTS = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)


def linear() -> Model:
    def logits(x, _=None):
        return x @ jnp.asarray(WEIGHTS)

    return Model(
        predict=lambda x: jax.nn.softmax(logits(x)), mask=lambda x, m: jnp.where(m, x, 0),
        grid=(6,), embed=lambda x: x, logits=logits, pool=lambda values, _: values,
    )  # fmt: skip


def by_hand(x, y, classes, steps, size):
    def gradient(x, k):
        p = softmax(x @ WEIGHTS)
        return p[k] * (WEIGHTS[:, k] - WEIGHTS @ p)

    order = np.argsort(-softmax(x @ WEIGHTS))
    total = np.zeros_like(x)
    for goal in [k for k in order if k != y][:classes]:
        place = x.copy()
        for _ in range(steps):
            if softmax(place @ WEIGHTS).argmax() == goal:
                break
            move = size * np.sign(gradient(place, goal))
            total -= gradient(place, y) * move
            place = place + move
    return total


@pytest.mark.parametrize("classes, steps", [(1, 3), (2, 40), (9, 5)])
def test_equals_numpy(classes, steps):
    """Breaks if a way goes on behind its end, begins elsewhere, or a class is the explained one."""
    x, y = np.random.default_rng(1).normal(size=(5, 6)).astype(np.float32), np.arange(5) % 4
    found = agi(linear(), x, y, classes=classes, steps=steps, step_size=0.1)
    expected = [by_hand(*row, classes, steps, 0.1) for row in zip(x, y, strict=True)]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_adds_up_to_what_the_class_loses():
    """Breaks if what is summed is no integral of f_y's gradient along the ways."""
    model, x, y = linear(), rows(3)[:, :6, 0], np.arange(3)
    found = agi(model, x, y, classes=1, steps=2000, step_size=0.001)
    probabilities = np.asarray(model.predict(x))
    assert (found.sum(1)[probabilities.argmax(1) == y] > 0).all()
    few = agi(perceptron(), rows(), targets(), steps=1)
    assert few.shape == (2, 12) and np.isfinite(few).all()


@pytest.mark.parametrize("option", ["classes", "steps"])
def test_option_errors(option):
    """Breaks if no way, or one without a step, becomes a map of zeros."""
    with pytest.raises(ValueError, match=f"{option} must be at least 1"):
        agi(linear(), rows(2)[:, :6, 0], targets(), **{option: 0})
