"""Families of classifiers, a file each, named by model_type: config, network, weight rules.

Beside them, `hub` finds, reads and writes Hugging Face directories, and `rules` converts the names
and layouts of tensors. A family's module has

    ARCHITECTURES  by model_type, the classes of transformers that can be read; the first is written
    read_config(hf_config, num_classes, source) -> config, of the size in pixels that is stored
    write_config(config) -> what config.json says of it
    head(config, rngs) -> the network's head, of first values
    check(tensors, config, source), before anything of the config's sizes is built
    rules(config) -> `families.rules.Rule`s; ignored(config) -> a regex of tensors without use

and, of images,

    PROCESSORS     by model_type, the image processor of a preprocessor_config.json that names none
    HEAD           the classification layer's names in Hugging Face files, with | between them
    resized(params, stored, config), where parameters depend on the images' size
    CONFIG, SIZES  of `GRIDS`, the config's class, and checks of its fields that explainer.json has

A config is a frozen data class with family, image_size, patch_size, grid, num_classes and
num_channels, and `classifier(dtype=..., rngs=...)`, its network: normalised images [B, H, W, C] ->
logits [B, K]. Of `GRIDS` it also has `encoder(...)`, as of texts, a `Backbone`. Of texts

    HEAD           by model_type, the name of the last layer in Hugging Face files
    PREFIX         by model_type, what the names of a bare backbone's tensors lack
    OUTSIDE        a regex of the tensors that are none of the backbone's
    CONFIG, SIZES  the config's class, and checks of the fields that only it has

A config has family, num_classes, vocab_size, max_length, pad_id, hidden_size and num_layers,
`classifier(dtype=..., remat=..., rngs=...)`, a network like `models.bert.BertClassifier`, and
`encoder(...)`, that network's backbone.

Here is what convolutional ones share. Their features are square cells of the image.
"""

import importlib
import math
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike

from fex_jax import checks
from fex_jax.models import Tap, no_tap, sides

# By model_type, the module. A new family is a file here and a line.
GRIDS = {  # of images, that give a feature map of each of their stages
    "resnet": "resnet",
    "convnext": "convnext",
    "swin": "swin",
}
IMAGES = {
    "vit": "vit",
    "deit": "vit",
    "dinov2": "vit",
    "dinov2_with_registers": "vit",
} | GRIDS
TEXTS = {
    "bert": "bert",
    "distilbert": "bert",
    "roberta": "bert",
    "xlm-roberta": "bert",
    "electra": "bert",
    "camembert": "bert",
    "modernbert": "modernbert",
    "deberta-v2": "deberta",
}
MODULES = IMAGES | TEXTS
LARGEST_CELL = 16  # pixels a side
STAGES = {
    "num_channels": checks.one_of(3),
    "hidden_sizes": checks.several(checks.integer(1, 2**14), at_least=1),
    "depths": checks.several(checks.integer(1, 256), at_least=1),
}


def of(model_type: str) -> ModuleType:
    """The module of a family."""
    return importlib.import_module(f"{__name__}.{MODULES[model_type]}")


def cell(config: Any) -> int:
    """Pixels a side of a cell of a config's images: as many as divide both sides, up to 16."""
    common = math.gcd(*sides(config.image_size))
    return max(side for side in range(1, LARGEST_CELL + 1) if common % side == 0)


def cells(config: Any) -> tuple[int, int]:
    """(rows, columns) of cells of a config's images."""
    height, width = sides(config.image_size)
    return height // cell(config), width // cell(config)


def convolution(
    inputs: int,
    outputs: int,
    side: int,
    stride: int = 1,
    *,
    padding: int | None = None,
    groups: int = 1,
    bias: bool = True,
    dtype: DTypeLike,
    rngs: nnx.Rngs,
) -> nnx.Conv:
    """[B, H, W, inputs] → [B, H', W', outputs]; padded on both sides as torch does, by half."""
    margin = side // 2 if padding is None else padding
    return nnx.Conv(
        inputs,
        outputs,
        (side, side),
        strides=stride,
        padding=((margin, margin),) * 2,
        feature_group_count=groups,
        use_bias=bias,
        dtype=dtype,
        rngs=rngs,
    )


def head(config: Any, rngs: nnx.Rngs) -> nnx.Linear:
    """Classification head in float32, on the last stage's channels."""
    size = config.hidden_sizes[-1]
    return nnx.Linear(size, config.num_classes, dtype=jnp.float32, rngs=rngs)


class Grid:
    """What a config with an image_size, hidden_sizes and depths of stages has besides."""

    patch_size, grid = property(cell), property(cells)

    def __post_init__(self: Any) -> None:
        if len(self.hidden_sizes) != len(self.depths):
            raise ValueError(
                f"hidden_sizes {list(self.hidden_sizes)} are not as many as depths "
                f"{list(self.depths)}"
            )

    @property
    def hidden_size(self: Any) -> int:
        """Channels of the last stage."""
        return self.hidden_sizes[-1]

    @property
    def num_layers(self: Any) -> int:
        """Blocks of all stages."""
        return sum(self.depths)

    @property
    def wide_size(self: Any) -> int:
        """Numbers that `Backbone.read_more` gives of a cell."""
        return 2 * self.hidden_size + self.hidden_sizes[-2:][0]


