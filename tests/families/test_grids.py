"""ResNet, ConvNeXt and Swin as networks that explain: cells, sharing, training, exports."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

import fex_jax
from fex_jax import explain, families, pretrained
from fex_jax.models.policy import functional_policy, make_backbone
from fex_jax.models.vit import ViTConfig
from fex_jax.preprocessing import Preprocessing
from fex_jax.targets import PREDICTED
from tests.conftest import random_checkpoint, random_like, random_params

SIDE = 48  # pixels: 3 x 3 cells of 16, as many features of the last stage, 6 x 6 before it
STAGES = {"hidden_sizes": (4, 6, 10), "depths": (1, 1, 2)}
CONFIGS = {
    "resnet": families.of("resnet").ResNetConfig(SIDE, 3, 4, **STAGES),
    "convnext": families.of("convnext").ConvNextConfig(SIDE, 3, 4, **STAGES),
    "swin": families.of("swin").SwinConfig(
        SIDE, 3, embed_dim=4, depths=(1, 1, 2), heads=(1, 2, 2), window=3
    ),
}  # fmt: skip
PICTURES = np.random.default_rng(0).integers(0, 256, (16, SIDE, SIDE, 3), np.uint8)
TARGETS = np.array([[0], [2]])


def images(side=SIDE):
    """Normalised ones."""
    return np.random.default_rng(1).normal(size=(2, side, side, 3)).astype(np.float32)


def classifier(kind):
    """A checkpoint with random weights."""
    config = CONFIGS[kind]
    params = random_like(fex_jax.models.shapes(type(config).classifier, config))
    return pretrained.Checkpoint(config, params, ("a", "b", "c"), Preprocessing(size=(SIDE, SIDE)))


def over_cells(features, sides):
    """Features [B, h, w, C] on cells, by hand: triangles between centres, wider where cells are."""
    for axis, new in zip((1, 2), sides, strict=True):
        old = features.shape[axis]
        centres = (np.arange(new) + 0.5) * old / new - 0.5
        far = np.abs(centres[:, None] - np.arange(old)) / max(old / new, 1)
        weights = np.maximum(1 - far, 0)
        weights /= weights.sum(-1, keepdims=True)
        features = np.moveaxis(np.tensordot(weights, features, (1, axis)), 0, axis)
    return features.reshape(len(features), -1, features.shape[-1])


@pytest.mark.parametrize("side, grid", [(48, (3, 3)), (50, (5, 5))])  # cells of 10: odd ratios
@pytest.mark.parametrize("kind", CONFIGS)
def test_what_a_map_head_reads(kind, side, grid):
    """Breaks if cells are read of another stage or place, transposed, or not normalised."""
    config = dataclasses.replace(CONFIGS[kind], image_size=side)
    init, bind = functional_policy(config, 3, map_head="wide")
    params = random_params(init)
    *_, before, last = jax.jit(lambda p: bind(p).backbone.feature_maps(images(side)))(params)
    assert config.grid == grid and last.shape[1] < before.shape[1]
    reading = jax.jit(lambda p: bind(p).read(images(side)))(params)
    own, everywhere, earlier = reading.each
    np.testing.assert_allclose(own, over_cells(last, grid), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(everywhere[:, 0], last.mean((1, 2)), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(reading.pooled, everywhere[:, 0])
    expected = over_cells(before, grid)
    spread = np.sqrt(expected.var(-1, keepdims=True) + 1e-5)
    expected = (expected - expected.mean(-1, keepdims=True)) / spread
    np.testing.assert_allclose(earlier, expected, rtol=1e-3, atol=1e-4)
    assert sum(part.shape[-1] for part in reading.each) == config.wide_size


@pytest.mark.parametrize("kind", CONFIGS)
def test_one_map_and_the_class_means_equal_all_maps(kind):
    """Breaks if the short cuts through the last layer differ from computing every map, or if
    recomputed blocks have other gradients."""
    init, bind = functional_policy(CONFIGS[kind], 3)
    params = random_params(init)
    logits, means, *_ = jax.jit(lambda p: bind(p)(images(), TARGETS))(params)
    every = np.tile(np.arange(3), (2, 1))
    maps = jax.jit(lambda p: bind(p).maps(images(), every))(params)
    assert maps.shape == (2, 3, 9)
    np.testing.assert_allclose(logits, maps[np.arange(2)[:, None], TARGETS], rtol=1e-4)
    np.testing.assert_allclose(means, maps.mean(-1), rtol=1e-4, atol=1e-6)

    def gradients(remat):
        _, bind = functional_policy(CONFIGS[kind], 3, remat=remat)
        return jax.jit(jax.grad(lambda params: bind(params).maps(images(), TARGETS).std()))(params)

    plain, again = gradients(False), gradients(True)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), plain, again)
    assert max(float(jnp.abs(x).max()) for x in jax.tree.leaves(plain["backbone"])) > 1e-4


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_shared_backbone_reads_a_picture_once(kind):
    """Breaks if f's answer beside a map costs a second pass of the backbone that both share."""
    predictor = classifier(kind)
    init, _ = functional_policy(predictor.config, 3, map_head="wide")
    params = random_params(init) | {"backbone": predictor.params["backbone"]}
    explainer = explain.Explainer(predictor, predictor.config, params, map_head="wide")
    assert explainer.shares_backbone and explainer.name == "fex"
    classes = np.full((1, 1), PREDICTED, np.int32)

    def flops(program, *arguments):
        given = *explainer.weights, PICTURES[:1].astype(np.float32), *arguments
        return explainer.programs[program].lower(*given).compile().cost_analysis()["flops"]

    apart = flops(0) + flops(1, classes, None)
    assert flops(2, classes) < apart - 0.9 * flops(0)


