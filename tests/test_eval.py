"""The scripts' own arithmetic around the metrics."""

import numpy as np

import eval as evaluation
from fex_jax import metrics


def test_object_masks_are_the_explained_class_or_else_all_objects():
    """Breaks if a map is scored against another class's object."""
    scene = np.array([[0, 3], [7, 7]], np.uint8)
    masks = evaluation.object_masks(np.stack([scene, scene]), np.array([6, 9]))
    np.testing.assert_array_equal(masks[0], [[0, 0], [1, 1]])
    np.testing.assert_array_equal(masks[1], [[0, 1], [1, 1]])  # class 9 is not in the scene


def test_labels_of_the_data_become_the_predictors_classes():
    """Breaks if a folder's first class is taken for the predictor's first class."""
    labels = ("ant", "bee", "cat")
    np.testing.assert_array_equal(evaluation.class_numbers(("cat", "ant"), labels), [2, 0])
    np.testing.assert_array_equal(evaluation.class_numbers(("n01", "n02", "n03"), labels), range(3))
    assert evaluation.class_numbers(("cat", "dog"), labels) is None


def test_both_shown():
    """Breaks if scenes count whose second digit the predictor did not see."""
    pair, single = np.array([[0, 3, 7]], np.uint8), np.array([[0, 3, 3]], np.uint8)
    scenes = np.stack([pair, pair, single])
    shown = evaluation.both_shown(scenes, np.array([[6, 2], [2, 5], [2, 6]]))
    np.testing.assert_array_equal(shown, [True, False, False])


def test_summary_holds_means_with_their_intervals():
    """Breaks if a metric is lost, or pooled segmentation scores are averaged over images."""
    values = {name: np.array([0.0, 1.0, 1.0, 1.0]) for name in ("positive_auc", "insertion")}
    # True and false positives, false and true negatives, average precision of two images.
    statistics = np.array([[8, 0, 0, 2, 1.0], [0, 50, 40, 0, 0.0]])
    summary = evaluation.summarise(values | {"segmentation": statistics})
    assert set(summary) == {"positive_auc", "insertion", "pixel_accuracy", "map", "miou"}
    assert summary["positive_auc"]["mean"] == 0.75
    np.testing.assert_allclose(summary["pixel_accuracy"]["mean"], 10 / 100)
    np.testing.assert_allclose(summary["miou"]["mean"], (8 / 98 + 2 / 92) / 2)
    assert summary["map"]["mean"] == 0.5
    shown = evaluation.table({"fex": summary})["fex"]
    assert shown["Positive AUC ↓"].startswith("0.750 ± ")
    assert set(metrics.PROTOCOLS) == {"fex", "chefer", "authors"}
