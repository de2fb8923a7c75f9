"""Preprocessing: sizes, arithmetic, and equality with transformers' PIL processors."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from fex_jax.preprocessing import Preprocessing

VIT = {"image_processor_type": "ViTImageProcessor", "size": {"height": 32, "width": 32}}
OLD_VIT = {"feature_extractor_type": "ViTFeatureExtractor", "size": 32}
OLD_DEIT = {"feature_extractor_type": "DeiTFeatureExtractor", "size": 37, "crop_size": 32}
DINOV2 = {
    "image_processor_type": "BitImageProcessor",
    "size": {"shortest_edge": 37},
    "crop_size": {"height": 28, "width": 28},
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
}
SMALL_EDGE = DINOV2 | {"size": {"shortest_edge": 23}}
CONFIGS = {
    "vit": VIT,
    "old_vit": OLD_VIT,
    "old_deit": OLD_DEIT,
    "dinov2": DINOV2,
    "padded": SMALL_EDGE,
}


def _image(width, height, mode="RGB"):
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("size", [(61, 44), (43, 70)], ids=["landscape", "portrait"])
def test_equals_transformers(name, size, tmp_path):
    """Pixels that differ from transformers' would shift every pretrained model's accuracy."""
    transformers = pytest.importorskip("transformers")
    values = {"image_processor_type": "ViTImageProcessor"} | CONFIGS[name]
    if "feature_extractor_type" in values:
        del values["image_processor_type"]
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(values))
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path, backend="pil")
    preprocessing, image = Preprocessing.from_dict(values), _image(*size)

    raw = processor(image, do_rescale=False, do_normalize=False, return_tensors="np")
    pixels = preprocessing.resize(image)
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, raw["pixel_values"][0].transpose(1, 2, 0))

    full = processor(image, return_tensors="np")["pixel_values"][0].transpose(1, 2, 0)
    np.testing.assert_allclose(preprocessing.normalize(pixels), full, atol=1e-5)


@pytest.mark.parametrize("name", CONFIGS)
def test_dict_round_trip(name):
    """A saved checkpoint must preprocess as the one it was loaded from."""
    preprocessing = Preprocessing.from_dict(CONFIGS[name])
    written = json.loads(json.dumps(preprocessing.to_dict()))
    assert Preprocessing.from_dict(written) == preprocessing


@pytest.mark.parametrize("mode", ["L", "RGBA", "P"])
def test_resize_converts_to_rgb(mode):
    """Grey, transparent and palette images occur in every data set."""
    assert Preprocessing.from_dict(VIT).resize(_image(50, 40, mode)).shape == (32, 32, 3)


def test_with_image_size_keeps_the_crop_proportion():
    """A changed model input must keep its field of view."""
    assert Preprocessing.from_dict(VIT).with_image_size(48).size == (48, 48)
    deit = Preprocessing.from_dict({"image_processor_type": "DeiTImageProcessor"})
    halved = deit.with_image_size(112)
    assert (halved.size, halved.crop_size, halved.image_size) == ((128, 128), (112, 112), 112)
    dinov2 = Preprocessing.from_dict(DINOV2).with_image_size(56)
    assert (dinov2.size, dinov2.crop_size) == (74, (56, 56))


def test_normalize_by_hand():
    """(x / 255 - mean) / std, for numpy and under jit; denormalize inverts it."""
    preprocessing = Preprocessing.from_dict(DINOV2)
    pixels = np.arange(48, dtype=np.uint8).reshape(4, 4, 3) * 5
    normalized = preprocessing.normalize(pixels)
    assert isinstance(normalized, np.ndarray) and normalized.dtype == np.float32
    np.testing.assert_allclose(normalized[0, 0], [-2.117904, -1.9481792, -1.6301525], atol=1e-5)
    traced = jax.jit(preprocessing.normalize)(jnp.asarray(pixels))
    np.testing.assert_allclose(traced, normalized, atol=1e-6)
    np.testing.assert_allclose(preprocessing.denormalize(normalized), pixels / 255, atol=1e-6)


@pytest.mark.parametrize(
    "values, message",
    [
        ({"image_processor_type": "CLIPImageProcessor"}, "'CLIPImageProcessor' is not supported"),
        (DINOV2 | {"do_center_crop": False}, "no fixed size"),
        (VIT | {"do_resize": False}, "no fixed size"),
        (VIT | {"size": {"longest_edge": 40}}, "height and width"),
    ],
)
def test_errors(values, message):
    """What cannot be reproduced exactly must be refused, not approximated."""
    with pytest.raises(ValueError, match=message):
        Preprocessing.from_dict(values)
