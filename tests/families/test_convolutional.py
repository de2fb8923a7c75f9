"""ResNet and ConvNeXt: parity with torch, round trips, maps, training, and what is refused."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import fex_jax
from fex_jax import attributions, families, predictors, pretrained
from fex_jax.attributions.gradcam import gradcam
from fex_jax.models import functional
from fex_jax.models.policy import make_backbone
from fex_jax.preprocessing import Preprocessing

SIZES = {"hidden_sizes": [8, 12], "depths": [1, 2]}
SWIN = {"embed_dim": 6, "depths": [2, 2], "num_heads": [2, 3], "window_size": 4, "image_size": 45}
VARIANTS = {
    "resnet": ("ResNet", {"embedding_size": 4, **SIZES}),
    "resnet basic": (
        "ResNet", {"embedding_size": 4, "layer_type": "basic", "hidden_act": "silu", **SIZES}
    ),
    "resnet early": (
        "ResNet",
        {
            "embedding_size": 8, "downsample_in_first_stage": True,
            "downsample_in_bottleneck": True, **SIZES,
        },
    ),
    "convnext": ("ConvNext", {"layer_scale_init_value": 0.5, **SIZES}),
    "convnext without gains": (
        "ConvNext",
        {
            "layer_scale_init_value": 0.0, "patch_size": 3, "hidden_act": "gelu_new", **SIZES
        },
    ),
    "swin": ("Swin", SWIN),
    "swin of odd windows": (
        "Swin",
        SWIN | {
            "window_size": 5, "patch_size": 3, "qkv_bias": False, "mlp_ratio": 2.6,
            "hidden_act": "gelu_new", "layer_norm_eps": 1e-3, "depths": [3, 2],
        },
    ),
    "swin with positions": (
        "Swin", SWIN | {"use_absolute_embeddings": True, "patch_size": 5, "image_size": 45}
    ),
}  # fmt: skip
SIDE = 45  # odd, and no multiple of a stride


def torch_model(directory, variant, side=SIDE):
    """A tiny torch model with every parameter and statistic random, saved to the directory."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    name, overrides = VARIANTS[variant]
    overrides = {"num_stages": 2} | overrides if name == "ConvNext" else overrides
    names = {i: f"class {i}" for i in range(3)}
    config = getattr(transformers, f"{name}Config")(id2label=names, **overrides)
    torch.manual_seed(0)
    model = getattr(transformers, f"{name}ForImageClassification")(config).eval()
    with torch.no_grad():
        for key, tensor in model.state_dict().items():
            if key.endswith("running_var"):
                tensor.uniform_(0.5, 2)
            elif tensor.is_floating_point():
                tensor.normal_(std=0.4)
    model.save_pretrained(directory)
    size = {"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": side}}
    (directory / "preprocessor_config.json").write_text(json.dumps(size))
    return model


