"""Methods run on a task: batches, seeds, files, and scores from elsewhere."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fex_jax import attributions, evaluation, explain, metrics, predictors
from fex_jax.evaluation import tasks
from fex_jax.models import Params
from fex_jax.models.policy import functional_policy
from tests.conftest import random_params


@pytest.fixture(scope="module")
def bind(predictor) -> tasks.Bind:
    return predictors.from_checkpoint(predictor)


@pytest.fixture(scope="module")
def predict(predictor, bind) -> tasks.Predict:
    return tasks.make_prediction(bind, predictor.params)


@pytest.fixture(scope="module")
def task(predictor, predict) -> tasks.Task:
    """Seven images, two of them scenes of two objects."""
    images = np.random.default_rng(0).integers(0, 256, (7, 32, 32, 3), np.uint8)
    probabilities = predict(images)
    pair = np.argsort(-probabilities, -1)[:, :2]
    scenes = np.zeros((7, 32, 32), np.uint8)
    scenes[:, 4:12, 4:12] = 1 + pair[:, 0, None, None]
    scenes[[2, 5], 20:30, 20:30] = 1 + pair[[2, 5], 1, None, None]
    return tasks.Task(
        inputs=images,
        grid=(4, 4),
        labels=np.zeros(7, int),
        names=predictor.labels,
        known=None,
        accuracy=None,
        targets=pair[:, 0],
        second=pair[:, 1],
        reference=pair[:, 0],
        segmentation=scenes,
        pairs=np.flatnonzero(tasks.both_shown(scenes, pair)),
        agreed=np.array([False, True]),
    )


@pytest.fixture(scope="module")
def explainer(predictor) -> explain.Explainer:
    init, _ = functional_policy(predictor.config, 10)
    return explain.Explainer(predictor, predictor.config, random_params(init), budget=-3.0)


def test_pairs_are_the_scenes_of_the_two_first_guesses(task):
    """Breaks if class-specific scores are taken on scenes whose second object f did not see."""
    np.testing.assert_array_equal(task.pairs, [2, 5])


def test_a_trained_explainer_scores_as_explain_does(task, predict, explainer):
    """Breaks if batches are mixed up, padding stays, or the second class gets the first's map."""
    method = evaluation.trained(explainer)
    scores = evaluation.attribute(method, predict, task, batch_size=4, seed=0)
    expected = explainer(task.inputs, top_k=2).logits.reshape(7, 2, 16)
    np.testing.assert_allclose(scores.targets, expected[:, 0], atol=1e-4)
    np.testing.assert_allclose(scores.pairs, expected[task.pairs], atol=1e-4)
    assert method.name == "fex" and scores.cost["predictions"] > 0
    assert scores.cost["peak_bytes"] > 0


def test_a_new_method_is_one_function(task, predictor, bind, predict):
    """Breaks if a function needs more than the signature to be run: the README's example."""
    traced = []

    def brightness(model, inputs, targets, key, *, power: int = 1):
        traced.append(1)
        return model.pool(inputs**power, inputs)

    method = evaluation.baseline("brightness", brightness, {"power": 2}, bind, predictor.params)
    scores = evaluation.attribute(method, predict, task, batch_size=3, seed=0)
    assert len(traced) == 1  # one program for all batches and both classes
    inputs = np.asarray(predictor.preprocessing.normalize(task.inputs))
    cells = (inputs**2).reshape(7, 4, 8, 4, 8, 3).sum((2, 4, 5)).reshape(7, 16)
    np.testing.assert_allclose(scores.targets, cells, rtol=1e-4)
    assert method.settings == {"power": 2}


@pytest.mark.parametrize("name", list(attributions.METHODS))
def test_every_method_runs(name, task, predictor, bind, predict):
    """Breaks if a method of the table cannot run through the engine, or compiles once a batch."""
    traced = []

    def counted(*args, **options):
        traced.append(1)
        return attributions.METHODS[name](*args, **options)

    small = {"num_queries": 8} if name in ("rise", "smooth_rise", "lime", "kernel_shap") else {}
    small = {"integrated_gradients": {"steps": 4}, "grad_shap": {"samples": 4}}.get(name, small)
    method = evaluation.baseline(name, counted, small, bind, predictor.params)
    short = task._replace(pairs=np.array([], int))
    scores = evaluation.attribute(method, predict, short, 4, seed=0)
    assert scores.targets.shape == (7, 16) and scores.pairs is None
    assert len(traced) == 1
    assert np.ptp(scores.targets, axis=-1).max() > 0


