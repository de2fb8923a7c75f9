"""Vision transformers: ViT, DeiT and DINOv2, also with registers, with a classification head.

Shapes: B images, H height, W width, C channels, N patches, P prefix tokens, T = P + N tokens,
D hidden size, K classes.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Literal, get_args

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from fex_jax.models import Tap, no_tap, sides
from fex_jax.models.activations import ACTIVATIONS
from fex_jax.models.vit_head import head, summary, wide

Family = Literal["vit", "deit", "dinov2", "dinov2_with_registers"]


@dataclasses.dataclass(frozen=True)
class ViTConfig:
    """Architecture of a vision transformer; sides in pixels.

    With `swiglu`, the gated MLP's inner size is two thirds of `mlp_dim`, as in DINOv2 giant.
    """

    family: Family
    image_size: int | tuple[int, int]  # (height, width) where it is not square
    patch_size: int
    num_classes: int
    hidden_size: int
    num_layers: int
    num_heads: int
    mlp_dim: int
    num_channels: int = 3
    layer_norm_eps: float = 1e-6
    qkv_bias: bool = True
    swiglu: bool = False
    num_registers: int = 0  # tokens without a place, between CLS and the patches
    activation: str = "gelu"  # of `ACTIVATIONS`; with `swiglu` unused
    # Of a DeiT, whether its second head, which learned from a teacher, is there. The digests of all
    # other models are of a `repr` without it.
    distilled: bool = dataclasses.field(default=False, repr=False)

    def __post_init__(self) -> None:
        if self.family not in get_args(Family):
            raise ValueError(f"family {self.family!r} is not one of {', '.join(get_args(Family))}")
        for name, value in dataclasses.asdict(self).items():
            least = 0 if name == "num_registers" else 1
            if isinstance(value, int) and not isinstance(value, bool) and value < least:
                raise ValueError(f"{name} must be at least {least}, got {value}")
        if self.num_registers and self.family != "dinov2_with_registers":
            raise ValueError(f"a {self.family} has no registers, got {self.num_registers}")
        for side in sides(self.image_size):
            if side % self.patch_size:
                below = max(side // self.patch_size, 1) * self.patch_size
                raise ValueError(
                    f"image_size {side} is not a multiple of patch_size {self.patch_size}; "
                    f"the nearest that are: {below} and {below + self.patch_size}"
                )
        if self.hidden_size % self.num_heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} does not divide into {self.num_heads} heads"
            )
        if self.is_dinov2 and self.mlp_dim % self.hidden_size:
            raise ValueError(
                f"mlp_dim {self.mlp_dim} is not a multiple of hidden_size {self.hidden_size}, "
                "as it is in DINOv2"
            )
        if self.swiglu and not self.is_dinov2:
            raise ValueError(f"swiglu is for dinov2 only, not {self.family}")
        if self.distilled and self.family != "deit":
            raise ValueError(f"a {self.family} has no head that learned from a teacher")

    def classifier(self, *, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs) -> "ViTClassifier":
        """The network."""
        return ViTClassifier(self, dtype=dtype, rngs=rngs)

    @property
    def grid(self) -> tuple[int, int]:
        """(rows, columns) of patches."""
        height, width = sides(self.image_size)
        return height // self.patch_size, width // self.patch_size

    @property
    def num_patches(self) -> int:
        """N, the number of patch tokens."""
        return self.grid[0] * self.grid[1]

    @property
    def num_prefix_tokens(self) -> int:
        """P, the tokens before the patches: CLS, in DeiT the distillation token, registers."""
        return (2 if self.family == "deit" else 1) + self.num_registers

    @property
    def wide_size(self) -> int:
        """Numbers that `ViT.read_more` gives of a patch."""
        return 5 * self.hidden_size

    @property
    def is_dinov2(self) -> bool:
        """Whether its blocks and its head are DINOv2's."""
        return self.family.startswith("dinov2")


class Linear(nnx.Linear):
    """A linear layer on the last axis, computed on one matrix of all rows.

    With several leading axes the weights' gradient contracts over all of them, which XLA's CPU
    backend does at half the speed of a plain matrix product.
    """

    def __call__(self, x: jax.Array) -> jax.Array:
        return super().__call__(x.reshape(-1, x.shape[-1])).reshape(*x.shape[:-1], -1)


