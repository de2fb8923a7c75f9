"""What methods are compared on: classes, masks, and texts as the classifier sees them."""

import jax
import numpy as np
import pytest

from fex_jax import masking, metrics, predictors, text_data
from fex_jax.evaluation import inputs, tasks
from tests import tiny_text


def test_object_masks_are_the_explained_class_or_else_all_objects():
    """Breaks if a map is scored against another class's object."""
    scene = np.array([[0, 3], [7, 7]], np.uint8)
    masks = tasks.object_masks(np.stack([scene, scene]), np.array([6, 9]))
    np.testing.assert_array_equal(masks[0], [[0, 0], [1, 1]])
    np.testing.assert_array_equal(masks[1], [[0, 1], [1, 1]])  # class 9 is not in the scene


def test_both_shown():
    """Breaks if scenes count whose second digit the predictor did not see."""
    pair, single = np.array([[0, 3, 7]], np.uint8), np.array([[0, 3, 3]], np.uint8)
    scenes = np.stack([pair, pair, single])
    shown = tasks.both_shown(scenes, np.array([[6, 2], [2, 5], [2, 6]]))
    np.testing.assert_array_equal(shown, [True, False, False])


def test_agreement_is_whether_f_finds_each_class_on_its_own_object():
    """Breaks if another object's patches are asked about, or one class's answer decides for both.

    f's logit of class k is the sum of channel k, so what an object speaks for is drawn by hand.
    """

    def bind(params, images):
        return (
            predictors.Model(
                predict=lambda x: jax.nn.softmax(x.sum((1, 2)) * params),
                mask=lambda x, m: masking.patches(x, m.reshape(-1, 2, 2)),
                grid=(2, 2),
                pool=lambda x, _: x.reshape(len(x), 2, 2, 2, 2).sum((2, 4)).reshape(-1, 4),
            ),
            images,
        )

    scenes = np.zeros((4, 4, 4), np.uint8)
    scenes[:, :2, :2], scenes[:, 2:, 2:] = 1, 2  # class 0 above, class 1 below
    scenes[:, 1, 1] = 2  # a pixel of the other one's, of a patch that is mostly class 0's
    images = np.zeros((4, 4, 4, 3), np.float32)
    above, below = np.s_[:2, :2], np.s_[2:, 2:]
    images[1][above][..., 0] = images[1][below][..., 1] = 1  # each for itself
    images[2][above][..., 0] = images[2][above][..., 1] = 1  # the first speaks for both
    images[3][above][..., 1] = images[3][below][..., 0] = 1  # each for the other
    task = tasks.Task(
        inputs=images,
        grid=(2, 2),
        true_classes=np.zeros(4, int),
        names=("a", "b", "c"),
        known=None,
        accuracy=None,
        targets=np.zeros(4, int),
        second=np.ones(4, int),
        reference=np.zeros(4, int),
        segmentation=scenes,
        pairs=np.array([1, 2, 3]),
    )
    np.testing.assert_array_equal(tasks.agreement(task, bind, 0.5, 2), [True, False, False])


def test_texts_are_cut_as_the_classifier_sees_them(reviews):
    """Breaks if rationales keep words beyond the window, or texts and classes change places."""
    predictor = tiny_text.checkpoint()
    bind = predictors.from_checkpoint(predictor)
    predict = tasks.make_prediction(bind, predictor.params)
    source = text_data.open_source("eraser", "test", reviews)
    cut = tasks.Reading(metrics.FEX, 4, 0, "word", 0, "cut", "position")
    task = inputs.open_task(predictor, bind, predict, source, None, cut)
    assert task.inputs.ids.shape == (6, 32) and task.size == 6
    assert task.segmentation is None and len(task.pairs) == 0
    for i, document in enumerate(task.documents):
        assert len(document.rationale) == len(document.text.split()) <= 30
        negative = any(word in document.text for word in ("dull", "awful"))
        assert task.known[i] == (0 if negative else 1)
        assert document.rationale[0] and document.rationale.sum() == 1
        words = int(task.inputs.features[i].max()) + 1
        assert len(document.spans) == words
    expected = predict(task.inputs).argmax(-1)
    np.testing.assert_array_equal(task.targets, expected)
    assert task.accuracy == (task.targets == task.known).mean()
    with pytest.raises(ValueError, match="1 of 6 texts are longer than the model's 32 tokens"):
        whole = cut._replace(too_long="refuse")
        inputs.open_task(predictor, bind, predict, source, None, whole)
