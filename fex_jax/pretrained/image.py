"""Image classifiers in Hugging Face directories: ViT, DeiT and DINOv2."""

import dataclasses
from pathlib import Path
from typing import Any, ClassVar, get_args

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from fex_jax import checks
from fex_jax.host.answers import Output
from fex_jax.models import Params, shapes
from fex_jax.models.vit import Family, ViTClassifier, ViTConfig, head
from fex_jax.preprocessing import MAX_SIDE, Preprocessing
from fex_jax.pretrained import hub, rules

FAMILIES = get_args(Family)
_PROCESSORS = {"vit": "ViT", "deit": "DeiT", "dinov2": "Bit"}
# Transformers leaves keys with default values out of some config.json files.
_CONFIG_DEFAULTS = {
    "image_size": 224,
    "num_channels": 3,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "hidden_act": "gelu",
    "qkv_bias": True,
}
_FAMILY_DEFAULTS = {
    "vit": {"patch_size": 16, "intermediate_size": 3072, "layer_norm_eps": 1e-12},
    "deit": {"patch_size": 16, "intermediate_size": 3072, "layer_norm_eps": 1e-12},
    "dinov2": {"patch_size": 14, "mlp_ratio": 4, "layer_norm_eps": 1e-6, "use_swiglu_ffn": False},
}
_MAX_PATCHES = 2**16  # 256 × 256: attention is quadratic in them
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
    "qkv_bias": checks.flag(),
    "use_swiglu_ffn": checks.flag(),
}


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A `ViTClassifier`'s parameters with what is needed to feed it and to name its outputs."""

    config: ViTConfig
    params: Params = dataclasses.field(repr=False)
    labels: tuple[str, ...]
    preprocessing: Preprocessing
    output: Output = "softmax"  # what answers are, see `predictors.Model`
    modality: ClassVar[str] = "images"  # of `fex_jax.modalities`

    def __post_init__(self) -> None:
        if len(self.labels) != self.config.num_classes:
            raise ValueError(f"{len(self.labels)} labels for {self.config.num_classes} classes")
        if self.preprocessing.image_size != self.config.image_size:
            raise ValueError(
                f"preprocessing gives {self.preprocessing.image_size} px images, but the model "
                f"takes {self.config.image_size} px; use preprocessing.with_image_size"
            )


def load(
    directory: Path,
    hf_config: dict[str, Any],
    image_size: int | None = None,
    num_classes: int | None = None,
) -> Checkpoint:
    """Loads a directory whose config.json holds `hf_config`; see `pretrained.load`."""
    family = hf_config["model_type"]
    tensors = _normalize_keys(hub.read_tensors(directory), family)
    kernel = tensors.get("classifier.weight")
    fresh_head, num_classes = hub.choose_head(kernel, num_classes, hf_config, directory)
    head_says = {} if fresh_head else hf_config
    labels = hub.read_labels(head_says, num_classes)
    stored = _config_from_hf(hf_config, num_classes, directory)
    preprocessing = _read_preprocessing(directory, stored, image_size)
    config = dataclasses.replace(stored, image_size=preprocessing.image_size)
    if config.num_patches > _MAX_PATCHES:
        raise ValueError(
            f"{directory}: images of {config.image_size} px in patches of {config.patch_size} are "
            f"{config.num_patches:,} patches; at most {_MAX_PATCHES:,} are supported"
        )
    norm = f"{family}.layernorm.weight"
    hub.check_sizes(tensors, stored.num_layers, stored.hidden_size, norm, directory)
    if fresh_head:
        tensors |= _fresh_head(stored)

    template = shapes(lambda rngs: ViTClassifier(stored, rngs=rngs))
    params = rules.from_hf(tensors, template, _rules(stored), stored, _IGNORED[family], directory)
    params["backbone"]["position_embedding"] = _resize_positions(
        params["backbone"]["position_embedding"], stored, config
    )
    return Checkpoint(
        config=config,
        params=jax.tree.map(jnp.asarray, params),
        labels=labels,
        preprocessing=preprocessing,
        output=hub.read_output(head_says, num_classes),
    )


