"""The classes of a training batch, against the probabilities they should be drawn with."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fex_jax.targets import choose_classes

F = jnp.array([0.1, 0.6, 0.3])
COUNT = 20_000  # four standard errors of a frequency are at most 0.015


@pytest.mark.parametrize(
    "rule, first, second",
    [
        ("argmax", [0, 1, 0], [0, 0, 1]),
        # P(second = k) = Σ_j f_j f_k / (1 − f_j)
        ("sampled", F, [0.1 * (0.6 / 0.4 + 0.3 / 0.7), 0.6 * (0.1 / 0.9 + 0.3 / 0.7), None]),
        ("uniform", [1 / 3] * 3, [1 / 3] * 3),
    ],
)
def test_classes_come_as_often_as_they_should(rule, first, second):
    """Breaks if a class is drawn twice, or another than f says."""
    f = jnp.broadcast_to(F, (COUNT, 3))
    chosen = choose_classes(jax.random.key(0), f, rule, 2)
    assert chosen.shape == (COUNT, 2) and (chosen[:, 0] != chosen[:, 1]).all()
    for column, expected in ((0, first), (1, second)):
        for k, share in enumerate(expected):
            if share is not None:
                np.testing.assert_allclose((chosen[:, column] == k).mean(), share, atol=0.015)


def test_there_are_fewer_classes_than_f_has():
    """Breaks if T > K is an error deep inside, or a class that cannot be is drawn first."""
    f = jnp.array([[0.0, 0.0, 1.0]])
    assert choose_classes(jax.random.key(0), f, "sampled", 10).shape == (1, 2)
    assert choose_classes(jax.random.key(0), f[:, :1], "sampled", 10).shape == (1, 1)
    np.testing.assert_array_equal(choose_classes(jax.random.key(0), f, "sampled", 1), [[2]])
