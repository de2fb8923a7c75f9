"""Least squares in float32, against NumPy's in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fex_jax.attributions.regression import solve, triangle


@pytest.mark.parametrize("count, rank", [(6, 6), (19, 19), (20, 20), (60, 20), (60, 7), (6, 3)])
def test_the_shortest_of_the_best(count, rank):
    """Breaks if the minimum or the norm is not the least: few, many and dependent equations."""
    rng = np.random.default_rng(0)
    a = rng.normal(size=(count, rank)) @ rng.normal(size=(rank, 20)) / rank
    b = rng.normal(size=count)
    expected = np.linalg.lstsq(a, b, rcond=1e-9)[0]
    rows = jnp.asarray(np.pad(np.column_stack([a, b]), ((0, -count % 4), (0, 0))), jnp.float32)
    found = jax.jit(
        lambda rows: solve(triangle(lambda i: rows[i], len(rows), 21))
    )(rows.reshape(-1, 4, 21))  # fmt: skip
    condition = np.linalg.cond(a) if rank == min(a.shape) else 30
    assert np.abs(found - expected).max() < 1e-6 * condition * np.abs(expected).max()


def test_ridge():
    """Breaks if α is not that of |Aφ − b|² + α |φ|²; an infinite one leaves nothing."""
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(9, 5)), rng.normal(size=9)
    expected = np.linalg.solve(a.T @ a + 0.3 * np.eye(5), a.T @ b)
    rows = jnp.asarray(np.column_stack([a, b]), jnp.float32)
    found = triangle(lambda _: rows, 1, 6)
    np.testing.assert_allclose(solve(found, 0.3), expected, atol=1e-5)
    np.testing.assert_array_equal(solve(found, jnp.inf), 0)


def test_nothing_asked():
    """Breaks if no equation at all is NaN and not 0."""
    np.testing.assert_array_equal(solve(jnp.zeros((4, 4))), 0)
