"""Explainers that are saved and opened again: what survives, and what is refused."""

import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from fex_jax import explain
from fex_jax.export import save_description, save_weights
from fex_jax.models.policy import functional_policy, make_backbone
from tests.conftest import random_params

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), np.uint8)


def test_a_contrasted_map_survives_the_export(export, predictor, tmp_path):
    """Breaks if maps say why a class and not another without having been trained for it, or the
    other way round; or if exports from before there was a choice read differently."""
    plain = explain.load(export)
    assert not plain.contrastive
    contrasted = dataclasses.replace(plain, contrastive=True)
    save_description(tmp_path, predictor, plain.backbone, budget=-3.0, contrastive=True)
    save_weights(tmp_path, plain.params)
    found = explain.load(tmp_path)(PIXELS).logits
    np.testing.assert_allclose(found, contrasted(PIXELS).logits, atol=1e-6)
    assert np.abs(found - plain(PIXELS).logits).max() > 0.01
    description = json.loads((tmp_path / "explainer.json").read_text())
    del description["contrastive"]
    (tmp_path / "explainer.json").write_text(json.dumps(description))
    np.testing.assert_allclose(explain.load(tmp_path)(PIXELS).logits, plain(PIXELS).logits)


def test_a_wide_map_head_survives_the_export(predictor, tmp_path):
    """Breaks if an export forgets what its map head reads, and no longer fits its weights."""
    backbone = make_backbone("vit", predictor.config)
    params = random_params(functional_policy(backbone, 10, map_head="wide")[0])
    save_description(tmp_path, predictor, backbone, budget=-3.0, map_head="wide")
    save_weights(tmp_path, params)
    made = explain.Explainer(predictor, backbone, params, budget=-3.0, map_head="wide")
    np.testing.assert_array_equal(explain.load(tmp_path)(PIXELS).logits, made(PIXELS).logits)


def test_load_says_what_is_missing(tmp_path, export):
    """Breaks if a wrong folder, an export of another format or network ends in a traceback."""
    with pytest.raises(FileNotFoundError, match="holds no explainer"):
        explain.load(tmp_path)
    assert explain.load(export.parent).grid == (4, 4)  # the run's folder works as well
    (tmp_path / "explainer.json").write_text('{"format": 99}')
    with pytest.raises(ValueError, match="format 99"):
        explain.load(tmp_path)
    shutil.copytree(export, tmp_path, dirs_exist_ok=True)
    weights = load_file(tmp_path / "explainer.safetensors")
    kernel = weights["heads/map_in/kernel"]
    save_file(weights | {"heads/map_in/kernel": kernel[:-1]}, tmp_path / "explainer.safetensors")
    with pytest.raises(ValueError, match=r"map_in/kernel is \[15, 16\], expected \[16, 16\]"):
        explain.load(tmp_path)
    save_file(weights | {"more": kernel}, tmp_path / "explainer.safetensors")
    with pytest.raises(ValueError, match="1 extra: more"):
        explain.load(tmp_path)


def test_unet_export_round_trip(predictor, tmp_path):
    """Breaks if a U-Net's settings or weights do not survive the export."""
    backbone = dataclasses.replace(make_backbone("unet", predictor.config), hidden_size=16)
    init, bind = functional_policy(backbone, 10)
    params = random_params(init)
    save_description(tmp_path, predictor, backbone, budget=None)
    save_weights(tmp_path, params)
    result = explain.load(tmp_path)(PIXELS, targets=2)
    images, targets = predictor.preprocessing.normalize(PIXELS), jnp.full((5, 1), 2)
    expected = jax.jit(lambda params: bind(params).maps(images, targets))(params)
    np.testing.assert_allclose(result.logits, expected.reshape(5, 4, 4), rtol=1e-4, atol=1e-5)
