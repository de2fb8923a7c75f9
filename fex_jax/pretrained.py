"""Hugging Face image classification checkpoints to parameters and back."""

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx, traverse_util
from safetensors import safe_open
from safetensors.numpy import save_file

from fex_jax.models import Params, shapes
from fex_jax.models.vit import ViTClassifier, ViTConfig, head
from fex_jax.preprocessing import Preprocessing

_FILES = (
    "config.json",
    "preprocessor_config.json",
    "model*.safetensors",
    "model.safetensors.index.json",
)
_ARCHITECTURES = {
    "vit": ("ViTForImageClassification", "ViTModel"),
    "deit": ("DeiTForImageClassification", "DeiTModel"),
    "dinov2": ("Dinov2ForImageClassification", "Dinov2Model"),
}
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


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A `ViTClassifier`'s parameters with what is needed to feed it and to name its outputs."""

    config: ViTConfig
    params: Params
    labels: tuple[str, ...]
    preprocessing: Preprocessing

    def __post_init__(self) -> None:
        if len(self.labels) != self.config.num_classes:
            raise ValueError(f"{len(self.labels)} labels for {self.config.num_classes} classes")
        if self.preprocessing.image_size != self.config.image_size:
            raise ValueError(
                f"preprocessing gives {self.preprocessing.image_size} px images, but the model "
                f"takes {self.config.image_size} px; use preprocessing.with_image_size"
            )


def load(
    path_or_id: str, image_size: int | None = None, num_classes: int | None = None
) -> Checkpoint:
    """Loads a local directory, or a Hugging Face hub id, in safetensors format.

    `image_size` is the model input's side in pixels, by default what the preprocessor produces;
    position embeddings are interpolated to it. `num_classes` puts a fresh head on a bare backbone,
    or on a classifier of another number of classes. A ValueError says what does not fit.
    """
    directory = _locate(path_or_id)
    hf_config = _read_config(directory)
    family = hf_config["model_type"]
    tensors = _normalize_keys(_read_tensors(directory), family)
    preprocessing = _read_preprocessing(directory, family)
    if image_size is not None:
        preprocessing = preprocessing.with_image_size(image_size)

    kernel = tensors.get("classifier.weight")
    if kernel is None and num_classes is None:
        raise ValueError(
            f"{directory} holds a backbone without a classifier: pass num_classes to attach a "
            "fresh classification head"
        )
    fresh_head = kernel is None or num_classes not in (None, len(kernel))
    stored = _config_from_hf(hf_config, num_classes if fresh_head else len(kernel))
    if fresh_head:
        tensors |= _fresh_head(stored)

    params = _params_from_hf(tensors, stored, directory)
    config = dataclasses.replace(stored, image_size=preprocessing.image_size)
    params["backbone"]["position_embedding"] = _resize_positions(
        params["backbone"]["position_embedding"], stored, config
    )
    return Checkpoint(
        config=config,
        params=jax.tree.map(jnp.asarray, params),
        labels=_labels({} if fresh_head else hf_config, config.num_classes),
        preprocessing=preprocessing,
    )


def save(directory: str | Path, checkpoint: Checkpoint) -> None:
    """Writes config.json, model.safetensors and preprocessor_config.json, made if not there."""
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    tensors = _params_to_hf(checkpoint.params, checkpoint.config)
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    _write_json(directory / "config.json", _config_to_hf(checkpoint.config, checkpoint.labels))
    _write_json(directory / "preprocessor_config.json", checkpoint.preprocessing.to_dict())


# --- Parameter names and layouts ---------------------------------------------------------------


class _Rule(NamedTuple):
    """A parameter's name here, its name in Hugging Face files, and the array layouts there."""

    pattern: str
    replacement: str
    to_hf: Callable[[np.ndarray, ViTConfig], np.ndarray] = lambda x, config: x
    from_hf: Callable[[np.ndarray], np.ndarray] = lambda x: x


def _transpose(x: np.ndarray, _: ViTConfig | None = None) -> np.ndarray:
    return x.T  # [in, out] <-> [out, in]


def _to_convolution(x: np.ndarray, config: ViTConfig) -> np.ndarray:
    side = config.patch_size
    return x.reshape(side, side, config.num_channels, -1).transpose(3, 2, 0, 1)  # [D, C, p, p]


def _from_convolution(x: np.ndarray) -> np.ndarray:
    return x.transpose(2, 3, 1, 0).reshape(-1, len(x))  # [p p C, D]


def _linear(name: str, hf_name: str) -> list[_Rule]:
    return [
        _Rule(f"{name}/kernel", f"{hf_name}.weight", _transpose, _transpose),
        _Rule(f"{name}/bias", f"{hf_name}.bias"),
    ]


def _norm(name: str, hf_name: str) -> list[_Rule]:
    return [
        _Rule(f"{name}/scale", f"{hf_name}.weight"),
        _Rule(f"{name}/bias", f"{hf_name}.bias"),
    ]


