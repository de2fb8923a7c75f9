"""Image classifiers' directories: strictness, what is refused, what is kept; without torch."""

import dataclasses
import json
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from fex_jax import checks, pretrained
from fex_jax.models import shapes
from fex_jax.models.vit import ViTClassifier, ViTConfig
from tests.families.vits import SIDE, preprocessing, write_preprocessor


def _checkpoint(family="vit", **overrides):
    config = ViTConfig(
        family=family,
        image_size=SIDE,
        patch_size=7,
        num_classes=3,
        hidden_size=12,
        num_layers=1,
        num_heads=3,
        mlp_dim=24,
        **overrides,
    )
    template = shapes(ViTClassifier, config)
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), "f4"), template)
    return pretrained.Checkpoint(config, params, ("ant", "bee", "cat"), preprocessing(family))


@pytest.fixture
def saved(tmp_path):
    """Directory with a tiny ViT of three classes."""
    pretrained.save(tmp_path, _checkpoint())
    return tmp_path


@pytest.mark.parametrize(
    "family, overrides",
    [
        ("vit", {}),
        ("vit", {"qkv_bias": False, "activation": "relu"}),
        ("deit", {}),
        ("dinov2", {"swiglu": True}),
    ],
)
def test_save_load_round_trip(family, overrides, tmp_path):
    """Nothing may be lost or rounded between save and load."""
    checkpoint = _checkpoint(family, **overrides)
    pretrained.save(tmp_path, checkpoint)
    again = pretrained.load(str(tmp_path))
    jax.tree.map(np.testing.assert_array_equal, checkpoint.params, again.params)
    without_params = {"params": None}
    assert dataclasses.replace(again, **without_params) == dataclasses.replace(
        checkpoint, **without_params
    )


def test_missing_extra_and_misshapen_tensors(saved):
    """A checkpoint that only nearly fits must not run with random weights."""
    tensors = load_file(saved / "model.safetensors")
    tensors["vit.surprise"] = np.zeros(1, np.float32)
    tensors["classifier.bias"] = np.zeros(4, np.float32)
    for name in ("query", "key", "value"):
        del tensors[f"vit.encoder.layer.0.attention.attention.{name}.bias"]
    save_file(tensors, saved / "model.safetensors")
    with pytest.raises(ValueError) as error:
        pretrained.load(str(saved))
    message = str(error.value)
    assert "3 missing: vit.encoder.layer.0.attention.attention" in message
    assert "1 extra: vit.surprise" in message
    assert "1 misshapen: classifier.bias is [4], expected [3]" in message
    assert "save_pretrained" in message


def test_num_classes_replaces_the_head_only_where_it_differs(saved):
    """Fine-tuning on other classes starts from the backbone; the same number keeps the head."""
    original = pretrained.load(str(saved))
    same = pretrained.load(str(saved), num_classes=3)
    jax.tree.map(np.testing.assert_array_equal, original.params, same.params)
    assert same.labels == ("ant", "bee", "cat")
    other = pretrained.load(str(saved), num_classes=7)
    assert other.params["head"]["kernel"].shape == (12, 7) and len(other.labels) == 7
    jax.tree.map(
        np.testing.assert_array_equal, original.params["backbone"], other.params["backbone"]
    )


def test_input_side_follows_the_preprocessor(saved):
    """DINOv2 files are trained at 518 but fed 224: images must fit the model as loaded."""
    write_preprocessor(saved, "vit", 35)
    checkpoint = pretrained.load(str(saved))
    assert checkpoint.config.image_size == checkpoint.preprocessing.image_size == 35
    assert checkpoint.params["backbone"]["position_embedding"].shape == (1, 1 + 25, 12)


def test_a_size_left_out_is_the_processors_own_or_refused(saved):
    """Breaks if images of 224 px, ViTImageProcessor's default, are fed to a model of 28 in silence.

    So transformers does: it resizes to 224, and ViT refuses what is not of its size.
    """
    path = saved / "preprocessor_config.json"
    path.write_text(json.dumps({"image_processor_type": "ViTImageProcessor"}))
    with pytest.raises(ValueError, match="no size: ViTImageProcessor's own is 224 px.*takes 28"):
        pretrained.load(str(saved))
    assert pretrained.load(str(saved), image_size=28).preprocessing.image_size == 28
    path.write_text(json.dumps({"image_processor_type": "DeiTImageProcessor", "size": 32}))
    with pytest.raises(ValueError, match="no crop_size: DeiTImageProcessor's own is 224 px"):
        pretrained.load(str(saved))


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"model_type": "beit"}, "supported: vit, deit, dinov2"),
        ({"architectures": ["ViTForMaskedImageModeling"]}, "ViTForImageClassification and"),
        ({"hidden_act": "prelu"}, "hidden_act is 'prelu'; expected one of 'gelu', "),
        ({"patch_size": [7, 14]}, "only square patches are supported, got patch_size .7, 14."),
        ({"id2label": {"0": "ant"}}, "1 labels for 3 classes"),
    ],
)
def test_unsupported_config(saved, changes, message):
    """A model that would compute something else is refused, with what is supported."""
    path = saved / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(ValueError, match=message):
        pretrained.load(str(saved))


@pytest.mark.parametrize(
    "name, message",
    [
        ("config.json", "no config.json"),
        ("preprocessor_config.json", "no preprocessor_config.json"),
        ("model.safetensors", "only pickled weights.*safe_serialization=True"),
    ],
)
def test_missing_file(saved, name, message):
    """Each missing file is named, with how to make it."""
    (saved / name).unlink()
    (saved / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ValueError, match=message):
        pretrained.load(str(saved))


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("model.pt", "fex_jax.host.torch_module"),
        ("model.PTH", "fex_jax.host.torch_module"),
        ("model.pkl", "give what was in it"),
        ("model.h5", "save it by Keras 3 as .keras"),
    ],
)
def test_a_file_of_ones_own_model_is_told_what_to_do(name, advice):
    """Breaks if such a name is looked for on the hub, or is refused with no way on."""
    with pytest.raises(FileNotFoundError, match=f"{name}' is no directory, but .*{advice}"):
        pretrained.load(name)


def test_neither_directory_nor_reachable(tmp_path):
    """A misspelt path and an unreachable hub say what to do."""
    with pytest.raises(FileNotFoundError, match="neither a directory nor"):
        pretrained.load(str(tmp_path / "missing"))
    with pytest.raises(ConnectionError, match="hf download some/model --local-dir"):
        pretrained.load("some/model")


def test_checkpoint_is_consistent():
    """A model fed images of another size, or with unnamed classes, fails early."""
    checkpoint = _checkpoint()
    with pytest.raises(ValueError, match="2 labels for 3 classes"):
        dataclasses.replace(checkpoint, labels=("ant", "bee"))
    with pytest.raises(ValueError, match="with_image_size"):
        dataclasses.replace(checkpoint, preprocessing=preprocessing("vit", 56))


def test_a_file_that_may_not_be_read_is_not_said_to_be_missing(tmp_path):
    """Breaks if the reason is safetensors' own: that there is no such file, whatever failed."""
    save_file({"x": np.zeros(1, np.float32)}, tmp_path / "x.safetensors")
    (tmp_path / "x.safetensors").chmod(0)
    user = os.geteuid()
    try:
        if not user:  # root may read all
            os.seteuid(65534)
        with pytest.raises(ValueError, match="x.safetensors cannot be read: Permission denied"):
            checks.tensor_shapes(tmp_path / "x.safetensors")
    finally:
        os.seteuid(user)
