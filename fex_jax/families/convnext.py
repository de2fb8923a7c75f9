"""ConvNeXt (Liu et al., 2022), as `ConvNextForImageClassification` of transformers."""

import dataclasses
from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike

from fex_jax import checks, families
from fex_jax.families import convolution, head
from fex_jax.families import rules as names
from fex_jax.models import Tap, no_tap
from fex_jax.models.activations import ACTIVATIONS, NAMED
from fex_jax.models.vit import LayerScale, Linear, layer_norm

ARCHITECTURES = {"convnext": ("ConvNextForImageClassification", "ConvNextModel")}
PROCESSORS = {"convnext": "ConvNext"}
HEAD = "classifier"
_EPSILON = 1e-6  # of all LayerNorms but the last
_DEFAULTS: dict[str, Any] = {
    "image_size": 224,
    "num_channels": 3,
    "patch_size": 4,
    "hidden_sizes": [96, 192, 384, 768],
    "depths": [3, 3, 9, 3],
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
    "layer_scale_init_value": 1e-6,
}
_SIDE = checks.integer(1, 64)
_CHECKS = families.STAGES | {
    "patch_size": checks.either(_SIDE, checks.several(_SIDE, 2)),
    "hidden_act": NAMED,
    "layer_scale_init_value": checks.number(-1, 1e3),
}


@dataclasses.dataclass(frozen=True)
class ConvNextConfig(families.Grid):
    """Architecture of a ConvNeXt."""

    image_size: int | tuple[int, int]
    num_classes: int
    stem: int  # side and stride of the first convolution
    hidden_sizes: tuple[int, ...]  # channels of each stage
    depths: tuple[int, ...]  # blocks of each stage
    layer_norm_eps: float = 1e-12  # of the last LayerNorm
    scales: bool = True  # blocks have a gain for each channel
    num_channels: int = 3
    activation: str = "gelu"  # of `ACTIVATIONS`
    family: ClassVar[str] = "convnext"

    def classifier(self, *, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs) -> "ConvNext":
        """The network."""
        return ConvNext(self, dtype=dtype, rngs=rngs)

    def encoder(
        self, *, dtype: DTypeLike = jnp.float32, remat: bool = False, rngs: nnx.Rngs
    ) -> "_Backbone":
        """All of it but the last LayerNorm, which is of the mean, and the head."""
        return _Backbone(self, dtype, remat, rngs)


class _Block(nnx.Module):
    """A depthwise convolution, then two layers for each position: [B, H, W, C] → the same."""

    def __init__(self, config: ConvNextConfig, size: int, dtype: DTypeLike, rngs: nnx.Rngs):
        self.activation = ACTIVATIONS[config.activation]
        self.depthwise = convolution(size, size, 7, groups=size, dtype=dtype, rngs=rngs)
        self.norm = layer_norm(size, _EPSILON, rngs)
        self.fc1 = Linear(size, 4 * size, dtype=dtype, rngs=rngs)
        self.fc2 = Linear(4 * size, size, dtype=dtype, rngs=rngs)
        self.gain = LayerScale(size) if config.scales else None

    def __call__(self, x: jax.Array) -> jax.Array:
        hidden = self.activation(self.fc1(self.norm(self.depthwise(x))))
        update = self.fc2(hidden)
        return x + (self.gain(update) if self.gain else update)


class _Stage(nnx.Module):
    """Half the side where it is not the first; then blocks."""

    def __init__(
        self, config: ConvNextConfig, number: int, width: int, dtype: DTypeLike, rngs: nnx.Rngs
    ):
        size, depth = config.hidden_sizes[number], config.depths[number]
        halve = {"padding": 0, "dtype": dtype, "rngs": rngs}
        self.norm = layer_norm(width, _EPSILON, rngs) if number else None
        self.downsample = convolution(width, size, 2, 2, **halve) if number else None
        self.blocks = nnx.List([_Block(config, size, dtype, rngs) for _ in range(depth)])

    def __call__(self, x: jax.Array, remat: bool) -> jax.Array:
        run = nnx.remat(_Block.__call__) if remat else _Block.__call__
        if self.downsample is not None:
            x = self.downsample(self.norm(x))
        for block in self.blocks:
            x = run(block, x)
        return x


