"""Pictures that are not square: parity with torch, grids of rows × columns, maps, exports."""

import dataclasses
import json

import jax
import numpy as np
import pytest

import fex_jax
from fex_jax import data, export, pretrained
from fex_jax.models import functional
from fex_jax.models.policy import functional_policy, make_backbone
from fex_jax.preprocessing import Preprocessing
from tests.conftest import random_params

TOKENS = {"hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 3, "patch_size": 7}
STAGES = {"hidden_sizes": [8, 12], "depths": [1, 2]}
MODELS = {  # transformers takes DINOv2's positions for those of a square, and interpolates them
    "ViT": TOKENS | {"image_size": [28, 42], "intermediate_size": 20},
    "DeiT": TOKENS | {"image_size": [28, 42], "intermediate_size": 20},
    "Dinov2": TOKENS | {"image_size": 28, "mlp_ratio": 2},
    "Dinov2WithRegisters": TOKENS | {"image_size": 28, "mlp_ratio": 2},
    "Swin": {
        "embed_dim": 6, "depths": [2, 2], "num_heads": [2, 3], "window_size": 4,
        "image_size": [28, 42], "patch_size": 3, "use_absolute_embeddings": False,
    },
    "ResNet": STAGES | {"embedding_size": 4},
    "ConvNext": STAGES | {"num_stages": 2, "layer_scale_init_value": 0.5},
}  # fmt: skip
SIDES = 28, 42
PROCESSOR = {"image_processor_type": "ViTImageProcessor", "size": {"height": 28, "width": 42}}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """saved(name) → the directory of a torch model, and its logits of `images`."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    found = {}

    def model(name):
        if name in found:
            return found[name]
        torch.manual_seed(0)
        config = getattr(transformers, f"{name}Config")(num_labels=3, **MODELS[name])
        network = getattr(transformers, f"{name}ForImageClassification")(config).eval()
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.normal_(std=0.4)
            logits = network(torch.tensor(images()).permute(0, 3, 1, 2)).logits.numpy()
        directory = tmp_path_factory.mktemp(name)
        network.save_pretrained(directory)
        (directory / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
        found[name] = str(directory), logits
        return found[name]

    return model


def images():
    return np.random.default_rng(0).normal(size=(2, *SIDES, 3)).astype(np.float32)


@pytest.mark.parametrize("name", MODELS)
def test_logits_equal_torch(saved, name, tmp_path):
    """Breaks if height and width change places, or positions are of another grid."""
    directory, expected = saved(name)
    checkpoint = pretrained.load(directory)
    assert checkpoint.config.image_size == SIDES
    rows, columns = checkpoint.config.grid
    assert (rows, columns) == (
        (4, 6) if "patch_size" in MODELS[name] and name != "Swin" else (2, 3)
    )

    _, bind = functional(type(checkpoint.config).classifier, checkpoint.config)
    found = jax.jit(lambda params: bind(params)(images()))(checkpoint.params)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    pretrained.save(tmp_path, checkpoint)
    again = pretrained.load(str(tmp_path))
    assert again.config == checkpoint.config
    jax.tree.map(np.testing.assert_array_equal, again.params, checkpoint.params)


@pytest.mark.parametrize("name", ["ViT", "Swin"])
def test_maps(saved, name, tmp_path):
    """Breaks if an explainer's map, its picture or its export are of another shape."""
    predictor = pretrained.load(saved(name)[0])
    backbone = predictor.config
    if name == "Swin":
        backbone = dataclasses.replace(make_backbone("unet", backbone), hidden_size=16, depth=0)
    export.save_description(tmp_path, predictor, backbone, budget=-3.0)
    export.save_weights(tmp_path, random_params(functional_policy(backbone, 3)[0]))
    explainer = fex_jax.load(tmp_path)
    picture = np.random.default_rng(1).integers(0, 256, (60, 50, 3), np.uint8)
    found = explainer(picture, resolution="pixel")
    assert explainer(picture).attributions.shape == (1, *predictor.config.grid)
    assert found.attributions.shape == (1, *SIDES) and found.pictures.shape == (1, *SIDES, 3)
    assert "width:224px;height:149px" in found._repr_html_()
    if name == "ViT":
        scores = fex_jax.attribute("gradient_x_input", predictor, picture, 1).attributions
        assert scores.shape == (1, *predictor.config.grid) and np.ptp(scores) > 0


def test_a_shape_that_a_processor_does_not_give():
    """Breaks if ConvNeXt's processor, which cuts squares, is believed to give something else."""
    size = {"height": 48, "width": 32}
    with pytest.raises(ValueError, match="shortest edge, not size .48, 32.: name another"):
        Preprocessing.from_dict({"image_processor_type": "ConvNextImageProcessor", "size": size})


def test_scenes_are_square():
    """Breaks if a drawn picture is stretched, or ends in a traceback."""
    with pytest.raises(ValueError, match=r"digit_scenes are square, .* \(28, 42\) px"):
        data.open_source("digit_scenes", "train", None, SIDES)