def save(directory: str | Path, checkpoint: Checkpoint) -> None:
    """Writes config.json, model.safetensors and preprocessor_config.json, made if not there."""
    config = checkpoint.config
    tensors = rules.to_hf(checkpoint.params, _rules(config), config)
    directory = hub.write(directory, _config_to_hf(checkpoint), tensors)
    hub.write_json(directory / "preprocessor_config.json", checkpoint.preprocessing.to_dict())


# --- Parameter names and layouts ---------------------------------------------------------------


def _to_convolution(x: np.ndarray, config: ViTConfig) -> np.ndarray:
    side = config.patch_size
    return x.reshape(side, side, config.num_channels, -1).transpose(3, 2, 0, 1)  # [D, C, p, p]


def _from_convolution(x: np.ndarray) -> np.ndarray:
    return x.transpose(2, 3, 1, 0).reshape(-1, len(x))  # [p p C, D]


_BLOCK = r"backbone/blocks/(\d+)/"
_LAYER = r"{family}.encoder.layer.\1."
_COMMON_RULES = [
    *rules.linear("head", "classifier"),
    rules.Rule("backbone/(cls_token|distillation_token)", r"{family}.embeddings.\1"),
    rules.Rule("backbone/position_embedding", "{family}.embeddings.position_embeddings"),
    rules.Rule(
        "backbone/patch_embedding/projection/kernel",
        "{family}.embeddings.patch_embeddings.projection.weight",
        _to_convolution,
        _from_convolution,
    ),
    rules.Rule(
        "backbone/patch_embedding/projection/bias",
        "{family}.embeddings.patch_embeddings.projection.bias",
    ),
    *rules.linear(_BLOCK + "attention/(query|key|value)", _LAYER + r"attention.attention.\2"),
    *rules.linear(_BLOCK + "attention/out", _LAYER + "attention.output.dense"),
    *rules.norm("backbone/norm", "{family}.layernorm"),
]
_VIT_RULES = [
    *_COMMON_RULES,
    *rules.norm(_BLOCK + "norm1", _LAYER + "layernorm_before"),
    *rules.norm(_BLOCK + "norm2", _LAYER + "layernorm_after"),
    *rules.linear(_BLOCK + "mlp/fc1", _LAYER + "intermediate.dense"),
    *rules.linear(_BLOCK + "mlp/fc2", _LAYER + "output.dense"),
]
_DINOV2_RULES = [
    *_COMMON_RULES,
    *rules.norm(_BLOCK + "norm([12])", _LAYER + r"norm\2"),
    rules.Rule(_BLOCK + "scale([12])/scale", _LAYER + r"layer_scale\2.lambda1"),
]
_DINOV2_MLP_RULES = rules.linear(_BLOCK + "mlp/(fc[12])", _LAYER + r"mlp.\2")
_DINOV2_SWIGLU_RULES = [
    *rules.linear(_BLOCK + "mlp/fc1", _LAYER + "mlp.weights_in"),
    *rules.linear(_BLOCK + "mlp/fc2", _LAYER + "mlp.weights_out"),
]
# Unused by classifiers: the [CLS] pooler of bare ViTs, DINOv2's token for masked pre-training.
_IGNORED = {
    "vit": r"vit\.pooler\.dense\.(weight|bias)",
    "deit": r"deit\.pooler\.dense\.(weight|bias)",
    "dinov2": r"dinov2\.embeddings\.mask_token",
}


def _rules(config: ViTConfig) -> list[rules.Rule]:
    if config.family != "dinov2":
        return _VIT_RULES
    return _DINOV2_RULES + (_DINOV2_SWIGLU_RULES if config.swiglu else _DINOV2_MLP_RULES)


def _normalize_keys(tensors: dict[str, np.ndarray], family: str) -> dict[str, np.ndarray]:
    """Adds the prefix that bare backbones (`ViTModel`) leave out."""
    if any(key.startswith(f"{family}.") for key in tensors):
        return tensors
    return {k if k.startswith("classifier.") else f"{family}.{k}": v for k, v in tensors.items()}


def _fresh_head(config: ViTConfig) -> dict[str, np.ndarray]:
    """Hugging Face tensors of a newly initialised head, the same at every call."""
    layer = head(config, nnx.Rngs(0))
    return rules.to_hf({"head": nnx.to_pure_dict(nnx.state(layer))}, _rules(config), config)


# --- Position embeddings -----------------------------------------------------------------------


