import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import accuracy_score, average_precision_score, jaccard_score

from fex_jax.metrics import (
    STATISTICS,
    attribution_mass,
    average_precision,
    class_specificity,
    is_flat,
    mean_average_precision,
    mean_iou,
    of_empty_map,
    pixel_accuracy,
    pointing_game,
    segmentation_statistics,
    upsample,
)


def scenes(batch: int = 6, grid: int = 4, size: int = 16) -> tuple[np.ndarray, np.ndarray]:
    """Random maps [B, grid, grid] and rectangles [B, size, size] that they half follow."""
    rng = np.random.default_rng(0)
    masks = np.zeros((batch, size, size), bool)
    for mask in masks:
        top, left = rng.integers(0, size // 2, 2)
        mask[top : top + rng.integers(3, 9), left : left + rng.integers(3, 9)] = True
    inside = masks.reshape(batch, grid, size // grid, grid, size // grid).mean((2, 4))
    maps = inside + rng.normal(0, 0.4, inside.shape)
    return maps.astype(np.float32), masks


def relevance(maps: np.ndarray, size: int) -> np.ndarray:
    """Min-max scaled pixels, [B, size, size]; constant maps become 0."""
    pixels = np.asarray(upsample(jnp.asarray(maps), (size, size)))
    low = pixels.min((1, 2), keepdims=True)
    span = pixels.max((1, 2), keepdims=True) - low
    return (pixels - low) / np.where(span > 1e-6, span, np.float32(1))


def test_pooled_scores_match_scikit_learn():
    """Breaks if counts are swapped, IoU is averaged by image, or a class is left out of mIoU."""
    maps, masks = scenes()
    statistics = np.asarray(segmentation_statistics(maps, masks))
    assert statistics.shape == (6, len(STATISTICS))
    pixels = relevance(maps, 16)
    foreground = (pixels > pixels.mean((1, 2), keepdims=True)).ravel()
    labels = masks.ravel()
    assert pixel_accuracy(statistics) == pytest.approx(accuracy_score(labels, foreground))
    assert mean_iou(statistics) == pytest.approx(jaccard_score(labels, foreground, average="macro"))


def test_map_matches_scikit_learn():
    """Breaks if the background half is left out, or the mean is pooled over images."""
    maps, masks = scenes()
    expected = [
        average_precision_score(
            np.concatenate([~mask.ravel(), mask.ravel()]),
            np.concatenate([1 - pixels.ravel(), pixels.ravel()]),
        )
        for pixels, mask in zip(relevance(maps, 16), masks, strict=True)
    ]
    statistics = np.asarray(segmentation_statistics(maps, masks))
    np.testing.assert_allclose(statistics[:, 4], expected, rtol=1e-4)
    assert mean_average_precision(statistics) == pytest.approx(np.mean(expected), rel=1e-4)


@pytest.mark.parametrize("levels", [1, 2, 5, 1000])
def test_average_precision_handles_ties_exactly(levels):
    """Breaks if tied scores are credited in order of position; one level means all are tied."""
    rng = np.random.default_rng(levels)
    scores = rng.integers(0, levels, size=(5, 200)).astype(np.float32)
    labels = rng.random((5, 200)) < 0.3
    expected = [average_precision_score(y, s) for y, s in zip(labels, scores, strict=True)]
    np.testing.assert_allclose(average_precision(scores, labels), expected, rtol=1e-5)


def test_average_precision_by_hand():
    """Breaks if precision is read before, not after, a run of ties.

    Scores 3 | 2 2 | 1 with hits at 3 and one of the 2s: 1/2 · 1/1 + 1/2 · 2/3.
    """
    scores = jnp.array([2.0, 3.0, 2.0, 1.0])
    labels = jnp.array([True, True, False, False])
    assert average_precision(scores, labels) == pytest.approx(1 / 2 + 1 / 3)
    assert average_precision(scores, jnp.zeros(4, bool)) == 0


def almost(value: float, grid: int = 8) -> np.ndarray:
    """A map [1, grid, grid] of one value but for the last bit of half of its patches."""
    flat = np.full((1, grid, grid), value, np.float32)
    up = np.random.default_rng(0).random(flat.shape) < 0.5
    return np.where(up, np.nextafter(flat, np.float32(np.inf)), flat)


FLAT = [np.full((1, 8, 8), value, np.float32) for value in (0, 0.1, -3.3, 1e-30, 3e38)]
FLAT += [almost(0.1), almost(-7.7), almost(1e6)]


def halves(size: int = 112) -> tuple[np.ndarray, np.ndarray]:
    """Two masks of unequal area: the left eighth, and the right half."""
    own, other = np.zeros((2, 1, size, size), bool)
    own[:, :, : size // 8] = other[:, :, size // 2 :] = True
    return own, other


@pytest.mark.parametrize("maps", FLAT)
def test_a_flat_map_says_nothing(maps):
    """Breaks on 0/0, if rounding noise is stretched into a map, or if saying nothing scores.

    Chefer et al.: min-max gives NaN, which counts 0 in both halves, so that all 2 H W scores tie
    and average precision is the share of ones, 1/2; no pixel is foreground.
    """
    own, other = halves()
    statistics = np.asarray(segmentation_statistics(maps, own))
    np.testing.assert_array_equal(statistics, [[0, 0, 1568, 10976, 0.5]])
    expected = average_precision_score(np.r_[~own.ravel(), own.ravel()], np.zeros(2 * 112**2))
    assert statistics[0, 4] == expected
    assert attribution_mass(maps, own, other) == 0.5
    assert pointing_game(maps, own, other) == 0
    assert class_specificity(maps, maps, own, other) == 0
    assert is_flat(maps) and is_flat(jnp.asarray(maps), (1, 2)).tolist() == [True]


def test_small_differences_are_a_map():
    """Breaks if "flat" is absolute: what spans 1e-5 of its size is read, however small it is."""
    own, other = halves()
    left = np.zeros((1, 8, 8), np.float32)
    left[:, :, 0] = 1
    for maps in (1e-20 * left, 1 + 1e-5 * left, np.float32(3e38) * (2 * left - 1)):
        assert not is_flat(maps)
        assert pixel_accuracy(segmentation_statistics(maps, own)) > 0.9
        assert attribution_mass(maps, own, other) == pytest.approx(1, abs=1e-6)
        assert class_specificity(maps, -maps, own, other) == 1


def test_an_empty_map_from_any_maps_statistics():
    """Breaks if the object's pixels are lost; what a flat map scores on the same masks."""
    maps, masks = scenes()
    found = of_empty_map(segmentation_statistics(maps, masks))
    np.testing.assert_array_equal(found, segmentation_statistics(0 * maps, masks))
    assert pixel_accuracy(found) == pytest.approx(1 - masks.mean())


def test_nan_is_never_a_number():
    """Breaks if a map with a NaN gets a plausible score, or spoils its neighbour's."""
    maps, masks = scenes(batch=2)
    maps[0, 1, 2] = np.nan
    found = [
        segmentation_statistics(maps, masks),
        average_precision(maps.reshape(2, -1), maps.reshape(2, -1) > 0),
        class_specificity(maps, maps, masks, masks),
        pointing_game(maps, masks, masks),
        attribution_mass(maps, masks, masks),
        pointing_game(maps[[1, 1]], masks * np.array([[[0]], [[1]]]) > 0, masks),
    ]
    for values in found:
        assert np.isnan(values[0]).all() and np.isfinite(values[1]).all()


def test_iou_of_one_class_is_sklearns():
    """Breaks if a class that is neither there nor predicted counts as 0."""
    everything = np.array([[9.0, 0, 0, 0, 1]])
    assert mean_iou(everything) == jaccard_score([1] * 9, [1] * 9, average="macro") == 1


def test_perfect_and_inverted_maps():
    """Breaks if the sign of the map is lost: the two extremes are known by hand."""
    masks = np.zeros((1, 4, 4), bool)
    masks[:, :2] = True
    perfect = segmentation_statistics(masks.astype(np.float32), masks)
    assert (pixel_accuracy(perfect), mean_iou(perfect)) == (1.0, 1.0)
    assert mean_average_precision(perfect) == pytest.approx(1.0)
    inverted = segmentation_statistics(-masks.astype(np.float32), masks)
    assert (pixel_accuracy(inverted), mean_iou(inverted)) == (0.0, 0.0)


def test_foreground_is_strictly_above_the_mean():
    """Breaks if `>=` replaces `>`: scaled values 0, 1/2, 1 with mean 1/2 leave one pixel."""
    maps = np.array([[[1.0, 2.0, 3.0]]], np.float32)
    statistics = np.asarray(segmentation_statistics(maps, np.ones((1, 1, 3), bool)))
    np.testing.assert_array_equal(statistics[0, :4], [1, 0, 2, 0])


def test_class_specificity_asks_both_maps():
    """Breaks if one map suffices, if maps are swapped, or if sums replace means.

    Object b has three times the area of object a, so a sum would favour b.
    """
    mask_a, mask_b = np.zeros((2, 1, 8, 8), bool)
    mask_a[:, :, :2] = True
    mask_b[:, :, 2:] = True
    left = np.array([[[1.0, 0.5, 0.5, 0.5]] * 4], np.float32)
    right = np.array([[[0.1, 0.9, 0.9, 0.9]] * 4], np.float32)
    assert class_specificity(left, right, mask_a, mask_b).tolist() == [True]
    assert class_specificity(right, left, mask_a, mask_b).tolist() == [False]
    assert class_specificity(left, left, mask_a, mask_b).tolist() == [False]
    assert class_specificity(right, right, mask_a, mask_b).tolist() == [False]


def test_pointing_and_mass_compare_two_objects():
    """Breaks if the background takes part, or the objects are swapped: values by hand."""
    own, other = np.zeros((2, 3, 4, 4), bool)
    own[:, :2, :2], other[:, 2:, 2:] = True, True
    maps = np.zeros((3, 4, 4), np.float32)
    maps[:, 0, 3] = 9.0  # on neither object
    maps[0, :2, :2], maps[0, 2:, 2:] = 3.0, 1.0  # 3 : 1 on the explained object
    maps[1, 1, 1], maps[1, 2:, 2:] = 2.0, 1.5  # the peak on it, most of the mass on the other
    np.testing.assert_array_equal(pointing_game(maps, own, other), [1, 1, 0])
    np.testing.assert_allclose(attribution_mass(maps, own, other), [0.75, 0.25, 0.5], atol=1e-6)


def test_64_bits_give_the_numbers_of_32():
    """Breaks if pixels that tie, as at an edge that repeats, are ranked otherwise in float64."""
    maps, masks = scenes(grid=4)
    other = np.roll(masks, 5, 2) & ~masks
    expected = segmentation_statistics(maps, masks), attribution_mass(maps, masks, other)
    with jax.enable_x64(True):
        large = maps.astype(np.float64)
        found = segmentation_statistics(large, masks), attribution_mass(large, masks, other)
    for one, same in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, same, rtol=1e-6)


def test_wrong_shapes_are_refused():
    """Breaks if a mask of another batch or a map finer than the image is broadcast in silence."""
    with pytest.raises(ValueError, match="masks"):
        segmentation_statistics(np.zeros((2, 2, 2)), np.zeros((1, 4, 4), bool))
    with pytest.raises(ValueError, match="maps"):
        segmentation_statistics(np.zeros((1, 8, 8)), np.zeros((1, 4, 4), bool))
