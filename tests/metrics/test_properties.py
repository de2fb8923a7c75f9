"""Properties of maps, against values worked out by hand and against Quantus."""

import itertools

import jax
import numpy as np
import pytest

from fex_jax import metrics

MAPS = np.float32([[0, 0, -3, 0], [1, -1, 1, -1], [0, 1, 0, 3]])


def test_complexity_by_hand():
    """Breaks if signs or the map's size count, or a feature of 0 gives NaN."""
    expected = [0, np.log(4), -0.25 * np.log(0.25) - 0.75 * np.log(0.75)]
    np.testing.assert_allclose(metrics.complexity(7 * MAPS), expected, atol=1e-6)


def test_sparseness_by_hand():
    """Breaks if ranks are counted from the wrong end, or from 0."""
    # Weights −3, −1, 1, 3 of the sorted shares, over 4: of the last ¼ · 1 + ¾ · 3.
    np.testing.assert_allclose(metrics.sparseness(7 * MAPS), [3 / 4, 0, 2.5 / 4], atol=1e-6)


def test_a_map_of_zeros_has_neither():
    """Breaks if a map that says nothing gets the score of the simplest."""
    nothing = np.zeros((1, 4))
    assert np.isnan([metrics.complexity(nothing), metrics.sparseness(nothing)]).all()


def test_subsets_have_their_size_and_differ():
    """Breaks if features are drawn with replacement, or inputs share a draw."""
    subsets = np.asarray(metrics.random_subsets(jax.random.key(0), 600, (2, 4), 2))
    assert (subsets.sum(-1) == 2).all()
    assert (subsets[:, 0] != subsets[:, 1]).any()
    pairs = [subsets[..., i] & subsets[..., j] for i, j in itertools.combinations(range(4), 2)]
    np.testing.assert_allclose(np.mean(pairs, (1, 2)), 1 / 6, atol=0.04)  # 3.7 deviations
    with pytest.raises(ValueError, match="a subset of 5 of 4 features; give 1 to 4"):
        metrics.random_subsets(jax.random.key(0), 1, (2, 4), 5)


def test_correlation_of_an_additive_function_is_1():
    """Breaks if kept features take the place of removed ones, or the class is another."""
    x = np.random.default_rng(0).normal(size=(3, 6)).astype(np.float32)
    slopes = np.float32([[1, -2, 3, -4, 5, -6], [0, 0, 0, 0, 0, 1]])
    subsets = metrics.random_subsets(jax.random.key(0), 20, x.shape, 2)

    def correlation(scores: np.ndarray, subsets: jax.Array) -> jax.Array:
        given = x, scores, np.zeros(3, int), subsets
        return metrics.faithfulness_correlation(
            lambda x: x @ slopes.T, lambda x, m: x * m.astype(x.dtype), *given
        )

    np.testing.assert_allclose(correlation(x * slopes[0], subsets), 1, atol=1e-5)
    np.testing.assert_allclose(correlation(-x * slopes[0], subsets), -1, atol=1e-5)
    with pytest.raises(ValueError, match=r"subsets are \(3, 6\); wanted \[K, 3, 6\]"):
        correlation(x, subsets[0])


def test_sensitivity_by_hand():
    """Breaks if a mean takes the place of the largest, or the wrong norm divides."""
    x = np.float32([[3, 4], [6, 8]])
    noise = np.float32([[[1, 0]] * 2, [[0, -5]] * 2])
    found = metrics.max_sensitivity(lambda x: 2 * x, x, noise)
    np.testing.assert_allclose(found, [1, 0.5], rtol=1e-6)
    with pytest.raises(ValueError, match=r"noise is \(2, 2\); wanted \[K, 2, 2\]"):
        metrics.max_sensitivity(lambda x: x, x, noise[0])


def test_they_are_those_of_quantus():
    """Breaks if a formula is another than that of the tool which many papers are judged by."""
    pytest.importorskip("quantus")
    pytest.importorskip("torch")
    from benchmarks.outsiders_of_metrics import by_quantus

    for item, _, pairs in by_quantus():
        for ours, theirs in pairs:
            np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-6, err_msg=item)