class Backbone(nnx.Module):
    """Normalised images [B, H, W, C] → tokens [B, 1 + N, D]: the map's mean, then its cells.

    A family's has `config`, a `Grid`, and feature_maps(images) → [B, h, w, C] of each stage; of the
    last as the head reads them.
    """

    first_feature = 1
    config: Any
    feature_maps: Callable[[jax.Array], list[jax.Array]]

    def __call__(self, images: jax.Array) -> jax.Array:
        return self._tokens(self.feature_maps(images)[-1])

    def read_more(self, images: jax.Array) -> tuple[jax.Array, tuple[jax.Array, ...]]:
        """Tokens, and of each cell its own, the mean of all [B, 1, D], and what the stage before
        the last one says there, twice as finely, normalised [B, N, C].
        """
        before, last = (2 * self.feature_maps(images))[-2:]  # of one stage, itself
        tokens = self._tokens(last)
        return tokens, (tokens[:, 1:], tokens[:, :1], jax.nn.standardize(self._over_cells(before)))

    def _tokens(self, feature_map: jax.Array) -> jax.Array:
        mean = feature_map.astype(jnp.float32).mean((1, 2))
        return jnp.concatenate([mean[:, None], self._over_cells(feature_map)], 1)

    def _over_cells(self, feature_map: jax.Array) -> jax.Array:
        """[B, h, w, C] → [B, N, C], float32: cells of images are seldom those of a feature map."""
        batch, *_, channels = feature_map.shape  # the batch may be symbolic: of an export
        shape = batch, *self.config.grid, channels
        cells = jax.image.resize(feature_map.astype(jnp.float32), shape, "linear")
        return cells.reshape(batch, -1, channels)


class OfMean(nnx.Module):
    """Normalised images [B, H, W, C] → logits [B, K], of the mean of a backbone's cells."""

    def __init__(self, config: Any, backbone: Backbone, rngs: nnx.Rngs):
        self.config, self.backbone = config, backbone
        self.head = head(config, rngs)

    def __call__(self, images: jax.Array, tap: Tap = no_tap) -> jax.Array:
        cells = tap("feature_map", self.backbone.feature_maps(images)[-1].astype(jnp.float32))
        return self.head(cells.mean((1, 2)))


class BatchNorm(nnx.Module):
    """(x − mean) / √(var + ε) · scale + bias, by statistics that never change; [..., C]."""

    def __init__(self, size: int):
        self.scale, self.var = nnx.Param(jnp.ones(size)), nnx.Param(jnp.ones(size))
        self.bias, self.mean = nnx.Param(jnp.zeros(size)), nnx.Param(jnp.zeros(size))

    def __call__(self, x: jax.Array) -> jax.Array:
        mean, var = map(jax.lax.stop_gradient, (self.mean[...], self.var[...]))
        return (x - mean) * (self.scale[...] * jax.lax.rsqrt(var + 1e-5)) + self.bias[...]


def check_stages(tensors: dict[str, np.ndarray], depths: tuple[int, ...], source: Path) -> None:
    """Compares a config's stages with the tensors'.

    Raises:
      ValueError: they have others.
    """
    found: dict[int, set[int]] = {}
    for name in tensors:
        if match := re.search(r"\.(?:stages|layers)\.(\d+)\.(?:layers|blocks)\.(\d+)\.", name):
            found.setdefault(int(match[1]), set()).add(int(match[2]))
    stored = [len(found[stage]) for stage in sorted(found)]
    if stored != list(depths):
        raise ValueError(
            f"config.json in {source} says depths {list(depths)}, but its tensors have stages of "
            f"{stored} layers"
        )


def fields(
    values: dict[str, Any], known: dict[str, tuple[str, checks.Check]], where: Path
) -> dict[str, Any]:
    """Fields of a config, by our names, from a config.json's, checked.

    Args:
      values: of config.json.
      known: by their names there, ours and what they may be.
      where: the file, for errors.

    Raises:
      ValueError: names the first that does not fit.
    """
    checks.require(values, {name: check for name, (_, check) in known.items()}, where)
    return {own: values[name] for name, (own, _) in known.items() if name in values}


def side_of(values: dict[str, Any], name: str) -> int:
    """A side from one number, or from two that are equal."""
    value = values[name]
    if isinstance(value, int):
        return value
    if len(set(value)) != 1:
        raise ValueError(f"only square patches are supported, got {name} {value}")
    return value[0]


def size_of(values: dict[str, Any]) -> int | tuple[int, int]:
    """image_size as configs have it: one number of a square, else (height, width)."""
    value = values["image_size"]
    if isinstance(value, int):
        return value
    height, width = value
    return height if height == width else (height, width)
