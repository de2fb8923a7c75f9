"""Checkpoints: parity with torch, round trips, strictness and errors."""

import dataclasses
import json
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from fex_jax import checks, pretrained
from fex_jax.families import vit
from fex_jax.models import functional, shapes
from fex_jax.models.vit import ViTClassifier, ViTConfig
from fex_jax.preprocessing import Preprocessing

SIDE = 28
PROCESSORS = {"vit": "ViT", "deit": "DeiT", "dinov2": "Bit", "dinov2_with_registers": "Bit"}
VARIANTS = {
    "vit": ("vit", {}),
    "vit_without_qkv_bias": ("vit", {"qkv_bias": False, "hidden_act": "relu"}),
    "deit": ("deit", {}),
    "dinov2": ("dinov2", {}),
    "dinov2_swiglu": ("dinov2", {"use_swiglu_ffn": True}),
    "dinov2_with_registers": (
        "dinov2_with_registers",
        {"num_register_tokens": 3, "hidden_act": "silu"},
    ),
}


def _preprocessing(family, side=SIDE):
    return Preprocessing.from_dict(
        {"image_processor_type": f"{PROCESSORS[family]}ImageProcessor"}
    ).with_image_size(side)


def _write_preprocessor(directory, family, side=SIDE):
    values = _preprocessing(family, side).to_dict()
    (directory / "preprocessor_config.json").write_text(json.dumps(values))


