"""Maps against known pixels, by hand and against SciPy's distance on a line."""

import numpy as np
import pytest
import scipy.stats

from fex_jax import metrics


def test_precision_by_hand():
    """Breaks if signs count, k is another than the mask's size, or ties are drawn."""
    scores = np.float32([[-3, 2, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0], [1, 2, 3, 4]])
    masks = np.array([[1, 0, 1, 0], [1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 0, 1]], bool)
    np.testing.assert_allclose(metrics.top_precision(scores, masks), [0.5, 1, 0, 1])


def test_moving_by_hand():
    """Breaks if distances are squared, a mask's cells have mass 1 each, or signs cancel."""
    mask = np.zeros((3, 4), bool)
    mask[0, 0] = mask[2, 3] = True
    maps = np.zeros((4, 3, 4))
    maps[0][mask] = -7, 7  # the mask itself
    maps[1][0, 0] = 2  # half of it goes from corner to corner
    maps[2][0, 1], maps[2][2, 2] = 5, 5  # each half by 1
    maps[3][2, 0] = 1  # a half by 2, a half by 3
    expected = 1 - np.array([0, 0.5 * np.sqrt(13), 1, 2.5]) / np.sqrt(13)
    found = metrics.earth_movers_score(maps, np.broadcast_to(mask, maps.shape))
    np.testing.assert_allclose(found, expected, atol=1e-9)


def test_moving_on_a_line_is_scipys():
    """Breaks if mass goes a longer way than it must."""
    rng = np.random.default_rng(0)
    maps, masks = rng.normal(size=(5, 1, 9)), rng.random((5, 1, 9)) < 0.4
    masks[:, 0, 2] = True
    cells = np.arange(9)
    expected = [
        1 - scipy.stats.wasserstein_distance(cells, cells[mask[0]], np.abs(one[0])) / 8
        for one, mask in zip(maps, masks, strict=True)
    ]
    np.testing.assert_allclose(metrics.earth_movers_score(maps, masks), expected, atol=1e-9)


def test_nothing_to_move():
    """Breaks if a map of zeros is no even one, or NaN or masks of another size are scored."""
    masks = np.ones((1, 2, 2), bool)
    np.testing.assert_allclose(metrics.earth_movers_score(np.zeros((1, 2, 2)), masks), 1)
    assert np.isnan(metrics.earth_movers_score(np.full((1, 2, 2), np.nan), masks)).all()
    assert np.isnan(metrics.earth_movers_score(np.ones((1, 2, 2)), ~masks)).all()
    with pytest.raises(ValueError, match=r"maps are \(1, 2\), masks \(1, 2, 2\)"):
        metrics.earth_movers_score(np.ones((1, 2)), masks)
