"""Swin (Liu et al., 2021), as `SwinForImageClassification` of transformers.

Shapes: B images, h rows and w columns of patches, C channels, W windows of S = window² patches.
"""

import dataclasses
from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike

from fex_jax import checks, families
from fex_jax.families import convolution
from fex_jax.families import rules as names
from fex_jax.models import Params, sides
from fex_jax.models.activations import NAMED
from fex_jax.models.vit import Attention, Linear, Mlp, layer_norm
from fex_jax.preprocessing import MAX_SIDE

ARCHITECTURES = {"swin": ("SwinForImageClassification", "SwinModel")}
PROCESSORS = {"swin": "ViT"}
HEAD = "classifier"
head = families.head
_EPSILON = 1e-5  # of the LayerNorms before blocks and between stages
_SIDE = checks.integer(1, MAX_SIDE)
# By their names in config.json, the fields of the config that it has and what they may be.
_FIELDS = {
    "num_channels": ("num_channels", checks.one_of(3)),
    "embed_dim": ("embed_dim", checks.integer(1, 2**14)),
    "depths": ("depths", checks.several(checks.integer(1, 256), at_least=1)),
    "num_heads": ("heads", checks.several(checks.integer(1, 1024))),
    "window_size": ("window", checks.integer(1, 256)),
    "mlp_ratio": ("mlp_ratio", checks.number(0.01, 64)),
    "qkv_bias": ("qkv_bias", checks.flag()),
    "hidden_act": ("activation", NAMED),
    "use_absolute_embeddings": ("absolute", checks.flag()),
    "layer_norm_eps": ("layer_norm_eps", checks.number(0, 1)),
}
_SIZES = dict.fromkeys(("image_size", "patch_size"), checks.either(_SIDE, checks.several(_SIDE, 2)))