@pytest.mark.parametrize("scale", [0.0, 1.0])
def test_a_resnet_explains_itself(scale, tmp_path):
    """Breaks if it does not begin with the classifier's weights, batch statistics learn, a frozen
    one moves, or what was trained is not what is opened."""
    predictor, run = classifier("resnet"), tmp_path / "run"
    settings = {"policy": "resnet", "optimizer.backbone_scale": scale, "data.augment": False}
    explainer = fex_jax.fit(predictor, PICTURES, workdir=run, epochs=2, settings=settings)
    assert explainer.backbone == predictor.config and explainer.name == "fex"
    assert explainer.shares_backbone == (scale == 0)
    both = (x.params["backbone"] for x in (explainer, predictor))
    ours, first = map(traverse_util.flatten_dict, both)
    moved = {path[-1] for path in first if not np.array_equal(ours[path], first[path])}
    assert moved == ({"kernel", "scale", "bias"} if scale else set())  # of no "mean" nor "var"

    result = fex_jax.load(run)(PICTURES[:2])
    assert result.attributions.shape == (2, 3, 3) and np.isfinite(result.attributions).all()
    np.testing.assert_array_equal(result.attributions, explainer(PICTURES[:2]).attributions)
    path = run / "export" / "explainer.json"
    said = json.loads(path.read_text())
    assert said["policy"] == "resnet"
    for changes, message in (
        ({"depths": [1, 1, 200]}, "it holds 4 blocks, expected 202"),
        ({"depths": [1, 3]}, r"hidden_sizes \[4, 6, 10\] are not as many as depths \[1, 3\]"),
        ({"depths": []}, "depths is"),
        ({"layer_type": "wide"}, "layer_type is 'wide'"),
        ({"embedding_size": 5}, "embedding_size of its policy is 5 and of its predictor 4"),
    ):
        path.write_text(json.dumps(said | {"backbone": said["backbone"] | changes}))
        with pytest.raises(ValueError, match=message):
            fex_jax.load(run)
    path.write_text(json.dumps(said | {"policy": "convnext"}))
    with pytest.raises(ValueError, match="backbone: "):
        fex_jax.load(run)


def test_one_explains_a_vit(tmp_path):
    """Breaks if another's network does not begin with its weights, has other cells than f, or is
    not opened."""
    predictor = classifier("convnext")
    pretrained.save(tmp_path / "convnext", predictor)
    explained, run = random_checkpoint(3, 32, 4), tmp_path / "run"
    explainer = fex_jax.fit(
        explained, PICTURES, backbone=str(tmp_path / "convnext"), workdir=run, epochs=1
    )
    assert explainer.backbone.family == "convnext" and explainer.backbone.image_size == 64
    assert isinstance(explainer.predictor.config, ViTConfig)
    assert explainer.grid == explained.config.grid == (4, 4)
    first = predictor.params["backbone"]
    jax.tree.map(np.testing.assert_array_equal, explainer.params["backbone"], first)
    found = fex_jax.load(run)(PICTURES[:2]).attributions
    np.testing.assert_array_equal(found, explainer(PICTURES[:2]).attributions)


@pytest.mark.parametrize("kind", CONFIGS)
def test_what_explains_is_chosen_by_name(kind):
    """Breaks if its own name is unknown, or another's passes."""
    assert make_backbone(kind, CONFIGS[kind]) is CONFIGS[kind]
    assert make_backbone("unet", CONFIGS[kind]).grid == CONFIGS[kind].grid
    with pytest.raises(ValueError, match=f"policy 'vit' is not for a {kind}; choose {kind} or un"):
        make_backbone("vit", CONFIGS[kind])
