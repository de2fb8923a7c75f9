"""Methods run on a task: one way to a map, batches, seeds, and scores from elsewhere."""

import dataclasses
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit, softmax

from fex_jax import attributions, evaluation, explain, metrics, predictors, pretrained
from fex_jax.evaluation import inputs, tasks
from fex_jax.models import shapes
from fex_jax.models.bert import BertClassifier
from fex_jax.models.policy import functional_policy, make_backbone
from tests import tiny_text
from tests.conftest import random_checkpoint, random_like, random_params


def a_task(predictor: pretrained.Checkpoint) -> tasks.Task:
    """Seven images, two of them scenes of the two most probable classes."""
    images = np.random.default_rng(0).integers(0, 256, (7, 32, 32, 3), np.uint8)
    predict = tasks.make_prediction(predictors.from_checkpoint(predictor), predictor.params)
    pair = np.argsort(-predict(images), -1)[:, :2]
    scenes = np.zeros((7, 32, 32), np.uint8)
    scenes[:, 4:12, 4:12] = 1 + pair[:, 0, None, None]
    scenes[[2, 5], 20:30, 20:30] = 1 + pair[[2, 5], 1, None, None]
    return tasks.Task(
        inputs=images,
        grid=(4, 4),
        true_classes=np.zeros(7, int),
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
def predictor():
    """Of two blocks: of one the gradient of a method's map can be negative everywhere."""
    return random_checkpoint(num_layers=2)


@pytest.fixture(scope="module")
def bind(predictor):
    return predictors.from_checkpoint(predictor)


@pytest.fixture(scope="module")
def predict(predictor, bind) -> tasks.Predict:
    return tasks.make_prediction(bind, predictor.params)


@pytest.fixture(scope="module")
def task(predictor) -> tasks.Task:
    return a_task(predictor)


def test_pairs_are_the_scenes_of_the_two_first_guesses(task):
    """Breaks if class-specific scores are taken on scenes whose second object f did not see."""
    np.testing.assert_array_equal(task.pairs, [2, 5])


CASES = {
    "fex": {"budget": -3.0},
    "two classes, contrastive, refined": {"budget": -2.0, "num_classes": 2, "contrastive": True},
    "fastshap": {"method": "fastshap"},
    "l2x": {"method": "l2x"},
    "unet": {"kind": "unet"},
}


@pytest.mark.parametrize(
    "name, refine, batch_size",
    [
        ("fex", 0, 1),
        ("fex", 0, 7),
        ("two classes, contrastive, refined", 8, 7),
        ("fastshap", 0, 7),
        ("l2x", 8, 7),
        ("unet", 0, 7),
    ],
)
def test_tables_score_what_explain_returns(name, refine, batch_size):
    """Breaks if a row is of another map than users get, in a single bit.

    So with mirrored maps of two classes, φ that add up and refined maps, of the first class and of
    the second, which is scored in pairs alone.
    """
    case = dict(CASES[name])
    predictor = random_checkpoint(num_classes=case.pop("num_classes", 10))
    backbone = make_backbone(case.pop("kind", "vit"), predictor.config)
    backbone = dataclasses.replace(backbone, hidden_size=16)
    params = random_params(functional_policy(backbone, len(predictor.labels))[0])
    explainer = explain.Explainer(predictor, backbone, params, **case)
    method, task = evaluation.trained(explainer, refine), a_task(predictor)
    predict = tasks.make_prediction(explainer.bind, predictor.params)
    found = evaluation.attribute(method, predict, task, batch_size, seed=3)
    second = (task.second[task.pairs], task.inputs[task.pairs], found.pairs[:, 1])
    for classes, images, scores in ((task.targets, task.inputs, found.targets), second):
        given = explainer(images, targets=classes, refine=refine, batch_size=batch_size)
        np.testing.assert_array_equal(scores, given.logits.reshape(-1, 16))
        assert np.ptp(scores, axis=-1).min() > 0
    assert method.name == explainer.name + (f"+{refine}" if refine else "")
    assert found.cost["predictions"] > 0 and found.cost["peak_bytes"] > 0


@pytest.mark.parametrize(
    "method, num_classes, refine, batch_size", [("fex", 2, 8, 7), ("fastshap", 3, 0, 1)]
)
def test_tables_score_what_explain_returns_of_texts(method, num_classes, refine, batch_size):
    """Breaks if texts in one window are scored at other lengths than `explain` reads them at."""
    architecture = dataclasses.replace(tiny_text.config(num_classes=num_classes), max_positions=64)
    weights = random_like(shapes(BertClassifier, architecture))
    labels = tuple(map(str, range(num_classes)))
    predictor = pretrained.TextCheckpoint(architecture, weights, labels, tiny_text.tokenizer())
    params = random_params(functional_policy(architecture, num_classes)[0])
    budget = -3.0 if method == "fex" else None
    explainer = explain.Explainer(predictor, architecture, params, method=method, budget=budget)
    texts = ["a funny film", "dull , " * 18 + "plot", "not bad !", "very " * 40 + "good", "bad"]
    source = SimpleNamespace(texts=texts, classes=None, names=labels, rationales=None)
    predict = tasks.make_prediction(explainer.bind, predictor.params)
    reading = tasks.Reading(metrics.FEX, 2, 0, "word", 0, "refuse")
    task = inputs.open_task(predictor, explainer.bind, predict, source, None, reading)
    assert task.inputs.ids.shape == (5, 64)  # as the longest needs; three are read in 32
    row = evaluation.trained(explainer, refine)
    for classes in (task.targets, task.second):
        asked = task._replace(targets=classes)
        found = evaluation.attribute(row, predict, asked, batch_size, seed=0).targets
        explained = explainer(texts, classes, refine=refine, batch_size=batch_size)
        for scores, explanation in zip(found, explained, strict=True):
            size = len(explanation.scores)
            own = scores[:size].astype(np.float64)
            expected = expit(own) if method == "fex" else own
            np.testing.assert_array_equal(explanation.scores, expected)
            assert not scores[size:].any() and (size == 1 or np.ptp(own) > 0)


def test_draws_do_not_depend_on_the_batch(task, predictor, bind, predict):
    """Breaks if every batch has a key of its own, so that numbers change with the batches."""
    method = evaluation.of_function(
        "random", attributions.METHODS["random"], {}, bind, predictor.params
    )
    scores, again, other = (
        evaluation.attribute(method, predict, task, 7, seed=seed) for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(scores.targets, again.targets)
    assert not np.array_equal(scores.targets, other.targets)
    assert not np.array_equal(scores.pairs[:, 0], scores.pairs[:, 1])
    longer = task._replace(
        inputs=np.concatenate([task.inputs] * 2), targets=np.tile(task.targets, 2)
    )
    twice = evaluation.attribute(method, predict, longer, 7, seed=0).targets
    np.testing.assert_array_equal(twice[: task.size], scores.targets)
    # Two inputs alike have draws of their own: an interval takes them to be independent.
    assert not np.array_equal(twice[: task.size], twice[task.size :])
    fours = evaluation.attribute(method, predict, task, 4, seed=0).targets
    np.testing.assert_array_equal(fours, scores.targets)


def test_a_new_method_is_one_function(task, predictor, bind, predict):
    """Breaks if a function needs more than the signature to be run: the README's example."""
    traced = []

    def brightness(model, inputs, targets, key, *, power: int = 1):
        traced.append(1)
        return model.pool(inputs**power, inputs)

    method = evaluation.of_function("brightness", brightness, {"power": 2}, bind, predictor.params)
    scores = evaluation.attribute(method, predict, task, batch_size=3, seed=0)
    assert len(traced) == 1  # one program for all batches and both classes
    inputs = np.asarray(predictor.preprocessing.normalize(task.inputs))
    cells = (inputs**2).reshape(7, 4, 8, 4, 8, 3).sum((2, 4, 5)).reshape(7, 16)
    np.testing.assert_allclose(scores.targets, cells, rtol=1e-4)
    assert method.settings == {"function": brightness, "options": {"power": 2}}


def test_a_method_may_compute_with_numpy(task, predictor, bind, predict):
    """Breaks if a function that JAX cannot trace is no method, or maps need another shape."""

    def edges(model, inputs, targets, key):
        pixels = np.asarray(inputs).reshape(len(inputs), 4, 8, 4, 8, 3)
        return pixels.std((2, 4, 5))  # [B, rows, cols]

    method = evaluation.of_function("edges", edges, {}, bind, predictor.params)
    scores = evaluation.attribute(method, predict, task, 3, seed=0)
    inputs = np.asarray(predictor.preprocessing.normalize(task.inputs))
    expected = inputs.reshape(7, 4, 8, 4, 8, 3).std((2, 4, 5)).reshape(7, 16)
    np.testing.assert_allclose(scores.targets, expected, rtol=1e-4)


def test_scores_may_be_of_another_library(task, predictor, bind, predict):
    """Breaks if tensors of torch or lists of numbers end inside JAX, or a method that writes into
    its inputs changes what others are scored on."""
    torch = pytest.importorskip("torch")

    def tensors(model, inputs, targets, key):
        return torch.arange(16.0, requires_grad=True).expand(len(inputs), 16)

    def lists(model, inputs, targets, key):
        np.asarray(inputs)  # not traced
        return [[float(i) for i in range(16)] for _ in inputs]

    def writes(model, inputs, targets, key):
        given = np.asarray(inputs)
        if given.flags.writeable:
            given[:] = 0
        return np.tile(np.arange(16), (len(given), 1))

    before = np.copy(task.inputs)
    for function in (tensors, lists, writes):
        method = evaluation.of_function(function.__name__, function, {}, bind, predictor.params)
        scores = evaluation.attribute(method, predict, task, 3, seed=0)
        np.testing.assert_array_equal(scores.targets, np.tile(np.arange(16), (7, 1)))
    np.testing.assert_array_equal(task.inputs, before)


def test_wrong_methods_are_named(task, predictor, bind, predict):
    """Breaks if a wrong signature, option, shape or value ends deep inside, or is scored."""
    rise = attributions.METHODS["rise"]
    with pytest.raises(ValueError, match="rise: .*querys.*this one takes num_queries"):
        evaluation.of_function("rise", rise, {"querys": 3}, bind, predictor.params)
    with pytest.raises(ValueError, match="dict: no signature found .* a method is a function"):
        evaluation.of_function("dict", dict, {}, bind, predictor.params)
    with pytest.raises(ValueError, match=r"a method is \(model, inputs, targets, key"):
        evaluation.of_function("mine", lambda model, inputs: 0, {}, bind, predictor.params)
    for value, message in (
        (jnp.zeros((3, 5)), r"mine gave scores of shape \(3, 5\); expected \(batch, 16\)"),
        (jnp.full((3, 16), jnp.nan), "mine gave NaN"),
        (None, "mine gave NoneType; expected an array of real numbers"),
        (np.full((3, 16), "a"), "mine gave an array of <U1; expected an array of real numbers"),
        (jnp.ones((3, 16), complex), "mine gave an array of complex64; expected an array of real"),
        ((jnp.zeros((3, 16)), 1), "mine gave tuple; expected an array of real numbers"),
    ):
        mine = evaluation.of_function("mine", lambda *_, v=value: v, {}, bind, predictor.params)
        with pytest.raises(ValueError, match=message):
            evaluation.attribute(mine, predict, task, 3, seed=0)


@pytest.mark.parametrize(
    "name", sorted(attributions.METHODS.keys() - attributions.CONVOLUTIONS_ONLY)
)
def test_every_method_runs(name, task, predictor, bind, predict):
    """Breaks if a method of the table cannot run through the engine, or compiles once a batch."""
    traced = []

    def counted(*args, **options):
        traced.append(1)
        return attributions.METHODS[name](*args, **options)

    asks = ("rise", "smooth_rise", "lime", "kernel_shap", "empirical")
    small = {"num_queries": 8} if name in asks else {}
    small = {
        "integrated_gradients": {"steps": 4}, "grad_shap": {"samples": 4},
        "smooth_grad": {"samples": 4}, "agi": {"steps": 2},
    }.get(name, small)  # fmt: skip
    method = evaluation.of_function(name, counted, small, bind, predictor.params)
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


def test_l2x_maps_are_chances_of_a_draw(predictor, task):
    """Breaks if L2X has several maps, of which but one is learned, or they are no probabilities."""
    init, bind = functional_policy(predictor.config, 10)
    params = random_params(init)
    found = explain.Explainer(predictor, predictor.config, params, method="l2x")(
        task.inputs, top_k=3
    )
    np.testing.assert_allclose(found.attributions.sum((-1, -2)), 1, rtol=1e-4)
    np.testing.assert_array_equal(found.attributions[:, 1:], found.attributions[:, :-1])
    images = predictor.preprocessing.normalize(np.float32(task.inputs))
    logits = bind(params).maps(images, np.zeros((len(images), 1), int))
    expected = softmax(np.asarray(logits)[:, 0], axis=-1).reshape(-1, 4, 4)
    np.testing.assert_allclose(found.attributions[:, 0], expected, atol=1e-5)


def test_fastshap_maps_add_up(predictor, task):
    """Breaks if Shapley maps of `explain` are not f(x) − f(∅) in total."""
    init, _ = functional_policy(predictor.config, 10)
    shap = explain.Explainer(predictor, predictor.config, random_params(init), method="fastshap")
    found = shap(task.inputs, top_k=2)
    blank = np.full((1, 32, 32, 3), 127.5, np.float32)  # zero after normalisation
    gain = found.probabilities - np.asarray(shap.answers(blank))
    total = np.take_along_axis(gain, found.targets, -1)
    np.testing.assert_allclose(found.attributions.sum((-1, -2)), total, atol=1e-5)
