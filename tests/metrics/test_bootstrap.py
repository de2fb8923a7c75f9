import numpy as np
import pytest

from fex_jax.metrics import bootstrap_interval


def test_mean_interval_matches_normal_theory():
    """Breaks if draws are taken without replacement, too small, or cut at the wrong level."""
    values = np.random.default_rng(1).normal(3.0, 2.0, size=400)
    mean, low, high = bootstrap_interval(values, samples=4000)
    standard_error = values.std() / np.sqrt(len(values))
    assert mean == pytest.approx(values.mean())
    assert low == pytest.approx(mean - 1.96 * standard_error, abs=0.1 * standard_error)
    assert high == pytest.approx(mean + 1.96 * standard_error, abs=0.1 * standard_error)


def test_level_narrows_the_interval():
    """Breaks if `level` is ignored: 68 % is about one standard error either side."""
    values = np.random.default_rng(2).normal(size=400)
    mean, low, high = bootstrap_interval(values, samples=4000, level=0.6827)
    assert high - low == pytest.approx(2 * values.std() / 20, rel=0.08)


def test_pooled_ratio_is_recomputed_on_each_draw():
    """Breaks if ratios are averaged by image, or columns are resampled apart from each other.

    Every image has the same ratio 1/2 at a different size: the pooled ratio cannot vary as long as
    the numerator and the denominator of an image stay together.
    """
    size = np.arange(1.0, 21.0)
    pairs = np.stack([size, 2 * size], axis=1)
    interval = bootstrap_interval(pairs, lambda rows: rows[:, 0].sum() / rows[:, 1].sum())
    assert interval == (0.5, 0.5, 0.5)
    unequal = np.array([[1.0, 1.0], [0.0, 3.0]])  # mean of ratios 1/2, pooled ratio 1/4
    estimate, low, high = bootstrap_interval(unequal, lambda r: r[:, 0].sum() / r[:, 1].sum())
    assert (estimate, low, high) == (0.25, 0.0, 1.0)


def test_curves_get_an_interval_at_every_step():
    """Breaks if the default mean or the quantiles run over the steps instead of the images."""
    values = np.stack([np.zeros(30), np.arange(30.0), np.ones(30)], axis=1)  # [B, S]
    mean, low, high = bootstrap_interval(values)
    np.testing.assert_allclose(mean, [0.0, 14.5, 1.0])
    assert low[0] == high[0] == 0 and low[2] == high[2] == 1
    assert low[1] < 14.5 < high[1]


def test_seed_fixes_the_draws():
    """Breaks if runs are not reproducible, or if the seed is ignored."""
    values = np.random.default_rng(3).normal(size=50)
    assert bootstrap_interval(values, seed=5) == bootstrap_interval(values, seed=5)
    assert bootstrap_interval(values, seed=5) != bootstrap_interval(values, seed=6)


@pytest.mark.parametrize(
    ("values", "options"),
    [
        (np.zeros(0), {}),
        (np.array([1.0, np.nan]), {}),
        (np.ones(3), {"level": 95}),
        (np.ones(3), {"samples": 0}),
    ],
)
def test_unusable_arguments_are_refused(values, options):
    """Breaks if a NaN or a percentage slips through and yields a plausible interval."""
    with pytest.raises(ValueError):
        bootstrap_interval(values, **options)