class _Backbone(families.Backbone):
    """The last stage's h is about H / 32."""

    def __init__(self, config: ConvNextConfig, dtype: DTypeLike, remat: bool, rngs: nnx.Rngs):
        self.config, self.remat = config, remat
        sizes, side = config.hidden_sizes, config.stem
        self.stem = convolution(
            config.num_channels, sizes[0], side, side, padding=0, dtype=dtype, rngs=rngs
        )
        self.norm = layer_norm(sizes[0], _EPSILON, rngs)
        widths = (sizes[0], *sizes[:-1])
        self.stages = nnx.List(
            [_Stage(config, i, width, dtype, rngs) for i, width in enumerate(widths)]
        )

    def feature_maps(self, images: jax.Array) -> list[jax.Array]:
        """Those of each stage."""
        x, found = self.norm(self.stem(images)), []
        for stage in self.stages:
            x = stage(x, self.remat)
            found.append(x)
        return found


class ConvNext(nnx.Module):
    """Normalised images [B, H, W, 3] → logits [B, K], of the cells' mean, normalised."""

    def __init__(self, config: ConvNextConfig, *, dtype: DTypeLike, rngs: nnx.Rngs):
        self.config = config
        size = config.hidden_sizes[-1]
        self.backbone = config.encoder(dtype=dtype, rngs=rngs)
        self.norm = layer_norm(size, config.layer_norm_eps, rngs)
        self.head = head(config, rngs)

    def __call__(self, images: jax.Array, tap: Tap = no_tap) -> jax.Array:
        cells = tap("feature_map", self.backbone.feature_maps(images)[-1].astype(jnp.float32))
        return self.head(self.norm(cells.mean((1, 2))))


# --- Hugging Face files --------------------------------------------------------------------------


CONFIG, SIZES = ConvNextConfig, families.STAGES | {"stem": _SIDE, "scales": checks.flag()}


def read_config(hf_config: dict[str, Any], num_classes: int, source: Path) -> ConvNextConfig:
    """config.json; the preprocessor says the size in pixels."""
    values = _DEFAULTS | hf_config
    checks.require(values, _CHECKS, source / "config.json")
    return ConvNextConfig(
        image_size=224,
        num_classes=num_classes,
        stem=families.side_of(values, "patch_size"),
        hidden_sizes=tuple(values["hidden_sizes"]),
        depths=tuple(values["depths"]),
        layer_norm_eps=values["layer_norm_eps"],
        scales=values["layer_scale_init_value"] > 0,
        num_channels=values["num_channels"],
        activation=values["hidden_act"],
    )


def write_config(config: ConvNextConfig) -> dict[str, Any]:
    """What config.json says of the architecture."""
    return {
        "image_size": config.image_size,
        "num_channels": config.num_channels,
        "patch_size": config.stem,
        "num_stages": len(config.depths),
        "hidden_sizes": config.hidden_sizes,
        "depths": config.depths,
        "hidden_act": config.activation,
        "layer_norm_eps": config.layer_norm_eps,
        "layer_scale_init_value": 1e-6 if config.scales else 0.0,
    }


def check(tensors: dict[str, np.ndarray], config: ConvNextConfig, source: Path) -> None:
    """Raises a ValueError where the tensors have other stages."""
    families.check_stages(tensors, config.depths, source)


_STAGE, _HF_STAGE = r"backbone/stages/(\d+)/", r"convnext.encoder.stages.\1."
_BLOCK, _HF_BLOCK = _STAGE + r"blocks/(\d+)/", _HF_STAGE + r"layers.\2."
_RULES = [
    *names.linear("head", HEAD),
    *names.norm("norm", "convnext.layernorm"),
    *names.convolution("backbone/stem", "convnext.embeddings.patch_embeddings"),
    *names.norm("backbone/norm", "convnext.embeddings.layernorm"),
    *names.norm(_STAGE + "norm", _HF_STAGE + "downsampling_layer.0"),
    *names.convolution(_STAGE + "downsample", _HF_STAGE + "downsampling_layer.1"),
    *names.convolution(_BLOCK + "depthwise", _HF_BLOCK + "dwconv"),
    *names.norm(_BLOCK + "norm", _HF_BLOCK + "layernorm"),
    *names.linear(_BLOCK + "fc([12])", _HF_BLOCK + r"pwconv\3"),
    names.Rule(_BLOCK + "gain/scale", _HF_BLOCK + "layer_scale_parameter"),
]


def rules(config: ConvNextConfig) -> list[names.Rule]:
    """Names here and there."""
    return _RULES


def ignored(config: ConvNextConfig) -> str:
    """Nothing."""
    return ""
