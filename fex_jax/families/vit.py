"""ViT, DeiT, DINOv2 without and with registers, as transformers has them: see `models.vit`."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

from fex_jax import checks, families
from fex_jax.families import hub
from fex_jax.families import rules as names
from fex_jax.models import Params, vit_head
from fex_jax.models.activations import NAMED
from fex_jax.models.vit import ViTConfig
from fex_jax.preprocessing import MAX_SIDE

_DISTILLED = "DeiTForImageClassificationWithTeacher"
ARCHITECTURES = {
    "vit": ("ViTForImageClassification", "ViTModel"),
    "deit": ("DeiTForImageClassification", _DISTILLED, "DeiTModel"),
    "dinov2": ("Dinov2ForImageClassification", "Dinov2Model"),
    "dinov2_with_registers": (
        "Dinov2WithRegistersForImageClassification",
        "Dinov2WithRegistersModel",
    ),
}
PROCESSORS = {"vit": "ViT", "deit": "DeiT", "dinov2": "Bit", "dinov2_with_registers": "Bit"}
HEAD = "classifier|cls_classifier"
# Transformers leaves keys with default values out of some config.json files.
_CONFIG_DEFAULTS: dict[str, Any] = {
    "image_size": 224,
    "num_channels": 3,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "hidden_act": "gelu",
    "qkv_bias": True,
}
_FAMILY_DEFAULTS: dict[str, dict[str, Any]] = {
    "vit": {"patch_size": 16, "intermediate_size": 3072, "layer_norm_eps": 1e-12},
    "deit": {"patch_size": 16, "intermediate_size": 3072, "layer_norm_eps": 1e-12},
    "dinov2": {"patch_size": 14, "mlp_ratio": 4, "layer_norm_eps": 1e-6, "use_swiglu_ffn": False},
}
_FAMILY_DEFAULTS["dinov2_with_registers"] = _FAMILY_DEFAULTS["dinov2"] | {
    "patch_size": 16,
    "num_register_tokens": 4,
}
_SIDE = checks.integer(1, MAX_SIDE)
_SIDES = checks.either(_SIDE, checks.several(_SIDE, 2))
_CONFIG_CHECKS = {
    "image_size": _SIDES,
    "patch_size": _SIDES,
    "num_channels": checks.one_of(3),
    "hidden_size": checks.integer(1, 2**15),
    "num_hidden_layers": checks.integer(1, 1000),
    "num_attention_heads": checks.integer(1, 1024),
    "intermediate_size": checks.integer(1, 2**18),
    "mlp_ratio": checks.number(1, 64),
    "hidden_act": NAMED,
    "qkv_bias": checks.flag(),
    "use_swiglu_ffn": checks.flag(),
    "num_register_tokens": checks.integer(0, 1024),
}


def read_config(hf_config: dict[str, Any], num_classes: int, source: Path) -> ViTConfig:
    """config.json, of the size in pixels that is stored."""
    family = hf_config["model_type"]
    values = _CONFIG_DEFAULTS | _FAMILY_DEFAULTS[family] | hf_config
    checks.require(values, _CONFIG_CHECKS, source / "config.json")
    mlp_dim = (
        int(values["hidden_size"] * values["mlp_ratio"])
        if "mlp_ratio" in values
        else values["intermediate_size"]
    )
    return ViTConfig(
        family=family,
        image_size=families.size_of(values),
        patch_size=families.side_of(values, "patch_size"),
        num_classes=num_classes,
        hidden_size=values["hidden_size"],
        num_layers=values["num_hidden_layers"],
        num_heads=values["num_attention_heads"],
        mlp_dim=mlp_dim,
        num_channels=values["num_channels"],
        layer_norm_eps=values["layer_norm_eps"],
        qkv_bias=values["qkv_bias"],
        swiglu=values.get("use_swiglu_ffn", False),
        num_registers=values.get("num_register_tokens", 0),
        activation=values["hidden_act"],
        distilled=_DISTILLED in values.get("architectures", ()),
    )


def write_config(config: ViTConfig) -> dict[str, Any]:
    """What config.json says of the architecture."""
    mlp = {"intermediate_size": config.mlp_dim}
    if config.is_dinov2:
        mlp = {
            "mlp_ratio": config.mlp_dim // config.hidden_size,
            "use_swiglu_ffn": config.swiglu,
            "use_mask_token": False,
        }
    if config.num_registers:
        mlp |= {"num_register_tokens": config.num_registers}
    return {
        **({"architectures": [_DISTILLED]} if config.distilled else {}),
        "image_size": config.image_size,
        "patch_size": config.patch_size,
        "num_channels": config.num_channels,
        "hidden_size": config.hidden_size,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "hidden_act": config.activation,
        "layer_norm_eps": config.layer_norm_eps,
        "qkv_bias": config.qkv_bias,
        **mlp,
    }


def head(config: ViTConfig, rngs: nnx.Rngs) -> nnx.Module:
    """The network's last layer, of first values."""
    return vit_head.head(config, rngs)


def check(tensors: dict[str, np.ndarray], config: ViTConfig, source: Path) -> None:
    """Raises a ValueError where the tensors are of other sizes."""
    norm = f"{config.family}.layernorm.weight"
    hub.check_sizes(tensors, config.num_layers, config.hidden_size, norm, source)


# --- Parameter names and layouts ---------------------------------------------------------------


def _to_convolution(x: np.ndarray, config: ViTConfig) -> np.ndarray:
    side = config.patch_size
    return x.reshape(side, side, config.num_channels, -1).transpose(3, 2, 0, 1)  # [D, C, p, p]


