import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import accuracy_score, average_precision_score, jaccard_score

from fex_jax.metrics import (
    STATISTICS,
    attribution_mass,
    average_precision,
    class_specificity,
    mean_average_precision,
    mean_iou,
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


@pytest.mark.parametrize("value", [0.0, 0.1, -3.3])
def test_constant_map_has_no_foreground(value):
    """Breaks on 0/0, or if rounding noise of the upsampling is stretched into a map."""
    masks = np.zeros((1, 112, 112), bool)
    masks[:, :56] = True
    maps = np.full((1, 8, 8), value, np.float32)
    statistics = np.asarray(segmentation_statistics(maps, masks))
    np.testing.assert_array_equal(statistics[0, :4], [0, 0, 6272, 6272])
    # R = 0 and 1 - R = 1: the background half comes first, half of it right, then all the rest.
    assert statistics[0, 4] == pytest.approx(0.5)


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


def test_wrong_shapes_are_refused():
    """Breaks if a mask of another batch or a map finer than the image is broadcast in silence."""
    with pytest.raises(ValueError, match="masks"):
        segmentation_statistics(np.zeros((2, 2, 2)), np.zeros((1, 4, 4), bool))
    with pytest.raises(ValueError, match="maps"):
        segmentation_statistics(np.zeros((1, 8, 8)), np.zeros((1, 4, 4), bool))