def test_statistics_reward_the_right_map(task, predictor, bind):
    """Breaks if curves, segmentation or class checks look at another image, class or direction."""
    perturb = evaluation.make_perturbation(predictor, bind, metrics.FEX)
    own = np.zeros((7, 16), np.float32)
    own.reshape(7, 4, 4)[:, 0, 0] = own.reshape(7, 4, 4)[:, 1, 1] = 1
    other = np.zeros((2, 16), np.float32)
    other.reshape(2, 4, 4)[:, 3, 3] = 1
    pairs = np.stack([own[task.pairs], other], 1)
    found = evaluation.statistics(evaluation.Scores(own, pairs, {}), task, perturb, batch_size=4)
    assert found["positive_auc"].shape == (7,) and found["positive_correct"].shape == (7, 11)
    np.testing.assert_array_equal(found["class_specific"], [1, 1])
    np.testing.assert_array_equal(found["class_faithful"], [1])
    np.testing.assert_array_equal(found["pointing"], 1)
    assert found["mass"].min() > 0.9
    swapped = evaluation.statistics(
        evaluation.Scores(own, pairs[:, ::-1], {}), task, perturb, batch_size=4
    )
    np.testing.assert_array_equal(swapped["class_specific"], 0)
    np.testing.assert_array_equal(swapped["pointing"], 0)
    expected = metrics.segmentation_statistics(
        jnp.asarray(own).reshape(7, 4, 4), task.segmentation == 1 + task.targets[:, None, None]
    )
    np.testing.assert_allclose(found["segmentation"], expected, rtol=1e-6)


def test_finished_methods_are_kept_for_the_same_settings(tmp_path):
    """Breaks if an interrupted comparison starts anew, or takes results of another experiment."""
    scores = evaluation.Scores(np.ones((3, 4)), np.zeros((1, 2, 4)), {"predictions": 1.5})
    path = tmp_path / "methods" / "rise.npz"
    assert evaluation.load(path, {}) is None
    evaluation.save(path, {"images": "abc"}, scores, {"mass": np.array([0.5])})
    again, found = evaluation.load(path, {"images": "abc"})
    np.testing.assert_array_equal(again.targets, scores.targets)
    np.testing.assert_array_equal(again.pairs, scores.pairs)
    assert again.cost == scores.cost and found["mass"] == 0.5
    assert evaluation.load(path, {"images": "other"}) is None


def test_scores_from_elsewhere(task, tmp_path):
    """Breaks if an array of another size or with NaN is scored as if it fitted."""
    array = np.random.default_rng(0).normal(size=(7, 4, 4))
    np.save(tmp_path / "mine.npy", array)
    found = evaluation.external(tmp_path / "mine.npy", task)
    np.testing.assert_allclose(found.targets, array.reshape(7, 16), rtol=1e-6)
    np.save(tmp_path / "short.npy", array[:5])
    with pytest.raises(ValueError, match=r"shape \(5, 4, 4\); expected \(7, 16\) or \(7, 4, 4\)"):
        evaluation.external(tmp_path / "short.npy", task)
    array[0, 0, 0] = np.nan
    np.save(tmp_path / "nan.npy", array)
    with pytest.raises(ValueError, match="NaN"):
        evaluation.external(tmp_path / "nan.npy", task)


def test_digest_tells_weights_apart(predictor):
    """Breaks if results of other weights are taken for these."""
    changed: Params = jax.tree.map(lambda x: x, predictor.params)
    changed["head"]["bias"] = changed["head"]["bias"].at[0].add(1e-3)
    assert evaluation.digest(changed) != evaluation.digest(predictor.params)
    assert evaluation.digest(predictor.params) == evaluation.digest(predictor.params)


def test_fastshap_maps_add_up(predictor, explainer, task):
    """Breaks if Shapley maps of `explain` are not f(x) − f(∅) in total."""
    shap = dataclasses.replace(explainer, method="fastshap", budget=None)
    found = shap(task.inputs, top_k=2)
    blank = np.full((1, 32, 32, 3), 0.5, np.float32)  # zero after normalisation
    gain = found.probabilities - shap(blank).probabilities
    total = np.take_along_axis(gain, found.targets, -1)
    np.testing.assert_allclose(found.attributions.sum((-1, -2)), total, atol=1e-5)