def _torch_model(directory, family, bare=False, **overrides):
    """A tiny torch model with every parameter random, saved to the directory."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    name = {"vit": "ViT", "deit": "DeiT"}.get(family, family.title().replace("_", ""))
    mlp = {"mlp_ratio": 2} if "dinov2" in family else {"intermediate_size": 20}
    config = getattr(transformers, f"{name}Config")(
        hidden_size=12,
        num_hidden_layers=2,
        num_attention_heads=3,
        image_size=SIDE,
        patch_size=7,
        num_labels=5,
        **mlp | overrides,
    )
    head = "Model" if bare else "ForImageClassification"
    torch.manual_seed(0)
    model = getattr(transformers, name + head)(config).eval()
    # Zeros and ones, as initialised, would hide a rule that swaps biases, norms or layer scales.
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.4)
    model.save_pretrained(directory)
    _write_preprocessor(directory, family)
    return model


def _torch_logits(model, images, **kwargs):
    torch = pytest.importorskip("torch")
    with torch.no_grad():
        return model(torch.tensor(images).permute(0, 3, 1, 2), **kwargs).logits.numpy()


def _logits(checkpoint, images):
    _, bind = functional(lambda rngs: ViTClassifier(checkpoint.config, rngs=rngs))
    return np.asarray(jax.jit(lambda params: bind(params)(images))(checkpoint.params))


def _images(side, count=2):
    return np.random.default_rng(0).normal(size=(count, side, side, 3)).astype(np.float32)


@pytest.mark.parametrize(
    "variant, side",
    [(variant, SIDE) for variant in VARIANTS]
    + [("vit", 42), ("vit", 21), ("deit", 42), ("dinov2", 42)]
    + [("dinov2_with_registers", 42), ("dinov2_with_registers", 21)],
)
def test_logits_equal_torch(variant, side, tmp_path):
    """A wrong rule, layout, epsilon or interpolation would change the logits."""
    family, overrides = VARIANTS[variant]
    model = _torch_model(tmp_path, family, **overrides)
    checkpoint = pretrained.load(str(tmp_path), image_size=side)
    kwargs = {} if "dinov2" in family else {"interpolate_pos_encoding": side != SIDE}
    expected = _torch_logits(model, _images(side), **kwargs)
    assert np.std(expected) > 0.1
    np.testing.assert_allclose(_logits(checkpoint, _images(side)), expected, atol=1e-4)


@pytest.mark.parametrize("variant", VARIANTS)
def test_save_loads_in_torch(variant, tmp_path):
    """Users take explained models back to transformers, with labels and preprocessing."""
    transformers = pytest.importorskip("transformers")
    family, overrides = VARIANTS[variant]
    names = {i: f"class {i}" for i in range(5)}
    model = _torch_model(tmp_path / "torch", family, id2label=names, **overrides)
    pretrained.save(tmp_path / "jax", pretrained.load(str(tmp_path / "torch")))

    again, info = transformers.AutoModelForImageClassification.from_pretrained(
        tmp_path / "jax", output_loading_info=True
    )
    if family == "dinov2_with_registers":  # of pre-training, which this one always has
        assert info.pop("missing_keys") == {f"{family}.embeddings.mask_token"}
    assert not any(info.values()), info
    assert type(again) is type(model) and again.config.id2label == names
    again_logits = _torch_logits(again.eval(), _images(SIDE))
    np.testing.assert_allclose(again_logits, _torch_logits(model, _images(SIDE)), atol=1e-5)
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path / "jax", backend="pil")
    assert tuple(processor.image_mean) == _preprocessing(family).mean


@pytest.mark.parametrize("family", ["vit", "dinov2"])
def test_bare_backbone_gets_a_fresh_head(family, tmp_path):
    """Backbones load without pooler and mask token, only when asked, always with the same head."""
    model = _torch_model(tmp_path, family, bare=True)
    with pytest.raises(ValueError, match="pass num_classes"):
        pretrained.load(str(tmp_path))
    checkpoint = pretrained.load(str(tmp_path), num_classes=3)
    again = pretrained.load(str(tmp_path), num_classes=3)
    jax.tree.map(np.testing.assert_array_equal, checkpoint.params, again.params)
    assert checkpoint.labels == ("LABEL_0", "LABEL_1", "LABEL_2")

    torch = pytest.importorskip("torch")
    with torch.no_grad():
        tokens = model(torch.tensor(_images(SIDE)).permute(0, 3, 1, 2)).last_hidden_state.numpy()
    features = tokens[:, 0]
    if family == "dinov2":
        features = np.concatenate([features, tokens[:, 1:].mean(axis=1)], axis=-1)
    expected = features @ checkpoint.params["head"]["kernel"] + checkpoint.params["head"]["bias"]
    np.testing.assert_allclose(_logits(checkpoint, _images(SIDE)), expected, atol=1e-4)


def test_sharded_and_half_precision(tmp_path):
    """Large models come in shards and in 16 bits."""
    torch = pytest.importorskip("torch")
    model = _torch_model(tmp_path, "vit")
    for dtype in (torch.float16, torch.bfloat16):
        directory = tmp_path / str(dtype)
        half = model.to(dtype)
        half.save_pretrained(directory, max_shard_size="2KB")
        _write_preprocessor(directory, "vit")
        assert len(list(directory.glob("*.safetensors"))) > 1
        checkpoint = pretrained.load(str(directory))
        assert {leaf.dtype for leaf in jax.tree.leaves(checkpoint.params)} == {np.dtype("float32")}
        expected = _torch_logits(half.float(), _images(SIDE))
        np.testing.assert_allclose(_logits(checkpoint, _images(SIDE)), expected, atol=1e-4)


@pytest.mark.full_size
@pytest.mark.skipif(not os.environ.get("FEX_FULL_SIZE"), reason="set FEX_FULL_SIZE=1 to run")
def test_full_size_vit_equals_torch(tmp_path):
    """Errors that grow with depth and width only show at full size."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.ViTConfig(num_labels=1000)
    model = transformers.ViTForImageClassification(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.03 * torch.randn_like(parameter))
    model.save_pretrained(tmp_path)
    _write_preprocessor(tmp_path, "vit", 224)
    expected = _torch_logits(model, _images(224))
    difference = np.abs(_logits(pretrained.load(str(tmp_path)), _images(224)) - expected).max()
    print(f"largest difference {difference:.2e}, logits up to {np.abs(expected).max():.2f}")
    assert difference < 1e-4


# --- Without torch -----------------------------------------------------------------------------


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
    template = shapes(lambda rngs: ViTClassifier(config, rngs=rngs))
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), "f4"), template)
    return pretrained.Checkpoint(config, params, ("ant", "bee", "cat"), _preprocessing(family))


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
    _write_preprocessor(saved, "vit", 35)
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
        dataclasses.replace(checkpoint, preprocessing=_preprocessing("vit", 56))


def test_bicubic_by_hand():
    """The kernel is torch's, a = -0.75, and not jax.image's."""
    # Doubling: centres fall a quarter from a sample; weights by Keys' formula at
    # distances 1.25, 0.25, 0.75 and 1.75 with a = -0.75.
    doubled = vit._bicubic(8, 16)
    np.testing.assert_allclose(doubled[7, 2:6], [-0.10546875, 0.87890625, 0.26171875, -0.03515625])
    # Halving samples midway, without antialiasing.
    halved = vit._bicubic(8, 4)
    np.testing.assert_allclose(halved[1, 1:5], [-0.09375, 0.59375, 0.59375, -0.09375])
    for matrix in (doubled, halved, vit._bicubic(37, 8)):
        np.testing.assert_allclose(matrix.sum(axis=1), 1)
    np.testing.assert_allclose(vit._bicubic(5, 5), np.eye(5), atol=1e-12)


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
