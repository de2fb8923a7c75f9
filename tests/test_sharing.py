"""Explainers that are shared: the card, and what the hub has, from its local cache."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest
from huggingface_hub import constants

import fex_jax
from fex_jax import explain, sharing

PICTURE = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def explainer():
    return explain.load("models/digits_fex")


@pytest.fixture
def run(tmp_path):
    """What train.py and eval.py leave."""
    folder = tmp_path / "run"
    (folder / "eval").mkdir(parents=True)
    shutil.copytree("models/digits_fex", folder / "export")
    data = {"name": "digit_scenes", "path": "/home/me", "limit": 0, "train_split": "train"}
    config = {"data": data, "epochs": 2.0, "batch_size": 64, "seed": 0}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "run.json").write_text(json.dumps({"data": {"size": 4992, "digest": "0"}}))
    auc = {"mean": 0.125, "low": 0.12, "high": 0.13}
    results = {
        "facts": {"Data": "digit_scenes, 40 test images", "Predictor": "/home/me/f, sha256"},
        "methods": {"fex": {"positive_auc": auc}}, "efficiency": {}, "num_inputs": 40,
    }  # fmt: skip
    (folder / "eval" / "results.json").write_text(json.dumps(results))
    return folder


def test_the_card_says_what_the_run_says(explainer, run, tmp_path):
    """Breaks if a card forgets data, scores, classifier or licence, or tells a path of the machine
    that it was written on; or if the folder is no explainer."""
    saved = sharing.save(explainer, tmp_path / "shared", run=run, license="mit", name="me/digits")
    card = (saved / "README.md").read_text()
    head, text = card.removeprefix("---\n").split("\n---\n", 1)
    assert "license: mit" in head.split("\n")
    for said in (
        "# me/digits", 'fex_jax.load("me/digits", revision="main")', "8 × 8 cells",
        "vit, 10 classes: 0, 1, 2",
        "- Data: digit_scenes, 40 test images", "- Data: digit_scenes\n- Split: train\n",
        "- Inputs: 4,992\n- Epochs: 2.0\n- Batch size: 64\n- Seed: 0\n",
        "- Removal: cells become 0, after normalisation", "0.125",
    ):  # fmt: skip
        assert said in text
    assert "/home/me" not in card
    np.testing.assert_array_equal(explain.load(saved)(PICTURE).logits, explainer(PICTURE).logits)
    assert "None were measured" in sharing.card(explainer, "x")
    with pytest.raises(ValueError, match="has no config.json"):
        sharing.save(explainer, tmp_path / "other", run=tmp_path)
    (run / "run.json").unlink()  # of what trained before it was written
    assert "- Inputs: all" in sharing.card(explainer, "x", run=run)


def test_the_card_is_of_the_explainers_own_run(explainer, run):
    """Breaks if another explainer is published with this run's data and scores."""
    params = jax.tree.map(lambda x: x + np.float32(1e-3), explainer.params)
    for other in (
        dataclasses.replace(explainer, params=params),
        dataclasses.replace(explainer, fill=0.5),
    ):
        with pytest.raises(ValueError, match="has trained another explainer"):
            sharing.card(other, "x", run=run)


def test_what_the_card_says_to_run_runs(explainer, tmp_path, monkeypatch):
    """Breaks if the example of a card asks for a revision of a folder, or none of the hub's."""
    monkeypatch.chdir(tmp_path)
    card = (sharing.save(explainer, "shared") / "README.md").read_text()
    code = card.split("```python\n")[1].split("```")[0]
    given = {"picture": PICTURE}
    exec(code, given)
    np.testing.assert_array_equal(given["result"].logits, explainer(PICTURE).logits)


def test_a_pinned_revision_is_what_is_loaded(explainer, tmp_path, monkeypatch):
    """Breaks if a name of the hub is taken for a folder, a revision is not the one that is asked
    for, or an explainer that was pushed does not come back."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    repository = tmp_path / "models--me--digits"
    sharing.save(explainer, repository / "snapshots" / COMMIT)
    (repository / "refs").mkdir()
    (repository / "refs" / "v1").write_text(COMMIT)
    expected = explainer(PICTURE).logits
    for revision in (COMMIT, "v1"):
        found = fex_jax.load("me/digits", revision=revision)
        np.testing.assert_array_equal(found(PICTURE).logits, expected)
    with pytest.raises(ConnectionError, match="'me/digits' is no local directory"):
        fex_jax.load("me/digits", revision="v2")
    with pytest.raises(ValueError, match="here is a folder of that name"):
        fex_jax.load("models/digits_fex", revision="v1")
    with pytest.raises(FileNotFoundError, match="holds no explainer"):  # nobody said the hub
        fex_jax.load("me/digits")


def test_pushing_says_what_the_hub_says(explainer, monkeypatch):
    """Breaks if a hub that cannot be reached ends in a traceback of its library."""
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ConnectionError, match="me/digits was not uploaded"):
        dataclasses.replace(explainer).push_to_hub("me/digits", token="none")
