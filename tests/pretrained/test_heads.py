"""Heads that are no softmax: sigmoids and regressions, read, explained, trained for and scored."""

import dataclasses
import itertools
import json

import jax
import numpy as np
import pytest

import fex_jax
from fex_jax import predictors, pretrained
from tests import tiny_text
from tests.conftest import random_checkpoint

PICTURES = np.random.default_rng(0).integers(0, 256, (16, 16, 16, 3), np.uint8)
TEXTS = ["a funny film", "dull plot .", "not bad", "the movie was great , not good !"] * 4
# Of each kind of head: outputs, and the problem_type that config.json has.
HEADS = {
    "labels": (3, "multi_label_classification"),
    "one label": (1, None),
    "classes": (2, None),
    "regression": (1, "regression"),
}


def save(directory, kind, modality):
    """A directory of a random classifier with such a head."""
    classes, problem = HEADS[kind]
    images = modality == "images"
    made = random_checkpoint(classes, 16, 2) if images else tiny_text.checkpoint("bert", classes)
    pretrained.save(directory, made)
    path = directory / "config.json"
    values = json.loads(path.read_text()) | {"problem_type": problem}
    path.write_text(json.dumps({k: v for k, v in values.items() if v is not None}))
    return str(directory)


@pytest.mark.parametrize("modality", ["images", "texts"])
def test_one_output_is_no_softmax(modality):
    """Breaks if a head of one output is bound as a softmax, which is 1 whatever f says."""
    made = random_checkpoint(1, 16, 2) if modality == "images" else tiny_text.checkpoint("bert", 1)
    with pytest.raises(ValueError, match="a softmax of one class is always 1: give output="):
        if modality == "images":
            predictors.image(made.config, made.params)
        else:
            predictors.bert(made.config, made.params, 8, 4)


@pytest.mark.parametrize("kind", HEADS)
@pytest.mark.parametrize("modality", ["images", "texts"])
def test_answers_are_those_of_a_pipeline(kind, modality, tmp_path):
    """Breaks if f is not what transformers makes of the same head, before or after saving."""
    pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    from PIL import Image

    directory = save(tmp_path / "given", kind, modality)
    things = list(PICTURES[:4]) if modality == "images" else TEXTS[:4]
    task = "image-classification" if modality == "images" else "text-classification"
    pipe = transformers.pipeline(task, model=directory)
    asked = [Image.fromarray(x) for x in things] if modality == "images" else things
    answers = [{of["label"]: of["score"] for of in one} for one in pipe(asked, top_k=None)]
    loaded = pretrained.load(directory)
    expected = np.array([[one[label] for label in loaded.labels] for one in answers])
    assert np.ptp(expected) > 1e-4
    pretrained.save(tmp_path / "again", loaded)
    for where in (directory, str(tmp_path / "again")):
        found = fex_jax.attribute("random", where, things)
        if modality == "images":
            given = found.probabilities
        else:
            given = np.stack([one.probabilities for one in found])
        np.testing.assert_allclose(given, expected, atol=1e-5)


def test_a_game_of_sigmoids(tmp_path):
    """Breaks if a label is explained through a softmax: Shapley values from all orders, by torch.

    Gradients of f, too, which add up to f(x) − f(∅).
    """
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    directory, label = save(tmp_path, "labels", "images"), 2
    model = transformers.AutoModelForImageClassification.from_pretrained(directory).eval()
    x = (PICTURES[0] / 127.5 - 1).astype(np.float32)
    subsets = np.array(list(itertools.product([0, 1], repeat=4)), np.float32)
    shown = x * np.kron(subsets.reshape(-1, 2, 2), np.ones((8, 8)))[..., None]
    with torch.no_grad():
        logits = model(torch.tensor(shown, dtype=torch.float32).permute(0, 3, 1, 2)).logits.numpy()
    answers = 1 / (1 + np.exp(-logits[:, label]))
    worth = {tuple(subset): answer for subset, answer in zip(subsets, answers, strict=True)}
    expected = np.zeros(4)
    for order in itertools.permutations(range(4)):
        have = np.zeros(4)
        for player in order:
            before = worth[tuple(have)]
            have[player] = 1
            expected[player] += (worth[tuple(have)] - before) / 24
    found = fex_jax.attribute("kernel_shap", directory, PICTURES[0], label, num_queries=16)
    np.testing.assert_allclose(found.attributions.ravel(), expected, atol=1e-5)
    path = fex_jax.attribute("integrated_gradients", directory, PICTURES[0], label, steps=32)
    assert path.attributions.sum() == pytest.approx(expected.sum(), abs=1e-3)


@pytest.mark.parametrize("kind, modality", [("one label", "images"), ("labels", "texts")])
def test_trained_for_and_scored(kind, modality, tmp_path, capsys):
    """Breaks if sigmoids cannot be fitted, exported and compared like a softmax."""
    directory = save(tmp_path / "f", kind, modality)
    things = PICTURES if modality == "images" else TEXTS
    run = tmp_path / "run"
    fex_jax.fit(directory, things, workdir=run, epochs=1, settings={"objective.num_passes": 1})
    assert "On 4 held-out items" in capsys.readouterr().out
    explainer = fex_jax.load(run)
    assert explainer.predictor.output == "sigmoid" and not explainer.contrastive
    table = fex_jax.evaluate(["fex", "occlusion"], explainer, things[:4], batch_size=4)
    for row in table.to_dict()["methods"].values():
        assert 0 <= row["positive_auc"]["mean"] <= 1
    clean = [found[0][1]["positive_correct"][:, 0] for found in table.results.values()]
    np.testing.assert_array_equal(clean, 1)  # each label is on its own side, also below a half


def test_regressions(tmp_path, capsys):
    """Breaks if values are taken for probabilities, in training, comparing or showing."""
    directory = save(tmp_path / "f", "regression", "texts")
    settings = {"objective.num_passes": 1}
    explainer = fex_jax.fit(directory, TEXTS, workdir=tmp_path / "run", epochs=1, settings=settings)
    assert "(deletion: lower is better; insertion: higher)" in capsys.readouterr().out
    assert not explainer.contrastive
    table = fex_jax.evaluate(["fex", "occlusion"], explainer, TEXTS[:4], batch_size=4)
    for row in table.to_dict()["methods"].values():
        assert "insertion" in row and "positive_auc" not in row
    predictor = pretrained.load(directory)
    far = jax.tree.map(lambda x: 50 * x, predictor.params["head"]["out"])
    head = predictor.params["head"] | {"out": far}
    predictor = dataclasses.replace(predictor, params=predictor.params | {"head": head})
    (one, *_) = fex_jax.attribute("kernel_shap", predictor, TEXTS[:2])
    assert str(one).startswith(f"class 0 ({one.probabilities[0]:.3g})")
