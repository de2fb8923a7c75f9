"""How eval.py chooses methods, and the way from texts to their gallery."""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest

import eval as evaluation
import train
from configs import common, digit_scenes
from fex_jax import attributions, predictors, pretrained
from fex_jax.export import save_description, save_weights
from fex_jax.models.policy import functional_policy
from tests import tiny_text
from tests.conftest import random_params

ROOT = pathlib.Path(__file__).parent.parent


class Loaded:
    """What choosing methods asks of an explainer."""

    def __init__(self, predictor):
        self.predictor, self.backbone = predictor, predictor.config
        self.method, self.budget, self.params = "fex", -3.0, predictor.params
        self.contrastive = True


def test_explainers_of_one_predictor_are_scored_together(predictor, tmp_path):
    """Breaks if maps about one classifier are scored on another."""
    init, _ = functional_policy(predictor.config, 10)
    shifted = jax.tree.map(lambda x: x + 1, predictor.params)
    for name, params in (("a", predictor.params), ("b", predictor.params), ("c", shifted)):
        own = dataclasses.replace(predictor, params=params)
        save_description(tmp_path / name, own, predictor.config, budget=-3.0)
        save_weights(tmp_path / name, random_params(init))
    a, b, c = (tmp_path / name for name in "abc")
    assert len(evaluation.load_explainers([a, b])) == 2
    with pytest.raises(ValueError, match="c explains another predictor than .*a"):
        evaluation.load_explainers([a, b, c])


def test_methods_are_chosen_by_name(predictor):
    """Breaks if "all" leaves a method out, options are lost, or a typo passes."""
    config, bind = digit_scenes.get_config(), predictors.from_checkpoint(predictor)
    chosen = evaluation.choose_methods(["all"], [Loaded(predictor)], bind, config)
    every = [name for name in attributions.METHODS if name != "greedy"]
    assert [method.name for method in chosen] == ["fex", *every]
    options = {method.name: method.settings for method in chosen}
    assert options["rise"] == {"num_queries": 100}
    chosen = evaluation.choose_methods(["all", "greedy"], [Loaded(predictor)], bind, config)
    assert [method.name for method in chosen] == ["fex", *every, "greedy"]
    with pytest.raises(ValueError, match="method 'rises' is unknown; choose all, or some of rand"):
        evaluation.choose_methods(["rises"], [Loaded(predictor)], bind, config)


def test_texts_are_explained_by_all_methods_but_those_of_pictures():
    """Breaks if "all" stops at a method that texts have no pixels for."""
    explainer = Loaded(tiny_text.checkpoint())
    bind = predictors.from_checkpoint(explainer.predictor)
    chosen = evaluation.choose_methods(["all"], [explainer], bind, common.get_config())
    left_out = attributions.IMAGES_ONLY | attributions.NOT_IN_ALL
    assert {m.name for m in chosen} == {"fex", *attributions.METHODS} - left_out


def test_texts_from_training_to_the_gallery(reviews, tmp_path):
    """Breaks if texts cannot be trained on, scored by all kinds of methods, drawn or shown."""
    pretrained.save(tmp_path / "predictor", tiny_text.checkpoint())
    config = common.get_config()
    changes = {
        "data.name": "eraser", "data.path": reviews, "data.train_split": "test", "batch_size": 4,
        "predictor.path": str(tmp_path / "predictor"), "policy": "bert", "text.too_long": "cut",
        "eval.batch_size": 4, "eval.match_classes": "position", "attributions.lime.num_queries": 4,
    }  # fmt: skip
    config.update_from_flattened_dict(changes)
    runs = tmp_path / "fex", tmp_path / "fastshap"
    train.train(config, runs[0])
    train.train(common.fastshap(config.copy_and_resolve_references()), runs[1])
    np.save(tmp_path / "mine.npy", np.random.default_rng(0).normal(size=(6, 32)))
    command = [
        sys.executable, str(ROOT / "eval.py"), f"--config={ROOT}/configs/common.py",
        f"--workdir={runs[0]}", f"--trained={runs[1]}", "--methods=lime,gradcam_norm1",
        "--refine=8", "--write_inputs", f"--scores=mine={tmp_path}/mine.npy",
        *(f"--config.{name}={value}" for name, value in changes.items()),
    ]  # fmt: skip
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    result = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr[-2000:]
    found = json.loads((runs[0] / "eval" / "results.json").read_text())
    trained = ["fex", "fastshap", "fex+8", "fastshap+8"]
    assert list(found["methods"]) == [*trained, "lime", "gradcam_norm1", "mine"]
    of_texts = ("token_f1_micro", "insertion_f1_macro", "comprehensiveness", "sufficiency")
    for metrics in found["methods"].values():
        assert all(np.isfinite(metrics[name]["mean"]) for name in of_texts)
    assert (runs[0] / "eval" / "top_words.png").is_file()
    page = (runs[0] / "eval" / "gallery.html").read_text()
    assert "Strongest words" in page and ">dull</span>" in page
    with np.load(runs[0] / "eval" / "inputs.npz") as inputs:
        assert inputs["texts"][0] and inputs["ids"].shape == (6, 32)