def _resize_positions(positions: np.ndarray, stored: ViTConfig, config: ViTConfig) -> np.ndarray:
    """Interpolates the patches' positions [1, P + N, D] from the stored grid to another."""
    if stored.grid == config.grid:
        return positions
    prefix, patches = np.split(positions, [stored.num_prefix_tokens], axis=1)
    rows, columns = (_bicubic(old, new) for old, new in zip(stored.grid, config.grid, strict=True))
    patches = patches.reshape(*stored.grid, -1)  # [rows, columns, D]
    patches = np.einsum("Rr,Cc,rcd->RCd", rows, columns, patches, optimize=True)
    patches = patches.reshape(1, config.num_patches, -1).astype(np.float32)
    return np.concatenate([prefix, patches], axis=1)


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


# --- config.json -------------------------------------------------------------------------------


def _config_from_hf(hf_config: dict[str, Any], num_classes: int, source: Path) -> ViTConfig:
    family = hf_config["model_type"]
    values = _CONFIG_DEFAULTS | _FAMILY_DEFAULTS[family] | hf_config
    checks.require(values, _CONFIG_CHECKS, source / "config.json")
    if values["hidden_act"] != "gelu":
        raise ValueError(f"hidden_act {values['hidden_act']!r} is not supported, only 'gelu'")
    mlp_dim = (
        int(values["hidden_size"] * values["mlp_ratio"])
        if family == "dinov2"
        else values["intermediate_size"]
    )
    return ViTConfig(
        family=family,
        image_size=_side(values["image_size"]),
        patch_size=_side(values["patch_size"]),
        num_classes=num_classes,
        hidden_size=values["hidden_size"],
        num_layers=values["num_hidden_layers"],
        num_heads=values["num_attention_heads"],
        mlp_dim=mlp_dim,
        num_channels=values["num_channels"],
        layer_norm_eps=values["layer_norm_eps"],
        qkv_bias=values["qkv_bias"],
        swiglu=values.get("use_swiglu_ffn", False),
    )


def _config_to_hf(checkpoint: Checkpoint) -> dict[str, Any]:
    config = checkpoint.config
    mlp = {"intermediate_size": config.mlp_dim}
    if config.family == "dinov2":
        mlp = {
            "mlp_ratio": config.mlp_dim // config.hidden_size,
            "use_swiglu_ffn": config.swiglu,
            "use_mask_token": False,
        }
    return {
        "architectures": [hub.ARCHITECTURES[config.family][0]],
        "model_type": config.family,
        "dtype": "float32",
        "image_size": config.image_size,
        "patch_size": config.patch_size,
        "num_channels": config.num_channels,
        "hidden_size": config.hidden_size,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "hidden_act": "gelu",
        "layer_norm_eps": config.layer_norm_eps,
        "qkv_bias": config.qkv_bias,
        **hub.head_config(checkpoint.labels, checkpoint.output),
        **mlp,
    }


def _side(value: int | list[int]) -> int:
    if isinstance(value, int):
        return value
    if len(set(value)) != 1:
        raise ValueError(f"only square images and patches are supported, got {value}")
    return value[0]


def _read_preprocessing(
    directory: Path, config: ViTConfig, image_size: int | None
) -> Preprocessing:
    """What the directory says, for images of another side if `image_size` is given."""
    path = checks.file_inside(directory, "preprocessor_config.json")
    if not path.exists():
        raise ValueError(
            f"{directory} has no preprocessor_config.json, so the model's input size and "
            "normalisation are unknown; save the image processor there with "
            "save_pretrained(directory)"
        )
    values = checks.read_json(path)
    found = Preprocessing.from_dict(values, _PROCESSORS[config.family])
    if image_size is not None:
        checks.require({"image_size": image_size}, {"image_size": _SIDE}, "pretrained.load")
        return found.with_image_size(image_size)
    deciding = "crop_size" if found.do_center_crop else "size"
    default = values.get(deciding) is None and found.image_size != config.image_size
    if default and config.family != "dinov2":  # which transformers, too, feeds another side
        raise ValueError(
            f"{path} has no {deciding}: {found.processor}ImageProcessor's own is "
            f"{found.image_size} px, but the model takes {config.image_size}; add {deciding}, or "
            "pass image_size"
        )
    return found