class PatchEmbedding(nnx.Module):
    """Linear embedding of non-overlapping patches: [B, H, W, C] -> [B, N, D]."""

    def __init__(self, config: ViTConfig, *, dtype: DTypeLike, rngs: nnx.Rngs):
        self.config = config
        numbers = config.patch_size**2 * config.num_channels
        self.projection = Linear(numbers, config.hidden_size, dtype=dtype, rngs=rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        config, (rows, columns) = self.config, self.config.grid
        wanted = (*sides(config.image_size), config.num_channels)
        if images.shape[1:] != wanted:
            raise ValueError(
                f"images must be [B, {', '.join(map(str, wanted))}], got {images.shape}"
            )
        # Strided convolution as reshape and matmul: same numbers, faster on CPU.
        patches = images.reshape(
            -1, rows, config.patch_size, columns, config.patch_size, config.num_channels
        )  # [B, rows, p, columns, p, C]
        patches = patches.swapaxes(2, 3).reshape(images.shape[0], config.num_patches, -1)
        return self.projection(patches)  # [B, N, D]


class Attention(nnx.Module):
    """Multi-head self-attention: [B, T, D] -> [B, T, D]; softmax in float32."""

    def __init__(
        self,
        size: int,
        num_heads: int,
        *,
        qkv_bias: bool = True,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        self.num_heads = num_heads
        linear = partial(Linear, size, size, dtype=dtype, rngs=rngs)
        self.query = linear(use_bias=qkv_bias)
        self.key = linear(use_bias=qkv_bias)
        self.value = linear(use_bias=qkv_bias)
        self.out = linear()

    def __call__(
        self, tokens: jax.Array, tap: Tap = no_tap, bias: jax.Array | None = None
    ) -> jax.Array:
        """`bias`, which broadcasts to [B, heads, T, T], is added to the scores."""
        # Heads before tokens: XLA's CPU matmuls run a third faster than on [B, T, heads, d].
        query, key, value = (
            self._split_heads(layer(tokens)) for layer in (self.query, self.key, self.value)
        )  # [B, heads, T, d]
        wide = jnp.promote_types(query.dtype, jnp.float32)
        scores = jnp.matmul(query, key.mT, preferred_element_type=wide)
        scores = scores * query.shape[-1] ** -0.5
        weights = jax.nn.softmax(scores if bias is None else scores + bias)  # [B, heads, T, T]
        weights = tap("attention", weights)
        mixed = jnp.matmul(weights.astype(value.dtype), value).swapaxes(1, 2)
        return self.out(mixed.reshape(tokens.shape))

    def _split_heads(self, tokens: jax.Array) -> jax.Array:
        return tokens.reshape(*tokens.shape[:2], self.num_heads, -1).swapaxes(1, 2)


class Mlp(nnx.Module):
    """Feed-forward layer with one of `ACTIVATIONS`, or SwiGLU: [B, T, D] -> [B, T, D]."""

    def __init__(
        self,
        size: int,
        inner: int,
        swiglu: bool = False,
        activation: str = "gelu",
        *,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        self.swiglu, self.activation = swiglu, ACTIVATIONS[activation]
        if swiglu:
            # Two thirds keep the parameter count of a plain MLP; DINOv2 rounds up to eights.
            inner = (inner * 2 // 3 + 7) // 8 * 8
        wide = 2 * inner if swiglu else inner  # gate and values in one matmul
        self.fc1 = Linear(size, wide, dtype=dtype, rngs=rngs)
        self.fc2 = Linear(inner, size, dtype=dtype, rngs=rngs)

    def __call__(self, tokens: jax.Array) -> jax.Array:
        hidden = self.fc1(tokens)
        if self.swiglu:
            gate, values = jnp.split(hidden, 2, axis=-1)
            return self.fc2(jax.nn.silu(gate) * values)
        return self.fc2(self.activation(hidden))


class LayerScale(nnx.Module):
    """Learned gain per feature, in DINOv2 only: [B, T, D] -> [B, T, D]."""

    def __init__(self, size: int):
        self.scale = nnx.Param(jnp.ones(size))

    def __call__(self, tokens: jax.Array) -> jax.Array:
        return tokens * self.scale[...].astype(tokens.dtype)


class Block(nnx.Module):
    """Pre-norm transformer block: [B, T, D] -> [B, T, D]."""

    def __init__(self, config: ViTConfig, *, dtype: DTypeLike, rngs: nnx.Rngs):
        size = config.hidden_size
        self.norm1 = layer_norm(size, config.layer_norm_eps, rngs)
        self.attention = Attention(
            size, config.num_heads, qkv_bias=config.qkv_bias, dtype=dtype, rngs=rngs
        )
        self.norm2 = layer_norm(size, config.layer_norm_eps, rngs)
        inner = config.mlp_dim, config.swiglu, config.activation
        self.mlp = Mlp(size, *inner, dtype=dtype, rngs=rngs)
        if config.is_dinov2:
            self.scale1 = LayerScale(config.hidden_size)
            self.scale2 = LayerScale(config.hidden_size)
        else:
            self.scale1 = self.scale2 = None

    def __call__(self, tokens: jax.Array, tap: Tap = no_tap) -> jax.Array:
        update = self.attention(tap("norm1", self.norm1(tokens)), tap)
        tokens = tokens + (self.scale1(update) if self.scale1 else update)
        update = self.mlp(self.norm2(tokens))
        return tokens + (self.scale2(update) if self.scale2 else update)


class ViT(nnx.Module):
    """Vision transformer: normalised images [B, H, W, C] -> tokens [B, P + N, D] after the norm.

    Parameters are float32 and matmuls run in `dtype`; `remat` recomputes each block in the
    backward pass, trading time for memory.
    """

    def __init__(
        self,
        config: ViTConfig,
        *,
        dtype: DTypeLike = jnp.float32,
        remat: bool = False,
        rngs: nnx.Rngs,
    ):
        self.config = config
        self.first_feature = config.num_prefix_tokens
        self.dtype = dtype
        self.remat = remat
        self.patch_embedding = PatchEmbedding(config, dtype=dtype, rngs=rngs)
        self.cls_token = nnx.Param(jnp.zeros((1, 1, config.hidden_size)))
        if config.family == "deit":
            self.distillation_token = nnx.Param(jnp.zeros((1, 1, config.hidden_size)))
        if config.num_registers:
            registers = jnp.zeros((1, config.num_registers, config.hidden_size))
            self.register_tokens = nnx.Param(registers)
        num_tokens = config.num_prefix_tokens - config.num_registers + config.num_patches
        shape = (1, num_tokens, config.hidden_size)
        self.position_embedding = nnx.Param(0.02 * jax.random.normal(rngs.params(), shape))
        self.blocks = stack(
            lambda rngs: Block(config, dtype=dtype, rngs=rngs), config.num_layers, rngs
        )
        self.norm = layer_norm(config.hidden_size, config.layer_norm_eps, rngs)

    def __call__(self, images: jax.Array, tap: Tap = no_tap) -> jax.Array:
        run = nnx.remat(Block.__call__, static_argnums=2) if self.remat else Block.__call__
        tokens = self.embed(images)
        for block in self.blocks:  # tapped out here, where `remat` lets values out
            tokens = run(block, tap("hidden", tokens), tap)
        return tap("output", self.norm(tokens))

    def read_more(self, images: jax.Array) -> tuple[jax.Array, tuple[jax.Array, ...]]:
        """Tokens, and what a wide map head reads of patches; see `vit_head.wide`."""
        return wide(self, images)

    def embed(self, images: jax.Array) -> jax.Array:
        """The first block's input: normalised images [B, H, W, C] -> tokens [B, P + N, D]."""
        patches = self.patch_embedding(images)
        prefix = [self.cls_token[...]]
        if self.config.family == "deit":
            prefix.append(self.distillation_token[...])
        prefix = jnp.concatenate(prefix, axis=1).astype(self.dtype)  # [1, P, D]
        prefix = jnp.broadcast_to(prefix, (images.shape[0], *prefix.shape[1:]))
        tokens = jnp.concatenate([prefix, patches], axis=1)  # [B, P + N, D]
        tokens = tokens + self.position_embedding[...].astype(self.dtype)
        if not self.config.num_registers:
            return tokens
        registers = self.register_tokens[...].astype(self.dtype)
        registers = jnp.broadcast_to(registers, (images.shape[0], *registers.shape[1:]))
        return jnp.concatenate([tokens[:, :1], registers, tokens[:, 1:]], axis=1)


class ViTClassifier(nnx.Module):
    """Vision transformer with a linear head: normalised images [B, H, W, C] -> logits [B, K]."""

    def __init__(
        self,
        config: ViTConfig,
        *,
        dtype: DTypeLike = jnp.float32,
        remat: bool = False,
        rngs: nnx.Rngs,
    ):
        self.config = config
        self.backbone = ViT(config, dtype=dtype, remat=remat, rngs=rngs)
        self.head = head(config, rngs)

    def __call__(self, images: jax.Array, tap: Tap = no_tap) -> jax.Array:
        return self.head(summary(self.config, self.backbone(images, tap)))


def stack(
    build: Callable[[nnx.Rngs], nnx.Module], depth: int, rngs: nnx.Rngs
) -> nnx.List[nnx.Module]:
    """`depth` modules of one kind, each with its own parameters."""
    # One draw per kind of parameter, for all blocks: XLA compiles each random draw for tenths of
    # a second, so that drawing block by block multiplies the time that initialisation takes.
    stacked = nnx.vmap(lambda key: build(nnx.Rngs(key)))(jax.random.split(rngs.params(), depth))
    graphdef, state = nnx.split(stacked)
    return nnx.List(
        [nnx.merge(graphdef, jax.tree.map(lambda x, i=i: x[i], state)) for i in range(depth)]
    )


def layer_norm(size: int, epsilon: float, rngs: nnx.Rngs, bias: bool = True) -> nnx.LayerNorm:
    """LayerNorm in float32, [..., size]."""
    # The one-pass variance loses digits on a transformer's few very large activations.
    kind = {"dtype": jnp.float32, "use_fast_variance": False, "use_bias": bias}
    return nnx.LayerNorm(size, epsilon=epsilon, **kind, rngs=rngs)
