"""ViT, DeiT and DINOv2: parity with torch, round trips there, interpolated positions."""

import os

import jax
import numpy as np
import pytest

from fex_jax import pretrained
from fex_jax.families import vit
from fex_jax.models import functional
from fex_jax.models.vit import ViTClassifier
from tests.families.vits import SIDE, preprocessing, write_preprocessor

VARIANTS = {
    "vit": ("vit", {}),
    "vit_without_qkv_bias": ("vit", {"qkv_bias": False, "hidden_act": "relu"}),
    "deit": ("deit", {}),
    "deit_with_teacher": ("deit", {"head": "ForImageClassificationWithTeacher"}),
    "dinov2": ("dinov2", {}),
    "dinov2_swiglu": ("dinov2", {"use_swiglu_ffn": True}),
    "dinov2_with_registers": (
        "dinov2_with_registers",
        {"num_register_tokens": 3, "hidden_act": "silu"},
    ),
}


def _torch_model(directory, family, head="ForImageClassification", **overrides):
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
    torch.manual_seed(0)
    model = getattr(transformers, name + head)(config).eval()
    # Zeros and ones, as initialised, would hide a rule that swaps biases, norms or layer scales.
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.4)
    model.save_pretrained(directory)
    write_preprocessor(directory, family)
    return model


def _torch_logits(model, images, **kwargs):
    torch = pytest.importorskip("torch")
    with torch.no_grad():
        return model(torch.tensor(images).permute(0, 3, 1, 2), **kwargs).logits.numpy()


def _logits(checkpoint, images):
    _, bind = functional(ViTClassifier, checkpoint.config)
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
    assert tuple(processor.image_mean) == preprocessing(family).mean


def test_two_heads_are_replaced_together(tmp_path):
    """Breaks if new classes leave a DeiT with teacher one old head, or one head alone."""
    _torch_model(tmp_path, "deit", **VARIANTS["deit_with_teacher"][1])
    head = pretrained.load(str(tmp_path), num_classes=3).params["head"]
    assert {name: part["kernel"].shape for name, part in head.items()} == {
        "cls": (12, 3),
        "distillation": (12, 3),
    }


@pytest.mark.parametrize("family", ["vit", "dinov2"])
def test_bare_backbone_gets_a_fresh_head(family, tmp_path):
    """Backbones load without pooler and mask token, only when asked, always with the same head."""
    model = _torch_model(tmp_path, family, "Model")
    with pytest.raises(ValueError, match="pass num_classes"):
        pretrained.load(str(tmp_path))
    checkpoint = pretrained.load(str(tmp_path), num_classes=3)
    again = pretrained.load(str(tmp_path), num_classes=3)
    jax.tree.map(np.testing.assert_array_equal, checkpoint.params, again.params)
    assert checkpoint.labels == ("LABEL_0", "LABEL_1", "LABEL_2")

    torch = pytest.importorskip("torch")
    with torch.no_grad():
        tokens = model(torch.tensor(_images(SIDE)).permute(0, 3, 1, 2)).last_hidden_state.numpy()
    read = tokens[:, 0]
    if family == "dinov2":
        read = np.concatenate([read, tokens[:, 1:].mean(axis=1)], axis=-1)
    expected = read @ checkpoint.params["head"]["kernel"] + checkpoint.params["head"]["bias"]
    np.testing.assert_allclose(_logits(checkpoint, _images(SIDE)), expected, atol=1e-4)


def test_sharded_and_half_precision(tmp_path):
    """Large models come in shards and in 16 bits."""
    torch = pytest.importorskip("torch")
    model = _torch_model(tmp_path, "vit")
    for dtype in (torch.float16, torch.bfloat16):
        directory = tmp_path / str(dtype)
        half = model.to(dtype)
        half.save_pretrained(directory, max_shard_size="2KB")
        write_preprocessor(directory, "vit")
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
    write_preprocessor(tmp_path, "vit", 224)
    expected = _torch_logits(model, _images(224))
    difference = np.abs(_logits(pretrained.load(str(tmp_path)), _images(224)) - expected).max()
    print(f"largest difference {difference:.2e}, logits up to {np.abs(expected).max():.2f}")
    assert difference < 1e-4


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