_BLOCK = r"backbone/blocks/(\d+)/"
_LAYER = r"{family}.encoder.layer.\1."
_COMMON_RULES = [
    *_linear("head", "classifier"),
    _Rule("backbone/(cls_token|distillation_token)", r"{family}.embeddings.\1"),
    _Rule("backbone/position_embedding", "{family}.embeddings.position_embeddings"),
    _Rule(
        "backbone/patch_embedding/projection/kernel",
        "{family}.embeddings.patch_embeddings.projection.weight",
        _to_convolution,
        _from_convolution,
    ),
    _Rule(
        "backbone/patch_embedding/projection/bias",
        "{family}.embeddings.patch_embeddings.projection.bias",
    ),
    *_linear(_BLOCK + "attention/(query|key|value)", _LAYER + r"attention.attention.\2"),
    *_linear(_BLOCK + "attention/out", _LAYER + "attention.output.dense"),
    *_norm("backbone/norm", "{family}.layernorm"),
]
_VIT_RULES = [
    *_COMMON_RULES,
    *_norm(_BLOCK + "norm1", _LAYER + "layernorm_before"),
    *_norm(_BLOCK + "norm2", _LAYER + "layernorm_after"),
    *_linear(_BLOCK + "mlp/fc1", _LAYER + "intermediate.dense"),
    *_linear(_BLOCK + "mlp/fc2", _LAYER + "output.dense"),
]
_DINOV2_RULES = [
    *_COMMON_RULES,
    *_norm(_BLOCK + "norm([12])", _LAYER + r"norm\2"),
    _Rule(_BLOCK + "scale([12])/scale", _LAYER + r"layer_scale\2.lambda1"),
]
_DINOV2_MLP_RULES = _linear(_BLOCK + "mlp/(fc[12])", _LAYER + r"mlp.\2")
_DINOV2_SWIGLU_RULES = [
    *_linear(_BLOCK + "mlp/fc1", _LAYER + "mlp.weights_in"),
    *_linear(_BLOCK + "mlp/fc2", _LAYER + "mlp.weights_out"),
]
# Unused by classifiers: the [CLS] pooler of bare ViTs, DINOv2's token for masked pre-training.
_IGNORED = {
    "vit": r"vit\.pooler\.dense\.(weight|bias)",
    "deit": r"deit\.pooler\.dense\.(weight|bias)",
    "dinov2": r"dinov2\.embeddings\.mask_token",
}


def _rules(config: ViTConfig) -> list[_Rule]:
    if config.family != "dinov2":
        return _VIT_RULES
    return _DINOV2_RULES + (_DINOV2_SWIGLU_RULES if config.swiglu else _DINOV2_MLP_RULES)


def _find_rule(name: str, config: ViTConfig) -> tuple[_Rule, str]:
    """The one rule for a parameter's name, and the name that it has in Hugging Face files."""
    for rule in _rules(config):
        if match := re.fullmatch(rule.pattern, name):
            return rule, match.expand(rule.replacement).format(family=config.family)
    raise ValueError(f"parameter {name!r} is not one of a {config.family} ViTClassifier")


def _params_to_hf(params: Params, config: ViTConfig) -> dict[str, np.ndarray]:
    tensors = {}
    for name, value in traverse_util.flatten_dict(params, sep="/").items():
        rule, hf_name = _find_rule(name, config)
        value = rule.to_hf(np.asarray(value, np.float32), config)
        tensors[hf_name] = np.ascontiguousarray(value)
    return tensors


def _params_from_hf(tensors: dict[str, np.ndarray], config: ViTConfig, source: Path) -> Params:
    """Parameters for `config`; a ValueError lists tensors that are missing, extra or misshapen."""
    template = shapes(lambda rngs: ViTClassifier(config, rngs=rngs))
    params, expected = {}, {}
    for name, leaf in traverse_util.flatten_dict(template, sep="/").items():
        rule, hf_name = _find_rule(name, config)
        # A broadcast zero has the layout without the memory.
        shape = rule.to_hf(np.broadcast_to(np.float32(0), leaf.shape), config).shape
        expected[hf_name] = shape
        if hf_name in tensors and tensors[hf_name].shape == shape:
            params[name] = rule.from_hf(tensors[hf_name].astype(np.float32))
    _check(tensors, expected, config.family, source)
    return traverse_util.unflatten_dict(params, sep="/")


def _check(
    tensors: dict[str, np.ndarray], expected: dict[str, tuple[int, ...]], family: str, source: Path
) -> None:
    extra = [k for k in tensors if k not in expected and not re.fullmatch(_IGNORED[family], k)]
    misshapen = [
        f"{k} is {list(tensors[k].shape)}, expected {list(shape)}"
        for k, shape in expected.items()
        if k in tensors and tensors[k].shape != shape
    ]
    problems = [
        f"{len(keys)} {kind}: " + "; ".join(keys[:5]) + ("; ..." if len(keys) > 5 else "")
        for kind, keys in (
            ("missing", [k for k in expected if k not in tensors]),
            ("extra", extra),
            ("misshapen", misshapen),
        )
        if keys
    ]
    if problems:
        raise ValueError(
            f"the tensors in {source} do not fit its config.json:\n  "
            + "\n  ".join(problems)
            + f"\nIs it one of {' or '.join(_ARCHITECTURES[family])}, unmodified? If so, load it "
            "with transformers and save it again with save_pretrained"
        )


