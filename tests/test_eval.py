"""eval.py as users run it: the way from texts to their gallery, and what it refuses."""

import json
import pathlib
from types import SimpleNamespace

import numpy as np
import pytest

import eval as script
import fex_jax
from configs import common
from fex_jax import explain, pretrained
from fex_jax.evaluation import fingerprint
from fex_jax.export import save_description, save_weights
from fex_jax.models.policy import functional_policy
from fex_jax.training.explainer import train
from tests import commands, tiny_text
from tests.conftest import random_params


def test_texts_from_training_to_the_gallery(reviews, tmp_path):
    """Breaks if texts cannot be trained on, scored by all kinds of methods, drawn or shown."""
    pretrained.save(tmp_path / "predictor", tiny_text.checkpoint())
    config, fastshap = common.get_config(), common.get_config("fastshap")
    changes = {
        "data.name": "eraser", "data.path": reviews, "data.train_split": "test", "batch_size": 4,
        "predictor.path": str(tmp_path / "predictor"), "policy": "bert", "text.too_long": "cut",
        "eval.batch_size": 4, "eval.match_classes": "position", "attributions.lime.num_queries": 4,
    }  # fmt: skip
    for each in (config, fastshap):
        each.update_from_flattened_dict(changes)
    runs = tmp_path / "fex", tmp_path / "fastshap"
    train(config, runs[0])
    train(fastshap, runs[1])
    np.save(tmp_path / "mine.npy", np.random.default_rng(0).normal(size=(6, 32)))
    end = commands.run(
        "eval.py", f"--config={commands.ROOT}/configs/common.py",
        f"--workdir={runs[0]}", f"--trained={runs[1]}", "--methods=lime,gradcam_norm1",
        "--write_inputs", f"--scores=mine={tmp_path}/mine.npy",
        *(f"--config.{name}={value}" for name, value in changes.items()),
    )  # fmt: skip
    assert end is None
    found = json.loads((runs[0] / "eval" / "results.json").read_text())
    assert list(found["methods"]) == ["fex", "fastshap", "lime", "gradcam_norm1", "mine"]
    digest = fingerprint.of(explain.load(runs[0]).predictor)
    assert found["facts"]["Predictor"] == f"{runs[0]}/export/predictor, {digest}"
    of_texts = ("token_f1_micro", "insertion_f1_macro", "comprehensiveness", "sufficiency")
    for metrics in found["methods"].values():
        assert all(np.isfinite(metrics[name]["mean"]) for name in of_texts)
    assert (runs[0] / "eval" / "top_words.png").is_file()
    page = (runs[0] / "eval" / "gallery.html").read_text()
    assert "Strongest words" in page and ">dull</span>" in page
    with np.load(runs[0] / "eval" / "inputs.npz") as inputs:
        assert inputs["texts"][0] and inputs["ids"].shape == (6, 32)


@pytest.fixture(scope="module")
def run(predictor, tmp_path_factory) -> pathlib.Path:
    """An untrained explainer where train.py would leave it."""
    directory = tmp_path_factory.mktemp("run")
    save_description(directory / "export", predictor, predictor.config, budget=-3.0)
    save_weights(directory / "export", random_params(functional_policy(predictor.config, 10)[0]))
    config = common.get_config()
    config.data.name = "digit_scenes"
    (directory / "config.json").write_text(json.dumps(config.to_dict()))
    return directory


def test_a_run_of_fit_is_scored_on_its_own_file(tmp_path):
    """Breaks if eval.py scores more than a run of `fit` held out, or needs labels or `--config`."""
    path, texts = tmp_path / "texts.csv", [f"a {x} film" for x in ("good", "bad", "dull")] * 4
    path.write_text("\n".join(["title,body", *(f"{i},{text}" for i, text in enumerate(texts))]))
    pretrained.save(tmp_path / "predictor", tiny_text.checkpoint())
    options = {"workdir": tmp_path / "run", "epochs": 1, "batch_size": 4, "column": "body"}
    fex_jax.fit(str(tmp_path / "predictor"), str(path), **options)
    assert commands.run("eval.py", f"--workdir={tmp_path / 'run'}") is None
    facts = json.loads((tmp_path / "run" / "eval" / "results.json").read_text())["facts"]
    assert facts["Data"] == "texts, 3 held-out texts"
    assert "Predictor's accuracy" not in facts


def test_a_run_of_data_in_memory_has_none_to_open(tmp_path):
    """Breaks if TFDS is searched for a data set without a name."""
    config = common.get_config()
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict()))
    said = commands.run("eval.py", f"--workdir={tmp_path}")
    assert said.startswith("error: there is no data to open: data.name is empty")
    assert "--config=configs/common.py --config.data.path=PATH" in said and "\n" not in said


@pytest.mark.parametrize(
    "given, message",
    [
        ({"methods": ["no.such:method"]}, "error: there is no method no.such:method"),
        ({"scores": ["rise=mine.npy"]}, "error: 'rise' is a method's name"),
        ({"scores": ["mine"]}, "error: --scores=mine is not NAME=FILE.npy"),
        ({"scores": ["a=b.npy", "a=c.npy"]}, "error: --scores names 'a' twice"),
        ({"scores": ["../a=b.npy"]}, "error: '../a' cannot name a row"),
        ({"trained": ["nowhere"]}, "error: nowhere holds no explainer"),
    ],
)
def test_wrong_flags_end_in_one_line(run, given, message, monkeypatch):
    """Breaks if a wrong flag ends in a traceback, or is ignored."""
    usual = {"config": None, "workdir": str(run), "methods": ["random"], "trained": []}
    usual |= {"scores": [], "refine": 0, "write_inputs": False, "predictor": None, "queries": None}
    monkeypatch.setattr(script.flags, "FLAGS", SimpleNamespace(**usual | given))
    with pytest.raises(SystemExit, match=message):
        script.main([])


def test_it_stays_a_thin_skin():
    """Breaks if work moves from the library into the script."""
    assert len((commands.ROOT / "eval.py").read_text().splitlines()) <= 120