def _from_convolution(x: np.ndarray) -> np.ndarray:
    return x.transpose(2, 3, 1, 0).reshape(-1, len(x))  # [p p C, D]


_BLOCK = r"backbone/blocks/(\d+)/"
_LAYER = r"{family}.encoder.layer.\1."
_COMMON_RULES = [
    *names.linear("head", "classifier"),
    *names.linear("head/(cls|distillation)", r"\1_classifier"),
    names.Rule("backbone/(cls|distillation|register)_token(s?)", r"{family}.embeddings.\1_token\2"),
    names.Rule("backbone/position_embedding", "{family}.embeddings.position_embeddings"),
    names.Rule(
        "backbone/patch_embedding/projection/kernel",
        "{family}.embeddings.patch_embeddings.projection.weight",
        _to_convolution,
        _from_convolution,
    ),
    names.Rule(
        "backbone/patch_embedding/projection/bias",
        "{family}.embeddings.patch_embeddings.projection.bias",
    ),
    *names.linear(_BLOCK + "attention/(query|key|value)", _LAYER + r"attention.attention.\2"),
    *names.linear(_BLOCK + "attention/out", _LAYER + "attention.output.dense"),
    *names.norm("backbone/norm", "{family}.layernorm"),
]
_VIT_RULES = [
    *_COMMON_RULES,
    *names.norm(_BLOCK + "norm1", _LAYER + "layernorm_before"),
    *names.norm(_BLOCK + "norm2", _LAYER + "layernorm_after"),
    *names.linear(_BLOCK + "mlp/fc1", _LAYER + "intermediate.dense"),
    *names.linear(_BLOCK + "mlp/fc2", _LAYER + "output.dense"),
]
_DINOV2_RULES = [
    *_COMMON_RULES,
    *names.norm(_BLOCK + "norm([12])", _LAYER + r"norm\2"),
    names.Rule(_BLOCK + "scale([12])/scale", _LAYER + r"layer_scale\2.lambda1"),
]
_DINOV2_MLP_RULES = names.linear(_BLOCK + "mlp/(fc[12])", _LAYER + r"mlp.\2")
_DINOV2_SWIGLU_RULES = [
    *names.linear(_BLOCK + "mlp/fc1", _LAYER + "mlp.weights_in"),
    *names.linear(_BLOCK + "mlp/fc2", _LAYER + "mlp.weights_out"),
]
# Unused by classifiers: the [CLS] pooler of bare ViTs, DINOv2's token for masked pre-training.
_IGNORED = {
    "vit": r"vit\.pooler\.dense\.(weight|bias)",
    "deit": r"deit\.pooler\.dense\.(weight|bias)",
    "dinov2": r"dinov2\.embeddings\.mask_token",
    "dinov2_with_registers": r"dinov2_with_registers\.embeddings\.mask_token",
}


def rules(config: ViTConfig) -> list[names.Rule]:
    """Names here and there."""
    if not config.is_dinov2:
        return _VIT_RULES
    return _DINOV2_RULES + (_DINOV2_SWIGLU_RULES if config.swiglu else _DINOV2_MLP_RULES)


def ignored(config: ViTConfig) -> str:
    """What classifiers do not use."""
    return _IGNORED[config.family]


# --- Position embeddings -----------------------------------------------------------------------


def resized(params: Params, stored: ViTConfig, config: ViTConfig) -> Params:
    """Interpolates the patches' positions [1, P + N, D] from the stored grid to another."""
    if stored.grid == config.grid:
        return params
    positions = params["backbone"]["position_embedding"]
    prefix, patches = np.split(positions, [-stored.num_patches], axis=1)
    patches = patches.reshape(*stored.grid, -1)  # [rows, columns, D]
    if stored.family == "dinov2_with_registers":  # antialiased, as in Pillow
        patches = jax.image.resize(patches, (*config.grid, patches.shape[-1]), "cubic")
    else:
        pairs = zip(stored.grid, config.grid, strict=True)
        rows, columns = (_bicubic(old, new) for old, new in pairs)
        patches = np.einsum("Rr,Cc,rcd->RCd", rows, columns, patches, optimize=True)
    patches = np.asarray(patches).reshape(1, config.num_patches, -1).astype(np.float32)
    positions = np.concatenate([prefix, patches], axis=1)
    return params | {"backbone": params["backbone"] | {"position_embedding": positions}}


def _bicubic(old: int, new: int) -> np.ndarray:
    """Matrix [new, old] of bicubic interpolation as in torch: a = -0.75, edges repeated.

    Not antialiased, pixel centres at half integers; `jax.image.resize` has a = -0.5.
    """
    centers = (np.arange(new) + 0.5) * old / new - 0.5
    first = np.floor(centers).astype(int) - 1
    matrix = np.zeros((new, old))
    for tap in range(4):
        weights = _cubic(centers - (first + tap))
        np.add.at(matrix, (np.arange(new), np.clip(first + tap, 0, old - 1)), weights)
    return matrix


def _cubic(x: np.ndarray, a: float = -0.75) -> np.ndarray:
    """Keys' cubic convolution kernel at distances `x`, zero from 2 on."""
    x = np.abs(x)
    near = (a + 2) * x**3 - (a + 3) * x**2 + 1
    far = a * (x**3 - 5 * x**2 + 8 * x - 4)
    return np.where(x <= 1, near, np.where(x < 2, far, 0))