@dataclasses.dataclass(frozen=True)
class SwinConfig(families.Grid):
    """Architecture of a Swin."""

    image_size: int | tuple[int, int]
    num_classes: int
    stem: int = 4  # pixels a side of what is embedded at first
    embed_dim: int = 96  # channels of the first stage, twice as many in each further one
    depths: tuple[int, ...] = (2, 2, 6, 2)  # blocks of each stage
    heads: tuple[int, ...] = (3, 6, 12, 24)
    window: int = 7  # patches a side
    mlp_ratio: float = 4.0
    qkv_bias: bool = True
    activation: str = "gelu"
    absolute: bool = False  # positions are embedded, too
    layer_norm_eps: float = 1e-5
    num_channels: int = 3
    family: ClassVar[str] = "swin"

    def __post_init__(self) -> None:
        if len(self.heads) != len(self.depths):
            raise ValueError(f"num_heads {self.heads} are not as many as depths {self.depths}")
        for size, count in zip(self.hidden_sizes, self.heads, strict=True):
            if size % count:
                raise ValueError(f"{size} channels do not divide into {count} heads")
        grid = self.patches
        for number in range(len(self.depths)):
            if min(grid) < self.window:
                raise ValueError(
                    f"images of {self.image_size} px give stage {number + 1} a grid of {grid[0]} × "
                    f"{grid[1]}, smaller than window_size {self.window}: give larger images"
                )
            grid = (grid[0] + 1) // 2, (grid[1] + 1) // 2

    def classifier(self, *, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs) -> families.OfMean:
        """The network."""
        return families.OfMean(self, self.encoder(dtype=dtype, rngs=rngs), rngs)

    def encoder(
        self, *, dtype: DTypeLike = jnp.float32, remat: bool = False, rngs: nnx.Rngs
    ) -> "_Backbone":
        """All of it but the head."""
        return _Backbone(self, dtype, remat, rngs)

    @property
    def hidden_sizes(self) -> tuple[int, ...]:
        """Channels of each stage."""
        return tuple(self.embed_dim * 2**number for number in range(len(self.depths)))

    @property
    def patches(self) -> tuple[int, int]:
        """(rows, columns) of the first stage; the last ones may reach beyond the image."""
        rows, columns = (-(-side // self.stem) for side in sides(self.image_size))
        return rows, columns


class _Block(nnx.Module):
    """Attention within windows, which are shifted in every other block: [B, h, w, C] → the same."""

    def __init__(
        self, config: SwinConfig, stage: int, shifts: bool, dtype: DTypeLike, rngs: nnx.Rngs
    ):
        size, count, self.window = config.hidden_sizes[stage], config.heads[stage], config.window
        self.shift = config.window // 2 if shifts else 0
        self.norm1 = layer_norm(size, config.layer_norm_eps, rngs)
        self.attention = Attention(size, count, qkv_bias=config.qkv_bias, dtype=dtype, rngs=rngs)
        self.distances = nnx.Param(jnp.zeros(((2 * config.window - 1) ** 2, count)))
        self.norm2 = layer_norm(size, config.layer_norm_eps, rngs)
        inner = int(config.mlp_ratio * size)
        self.mlp = Mlp(size, inner, activation=config.activation, dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        grid, window = x.shape[1:3], self.window
        shift = self.shift if min(grid) > window else 0
        rows, columns = (-(-length // window) * window for length in grid)
        padding = ((0, 0), (0, rows - grid[0]), (0, columns - grid[1]), (0, 0))
        read = jnp.roll(jnp.pad(self.norm1(x), padding), (-shift, -shift), (1, 2))
        bias = self.distances[...][_distances(window)].transpose(2, 0, 1)[None]
        if shift:
            bias = bias + _apart(rows, columns, window, shift)[:, None]

        def attend(image: jax.Array) -> jax.Array:  # [W, S, C], each with a bias of its own
            return self.attention(image, bias=bias)

        update = _joined(jax.vmap(attend)(_windows(read, window)), rows, columns)
        update = jnp.roll(update, (shift, shift), (1, 2))[:, : grid[0], : grid[1]]
        x = x + update
        return x + self.mlp(self.norm2(x))


def _windows(x: jax.Array, window: int) -> jax.Array:
    """[B, h, w, C] → [B, W, S, C]."""
    batch, rows, columns, channels = x.shape
    x = x.reshape(batch, rows // window, window, columns // window, window, channels)
    return x.swapaxes(2, 3).reshape(batch, -1, window * window, channels)


def _joined(x: jax.Array, rows: int, columns: int) -> jax.Array:
    """The inverse of `_windows`."""
    batch, _, patches, channels = x.shape
    window = round(patches**0.5)
    x = x.reshape(batch, rows // window, columns // window, window, window, channels)
    return x.swapaxes(2, 3).reshape(batch, rows, columns, channels)


def _distances(window: int) -> np.ndarray:
    """Rows of the table of relative positions for pairs of a window's patches, [S, S]."""
    places = np.stack(np.divmod(np.arange(window**2), window), -1)  # [S, 2]
    down, across = np.moveaxis(places[:, None] - places, -1, 0) + window - 1
    return down * (2 * window - 1) + across


def _apart(rows: int, columns: int, window: int, shift: int) -> np.ndarray:
    """What is added to the scores of patches that only the shift brought together, [W, S, S]."""

    def part(length: int) -> np.ndarray:
        place = np.arange(length)
        return (place >= length - window).astype(int) + (place >= length - shift)

    parts = 3 * part(rows)[:, None] + part(columns)  # [h, w]
    parts = np.asarray(parts).reshape(rows // window, window, columns // window, window)
    parts = parts.swapaxes(1, 2).reshape(-1, window**2)
    # −100 in transformers: a score of patches apart may still count.
    return np.where(parts[:, None] == parts[:, :, None], np.float32(0), np.float32(-100))


class _Merging(nnx.Module):
    """Four neighbours into one: [B, h, w, C] → [B, ⌈h / 2⌉, ⌈w / 2⌉, 2 C]."""

    def __init__(self, size: int, dtype: DTypeLike, rngs: nnx.Rngs):
        self.norm = layer_norm(4 * size, _EPSILON, rngs)
        self.reduction = Linear(4 * size, 2 * size, use_bias=False, dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = jnp.pad(x, ((0, 0), (0, x.shape[1] % 2), (0, x.shape[2] % 2), (0, 0)))
        batch, rows, columns, channels = x.shape
        x = x.reshape(batch, rows // 2, 2, columns // 2, 2, channels)
        x = x.transpose(0, 1, 3, 4, 2, 5)  # of the four, those of a column follow each other
        x = x.reshape(batch, rows // 2, columns // 2, 4 * channels)
        return self.reduction(self.norm(x))


class _Backbone(families.Backbone):
    """The last stage's feature map is normalised."""

    def __init__(self, config: SwinConfig, dtype: DTypeLike, remat: bool, rngs: nnx.Rngs):
        self.config, self.remat = config, remat
        side, width = config.stem, config.embed_dim
        self.stem = convolution(
            config.num_channels, width, side, side, padding=0, dtype=dtype, rngs=rngs
        )
        self.norm = layer_norm(width, _EPSILON, rngs)
        if config.absolute:
            rows, columns = config.patches
            self.position_embedding = nnx.Param(jnp.zeros((1, rows * columns, width)))
        self.stages = nnx.List(
            [
                nnx.List([_Block(config, stage, i % 2 > 0, dtype, rngs) for i in range(depth)])
                for stage, depth in enumerate(config.depths)
            ]
        )
        self.mergings = nnx.List([_Merging(size, dtype, rngs) for size in config.hidden_sizes[:-1]])
        self.last_norm = layer_norm(config.hidden_sizes[-1], config.layer_norm_eps, rngs)

    def feature_maps(self, images: jax.Array) -> list[jax.Array]:
        """Those of each stage."""
        run = nnx.remat(_Block.__call__) if self.remat else _Block.__call__
        rows, columns = (-length % self.config.stem for length in images.shape[1:3])
        images = jnp.pad(images, ((0, 0), (0, rows), (0, columns), (0, 0)))
        x = self.norm(self.stem(images))
        if self.config.absolute:
            x = x + self.position_embedding[...].reshape(1, *x.shape[1:])
        found = []
        for number, stage in enumerate(self.stages):
            x = self.mergings[number - 1](x) if number else x
            for block in stage:
                x = run(block, x)
            found.append(x)
        return [*found[:-1], self.last_norm(x)]


# --- Hugging Face files --------------------------------------------------------------------------


CONFIG, SIZES = SwinConfig, dict(_FIELDS.values()) | {"stem": _SIDE}


def read_config(hf_config: dict[str, Any], num_classes: int, source: Path) -> SwinConfig:
    """config.json, of the size in pixels that is stored."""
    values = {"image_size": 224, "patch_size": 4} | hf_config
    where = source / "config.json"
    checks.require(values, _SIZES, where)
    found = families.fields(values, _FIELDS, where)
    found |= {name: tuple(found[name]) for name in ("depths", "heads") if name in found}
    size = families.size_of(values)
    return SwinConfig(size, num_classes, stem=families.side_of(values, "patch_size"), **found)


def write_config(config: SwinConfig) -> dict[str, Any]:
    """What config.json says of the architecture."""
    return {name: getattr(config, own) for name, (own, _) in _FIELDS.items()} | {
        "image_size": config.image_size,
        "patch_size": config.stem,
        "hidden_size": config.hidden_sizes[-1],
        "num_layers": len(config.depths),
    }


def check(tensors: dict[str, np.ndarray], config: SwinConfig, source: Path) -> None:
    """Raises a ValueError where the tensors have other stages."""
    families.check_stages(tensors, config.depths, source)


def resized(params: Params, stored: SwinConfig, config: SwinConfig) -> Params:
    """The same, for nothing but embedded positions depends on the size.

    Raises:
      ValueError: positions are embedded, of another grid.
    """
    if stored.absolute and stored.patches != config.patches:
        raise ValueError(
            f"use_absolute_embeddings: the positions are those of images of {stored.image_size} "
            f"px, and images of {config.image_size} px were asked for: leave image_size out"
        )
    return params


_BLOCK, _LAYER = r"backbone/stages/(\d+)/(\d+)/", r"swin.encoder.layers.\1.blocks.\2."
_RULES = [
    *names.linear("head", HEAD),
    *names.convolution("backbone/stem", "swin.embeddings.patch_embeddings.projection"),
    *names.norm("backbone/norm", "swin.embeddings.norm"),
    names.Rule("backbone/position_embedding", "swin.embeddings.position_embeddings"),
    *names.norm("backbone/last_norm", "swin.layernorm"),
    *names.linear(_BLOCK + "attention/(query|key|value)", _LAYER + r"attention.self.\3"),
    *names.linear(_BLOCK + "attention/out", _LAYER + "attention.output.dense"),
    names.Rule(_BLOCK + "distances", _LAYER + "attention.self.relative_position_bias_table"),
    *names.norm(_BLOCK + "norm1", _LAYER + "layernorm_before"),
    *names.norm(_BLOCK + "norm2", _LAYER + "layernorm_after"),
    *names.linear(_BLOCK + "mlp/fc1", _LAYER + "intermediate.dense"),
    *names.linear(_BLOCK + "mlp/fc2", _LAYER + "output.dense"),
    *names.norm(r"backbone/mergings/(\d+)/norm", r"swin.encoder.layers.\1.downsample.norm"),
    *names.linear(
        r"backbone/mergings/(\d+)/reduction", r"swin.encoder.layers.\1.downsample.reduction"
    ),
]


def rules(config: SwinConfig) -> list[names.Rule]:
    """Names here and there."""
    return _RULES


def ignored(config: SwinConfig) -> str:
    """Numbers that follow from the window, and the token of masked pre-training."""
    return r".*\.relative_position_index|swin\.embeddings\.mask_token"
