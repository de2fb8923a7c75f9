"""ResNet (He et al., 2016), as `ResNetForImageClassification` of transformers."""

import dataclasses
from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike

from fex_jax import checks, families
from fex_jax.families import BatchNorm, convolution
from fex_jax.families import rules as names
from fex_jax.models.activations import ACTIVATIONS, NAMED

ARCHITECTURES = {"resnet": ("ResNetForImageClassification", "ResNetModel")}
PROCESSORS = {"resnet": "ConvNext"}
HEAD = "classifier.1"
head = families.head
_DEFAULTS: dict[str, Any] = {
    "image_size": 224,  # config.json has none: the preprocessor decides
    "num_channels": 3,
    "embedding_size": 64,
    "hidden_sizes": [256, 512, 1024, 2048],
    "depths": [3, 4, 6, 3],
    "layer_type": "bottleneck",
    "hidden_act": "relu",
    "downsample_in_first_stage": False,
    "downsample_in_bottleneck": False,
}
_CHECKS = families.STAGES | {
    "embedding_size": checks.integer(1, 2**14),
    "layer_type": checks.one_of("bottleneck", "basic"),
    "hidden_act": NAMED,
    "downsample_in_first_stage": checks.flag(),
    "downsample_in_bottleneck": checks.flag(),
}


@dataclasses.dataclass(frozen=True)
class ResNetConfig(families.Grid):
    """Architecture of a ResNet."""

    image_size: int | tuple[int, int]
    num_classes: int
    embedding_size: int
    hidden_sizes: tuple[int, ...]  # channels that each stage gives
    depths: tuple[int, ...]  # blocks of each stage
    layer_type: str = "bottleneck"  # or "basic"
    downsample_in_first_stage: bool = False
    downsample_in_bottleneck: bool = False  # by the first, not the second convolution of a block
    num_channels: int = 3
    hidden_act: str = "relu"  # of `ACTIVATIONS`
    family: ClassVar[str] = "resnet"

    def classifier(self, *, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs) -> families.OfMean:
        """The network."""
        return families.OfMean(self, self.encoder(dtype=dtype, rngs=rngs), rngs)

    def encoder(
        self, *, dtype: DTypeLike = jnp.float32, remat: bool = False, rngs: nnx.Rngs
    ) -> "_Backbone":
        """All of it but the head."""
        return _Backbone(self, dtype, remat, rngs)


class _Layer(nnx.Module):
    """A convolution without bias, and a batch normalisation."""

    def __init__(
        self, inputs: int, outputs: int, side: int, stride: int, dtype: DTypeLike, rngs: nnx.Rngs
    ):
        self.convolution = convolution(
            inputs, outputs, side, stride, bias=False, dtype=dtype, rngs=rngs
        )
        self.norm = BatchNorm(outputs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.norm(self.convolution(x))


class _Block(nnx.Module):
    """Two or three convolutions beside a residual path: [B, H, W, C] → [B, H', W', C']."""

    def __init__(
        self,
        config: ResNetConfig,
        inputs: int,
        outputs: int,
        stride: int,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        if config.layer_type == "basic":
            shapes = [(inputs, outputs, 3, stride), (outputs, outputs, 3, 1)]
        else:
            inner = outputs // 4
            first, second = (stride, 1) if config.downsample_in_bottleneck else (1, stride)
            shapes = [(inputs, inner, 1, first), (inner, inner, 3, second), (inner, outputs, 1, 1)]
        self.layers = nnx.List([_Layer(*shape, dtype, rngs) for shape in shapes])
        self.activation = ACTIVATIONS[config.hidden_act]
        changes = inputs != outputs or stride != 1
        self.shortcut = _Layer(inputs, outputs, 1, stride, dtype, rngs) if changes else None

    def __call__(self, x: jax.Array) -> jax.Array:
        shortcut = x if self.shortcut is None else self.shortcut(x)
        *first, last = self.layers
        for layer in first:
            x = jax.nn.relu(layer(x))  # in transformers, whatever the activation
        return self.activation(last(x) + shortcut)


class _Backbone(families.Backbone):
    """The last stage's h is about H / 32."""

    def __init__(self, config: ResNetConfig, dtype: DTypeLike, remat: bool, rngs: nnx.Rngs):
        self.config, self.remat = config, remat
        width, self.activation = config.embedding_size, ACTIVATIONS[config.hidden_act]
        self.stem = _Layer(config.num_channels, width, 7, 2, dtype, rngs)
        stages = []
        for number, (outputs, depth) in enumerate(
            zip(config.hidden_sizes, config.depths, strict=True)
        ):
            stride = 2 if number or config.downsample_in_first_stage else 1
            shapes = [(width, outputs, stride)] + [(outputs, outputs, 1)] * (depth - 1)
            stages.append(nnx.List([_Block(config, *shape, dtype, rngs) for shape in shapes]))
            width = outputs
        self.stages = nnx.List(stages)

    def feature_maps(self, images: jax.Array) -> list[jax.Array]:
        """Those of each stage."""
        run = nnx.remat(_Block.__call__) if self.remat else _Block.__call__
        x = self.activation(self.stem(images))
        x = nnx.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))
        found = []
        for stage in self.stages:
            for block in stage:
                x = run(block, x)
            found.append(x)
        return found


# --- Hugging Face files --------------------------------------------------------------------------


CONFIG, SIZES = ResNetConfig, _CHECKS


def read_config(hf_config: dict[str, Any], num_classes: int, source: Path) -> ResNetConfig:
    """config.json; the preprocessor says the size in pixels."""
    values = _DEFAULTS | hf_config
    checks.require(values, _CHECKS, source / "config.json")
    fields = {field.name for field in dataclasses.fields(ResNetConfig)} & values.keys()
    found = {name: values[name] for name in fields} | {
        "image_size": 224,
        "hidden_sizes": tuple(values["hidden_sizes"]),
        "depths": tuple(values["depths"]),
    }
    return ResNetConfig(num_classes=num_classes, **found)


def write_config(config: ResNetConfig) -> dict[str, Any]:
    """What config.json says of the architecture."""
    return {name: getattr(config, name) for name in _DEFAULTS if name != "image_size"}


def check(tensors: dict[str, np.ndarray], config: ResNetConfig, source: Path) -> None:
    """Raises a ValueError where the tensors have other stages."""
    families.check_stages(tensors, config.depths, source)


_BLOCK, _HF_BLOCK = r"backbone/stages/(\d+)/(\d+)/", r"resnet.encoder.stages.\1.layers.\2."
_RULES = [
    *names.linear("head", HEAD),
    *(
        rule
        for ours, theirs in (
            ("backbone/stem", "resnet.embedder.embedder"),
            (_BLOCK + r"layers/(\d+)", _HF_BLOCK + r"layer.\3"),
            (_BLOCK + "shortcut", _HF_BLOCK + "shortcut"),
        )
        for rule in (
            *names.convolution(f"{ours}/convolution", f"{theirs}.convolution"),
            *names.norm(f"{ours}/norm", f"{theirs}.normalization"),
            names.Rule(f"{ours}/norm/mean", f"{theirs}.normalization.running_mean"),
            names.Rule(f"{ours}/norm/var", f"{theirs}.normalization.running_var"),
        )
    ),
]


def rules(config: ResNetConfig) -> list[names.Rule]:
    """Names here and there."""
    return _RULES


def ignored(config: ResNetConfig) -> str:
    """How many batches training saw."""
    return r".*\.num_batches_tracked"
