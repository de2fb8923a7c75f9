"""What a network reads of tables' columns."""

import numpy as np

from fex_jax.models import mlp


def read(values, categories=(False,)):
    values = np.array(values, float).reshape(-1, len(categories))
    steps = mlp.Steps.of(values, categories, np.isnan(values).any(0))
    return np.asarray(steps(steps.scaled(values))), steps


def test_each_category_has_a_step():
    """Breaks if categories are read by their order alone, or a missing one as the first."""
    found, _ = read([0, 1, 2, np.nan], [True])
    expected = [[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 0, 1]]
    np.testing.assert_array_equal(found, np.array(expected) - 0.5)


def test_large_numbers_that_differ_little():
    """Breaks if seconds since 1970 are one number in float32, or the largest floats overflow."""
    for values in (1.6e9 + np.arange(9), [-1.7e308, 0, 1.7e308], [1e39, 0]):
        found, _ = read(values)
        assert np.isfinite(found).all() and len(np.unique(found, axis=0)) == len(values)


def test_nothing_is_read_of_a_constant():
    """Breaks if a constant, or a column without any value, divides by zero or is read."""
    found, steps = read([[1, np.nan, 0], [1, np.nan, 2]], [False] * 3)
    np.testing.assert_array_equal(steps.columns, [2])
    np.testing.assert_array_equal(found, [[-0.5], [0.5]])


def test_thousands_of_columns_have_a_step_each():
    """Breaks if what is read grows without bound."""
    values = np.random.default_rng(0).normal(size=(2, 9000))
    assert mlp.Steps.of(values, [False] * 9000, [False] * 9000).size == 9000