def _normalize_keys(tensors: dict[str, np.ndarray], family: str) -> dict[str, np.ndarray]:
    """Adds the prefix that bare backbones (`ViTModel`) leave out."""
    if any(key.startswith(f"{family}.") for key in tensors):
        return tensors
    return {k if k.startswith("classifier.") else f"{family}.{k}": v for k, v in tensors.items()}


def _fresh_head(config: ViTConfig) -> dict[str, np.ndarray]:
    """Hugging Face tensors of a newly initialised head, the same at every call."""
    layer = head(config, nnx.Rngs(0))
    return _params_to_hf({"head": nnx.to_pure_dict(nnx.state(layer))}, config)


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


def _config_from_hf(hf_config: dict[str, Any], num_classes: int) -> ViTConfig:
    family = hf_config["model_type"]
    values = _CONFIG_DEFAULTS | _FAMILY_DEFAULTS[family] | hf_config
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


def _config_to_hf(config: ViTConfig, labels: tuple[str, ...]) -> dict[str, Any]:
    mlp = {"intermediate_size": config.mlp_dim}
    if config.family == "dinov2":
        mlp = {
            "mlp_ratio": config.mlp_dim // config.hidden_size,
            "use_swiglu_ffn": config.swiglu,
            "use_mask_token": False,
        }
    return {
        "architectures": [_ARCHITECTURES[config.family][0]],
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
        "id2label": {str(i): label for i, label in enumerate(labels)},
        "label2id": {label: i for i, label in enumerate(labels)},
        **mlp,
    }


def _side(value: int | list[int]) -> int:
    if isinstance(value, int):
        return value
    if len(set(value)) != 1:
        raise ValueError(f"only square images and patches are supported, got {value}")
    return value[0]


def _labels(hf_config: dict[str, Any], num_classes: int) -> tuple[str, ...]:
    """Class names by index; transformers' own placeholders where the file has none."""
    names = hf_config.get("id2label") or {str(i): f"LABEL_{i}" for i in range(num_classes)}
    return tuple(names[key] for key in sorted(names, key=int))


# --- Files -------------------------------------------------------------------------------------


def _locate(path_or_id: str) -> Path:
    """The local directory, downloaded from the hub where it is an id."""
    path_or_id = str(path_or_id)
    if Path(path_or_id).is_dir():
        return Path(path_or_id)
    if not re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", path_or_id):
        raise FileNotFoundError(f"{path_or_id} is neither a directory nor a Hugging Face hub id")
    # Slow to import, and local directories do not need it.
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        return Path(snapshot_download(path_or_id, allow_patterns=list(_FILES)))
    except (OSError, HfHubHTTPError) as error:
        raise ConnectionError(
            f"{path_or_id!r} is no local directory and could not be downloaded from the Hugging "
            f"Face hub ({type(error).__name__}). Check the spelling and the connection, or run "
            f"`hf download {path_or_id} --local-dir DIR` where there is one and load DIR"
        ) from error


def _read_config(directory: Path) -> dict[str, Any]:
    path = directory / "config.json"
    if not path.exists():
        raise ValueError(
            f"{directory} has no config.json: not a Hugging Face model directory, or an incomplete "
            "one; models are saved with save_pretrained(directory)"
        )
    config = json.loads(path.read_text())
    family = config.get("model_type")
    if family not in _ARCHITECTURES:
        supported = ", ".join(_ARCHITECTURES)
        raise ValueError(f"model_type {family!r} is not supported; supported: {supported}")
    for architecture in config.get("architectures") or ():
        if architecture not in _ARCHITECTURES[family]:
            supported = " and ".join(_ARCHITECTURES[family])
            raise ValueError(
                f"architecture {architecture!r} is not supported; for model_type {family!r}, "
                f"{supported} are"
            )
    return config


def _read_preprocessing(directory: Path, family: str) -> Preprocessing:
    path = directory / "preprocessor_config.json"
    if not path.exists():
        raise ValueError(
            f"{directory} has no preprocessor_config.json, so the model's input size and "
            "normalisation are unknown; save the image processor there with "
            "save_pretrained(directory)"
        )
    return Preprocessing.from_dict(json.loads(path.read_text()), _PROCESSORS[family])


def _read_tensors(directory: Path) -> dict[str, np.ndarray]:
    index = directory / "model.safetensors.index.json"
    single = directory / "model.safetensors"
    if index.exists():
        names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
    elif single.exists():
        names = [single.name]
    else:
        pickled = " (only pickled weights)" if any(directory.glob("*.bin")) else ""
        raise ValueError(
            f"{directory} has no model.safetensors{pickled}: convert it once with transformers, "
            "model.save_pretrained(directory, safe_serialization=True)"
        )
    tensors = {}
    for name in names:
        with safe_open(directory / name, framework="np") as file:
            tensors |= {key: file.get_tensor(key) for key in file.keys()}
    return tensors


def _write_json(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2) + "\n")