def torch_logits(model, images):
    torch = pytest.importorskip("torch")
    with torch.no_grad():
        return model(torch.tensor(images).permute(0, 3, 1, 2)).logits.numpy()


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A ResNet and a ConvNeXt for pictures of 48 pixels, as directories."""
    found = {}
    for variant in ("resnet", "convnext"):
        found[variant] = tmp_path_factory.mktemp(variant)
        torch_model(found[variant], variant, 48)
    return found


@pytest.mark.parametrize("variant", VARIANTS)
def test_logits_equal_torch(variant, tmp_path):
    """Breaks by a wrong rule, layout, stride, margin, statistic or epsilon; and back in torch."""
    transformers = pytest.importorskip("transformers")
    model = torch_model(tmp_path / "torch", variant)
    checkpoint = pretrained.load(str(tmp_path / "torch"))
    images = np.random.default_rng(0).normal(size=(2, SIDE, SIDE, 3)).astype(np.float32)
    expected = torch_logits(model, images)
    assert np.ptp(expected, 0).max() > 0.005  # a mean over positions makes noise look alike
    _, bind = functional(type(checkpoint.config).classifier, checkpoint.config)
    found = jax.jit(lambda params: bind(params)(images))(checkpoint.params)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)

    pretrained.save(tmp_path / "jax", checkpoint)
    again, info = transformers.AutoModelForImageClassification.from_pretrained(
        tmp_path / "jax", output_loading_info=True
    )
    assert not any(info.values()), info
    assert type(again) is type(model) and again.config.id2label == model.config.id2label
    np.testing.assert_allclose(torch_logits(again.eval(), images), expected, atol=1e-5)


@pytest.mark.parametrize("family", ["resnet", "convnext"])
def test_other_classes_begin_from_the_backbone(saved, family):
    """Breaks if a convolutional network cannot get a new head."""
    head = pretrained.load(str(saved[family]), num_classes=5).params["head"]
    assert head["kernel"].shape == (12, 5)


@pytest.mark.parametrize("side", [224, 384])
def test_their_processor(side):
    """Breaks if pictures are cut elsewhere than transformers cuts them: from 384 on, nowhere."""
    transformers = pytest.importorskip("transformers")
    values = {"image_processor_type": "ConvNextFeatureExtractor", "size": side, "crop_pct": 0.875}
    ours = Preprocessing.from_dict(values)
    theirs = transformers.ConvNextImageProcessorPil(size={"shortest_edge": side}, crop_pct=0.875)
    picture = np.random.default_rng(0).integers(0, 256, (61, 47, 3), np.uint8)
    expected = theirs(Image.fromarray(picture), return_tensors="np")["pixel_values"][0]
    found = ours.normalize(ours.resize(Image.fromarray(picture)))
    np.testing.assert_allclose(found, expected.transpose(1, 2, 0), atol=1e-5)
    assert Preprocessing.from_dict(ours.to_dict()) == ours


def test_gradcam_of_features(saved):
    """Breaks if the map is not that of the last feature map, laid over the grid of cells."""
    predictor = pretrained.load(str(saved["resnet"]))
    assert predictor.config.grid == (3, 3)
    picture = np.random.default_rng(1).integers(0, 256, (48, 48, 3), np.uint8)
    found = fex_jax.attribute("gradcam_features", predictor, picture, 1).attributions
    model, inputs = predictors.from_checkpoint(predictor)(predictor.params, picture[None])
    kernel, bias = (predictor.params["head"][name] for name in ("kernel", "bias"))
    cells = model.network.backbone.feature_maps(inputs)[-1]
    expected = gradcam(cells, lambda x: x.mean((1, 2)) @ kernel + bias, jnp.array([1]))
    np.testing.assert_allclose(found, jax.image.resize(expected, (1, 3, 3), "linear"), atol=1e-5)


@pytest.mark.parametrize("method", sorted(attributions.TRANSFORMERS_ONLY))
def test_what_needs_attention_is_refused(saved, predictor, method):
    """Breaks if a method of transformers meets a convolution, or the other way round, unnamed."""
    pictures = np.zeros((1, 48, 48, 3), np.uint8)
    with pytest.raises(ValueError, match=f"{method} .*transformer like .*, and .* is a convnext"):
        fex_jax.attribute(method, str(saved["convnext"]), pictures)
    with pytest.raises(ValueError, match="gradcam_features .*convolution"):
        fex_jax.attribute("gradcam_features", predictor, np.zeros((1, 32, 32, 3), np.uint8))


def test_trained_for_and_compared(saved, tmp_path, capsys, monkeypatch):
    """Breaks if a convolutional network has no explainer by default, or none that is opened.

    Here with a narrow U-Net.
    """

    def narrow(*which):
        return dataclasses.replace(make_backbone(*which), hidden_size=16)

    monkeypatch.setattr("fex_jax.training.opening.make_backbone", narrow)
    pictures = np.random.default_rng(2).integers(0, 256, (16, 48, 48, 3), np.uint8)
    run = tmp_path / "run"
    fex_jax.fit(str(saved["convnext"]), pictures, workdir=run, epochs=1)
    assert "On 4 held-out items" in capsys.readouterr().out
    explainer = fex_jax.load(run)
    assert explainer.predictor.config.family == "convnext" and explainer.name == "fex-unet"
    assert explainer(pictures[:2]).attributions.shape == (2, 3, 3)
    with pytest.raises(ValueError, match="'vit' is not for a convnext; choose convnext or unet"):
        fex_jax.fit(str(saved["convnext"]), pictures, settings={"policy": "vit"})


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"depths": [1, 3]}, r"says depths \[1, 3\].*stages of \[1, 2\] layers"),
        ({"hidden_sizes": [8, 12, 16]}, r"hidden_sizes \[8, 12, 16\]"),
        ({"hidden_sizes": [8, 16]}, "do not fit its config.json"),
        ({"hidden_sizes": 8}, "hidden_sizes is 8; expected"),
        ({"depths": [1, 10**6]}, "depths is"),
        ({"hidden_act": "prelu"}, "hidden_act is 'prelu'; expected one of "),
        ({"layer_type": "wide"}, "layer_type is 'wide'; expected one of"),
    ],
)
def test_a_config_of_another_network(saved, tmp_path, changes, message):
    """Breaks if config.json is believed before the tensors are seen."""
    checkpoint = pretrained.load(str(saved["resnet"]))
    pretrained.save(tmp_path, checkpoint)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(ValueError, match=message):
        pretrained.load(str(tmp_path))


def test_cells_divide_the_picture():
    """Breaks if a cell is cut by the picture's edge, or is larger than 16 pixels."""
    sides = {224: 16, 300: 15, 45: 15, 48: 16, 7: 7, 1: 1, 331: 1}
    config = dataclasses.replace  # of the size in pixels, as `load` does
    resnet = families.of("resnet").ResNetConfig(224, 2, 4, (8,), (1,))
    assert {side: config(resnet, image_size=side).patch_size for side in sides} == sides
    assert resnet.grid == (14, 14) and config(resnet, image_size=288).grid == (18, 18)
