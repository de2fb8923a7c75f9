"""What a vision transformer's classification head reads, the heads, and what a map head reads.

Shapes: B images, P prefix tokens, N patches, D hidden size, K classes.
"""

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from flax import nnx

if TYPE_CHECKING:
    from fex_jax.models.vit import ViT, ViTConfig


class TwoHeads(nnx.Module):
    """The mean of DeiT's two heads, on CLS and on the distillation token: [B, 2 D] -> [B, K].

    Touvron et al., 2021, section 4.
    """

    def __init__(self, width: int, num_classes: int, rngs: nnx.Rngs):
        self.cls = nnx.Linear(width, num_classes, dtype=jnp.float32, rngs=rngs)
        self.distillation = nnx.Linear(width, num_classes, dtype=jnp.float32, rngs=rngs)

    def __call__(self, tokens: jax.Array) -> jax.Array:
        first, second = jnp.split(tokens, 2, axis=-1)
        return (self.cls(first) + self.distillation(second)) / 2

    @property
    def kernel(self) -> jax.Array:
        """[2 D, K] of the one linear layer that they are together."""
        return jnp.concatenate([self.cls.kernel[...], self.distillation.kernel[...]]) / 2


def head(config: "ViTConfig", rngs: nnx.Rngs) -> nnx.Linear | TwoHeads:
    """Classification head in float32, of what `summary` returns."""
    if config.distilled:
        return TwoHeads(config.hidden_size, config.num_classes, rngs)
    width = config.hidden_size * (2 if config.is_dinov2 else 1)
    return nnx.Linear(width, config.num_classes, dtype=jnp.float32, rngs=rngs)


def summary(config: "ViTConfig", tokens: jax.Array) -> jax.Array:
    """What the head reads of the last tokens [B, P + N, D]: CLS [B, D], or two tokens [B, 2 D].

    DINOv2's reads the mean patch token, too; DeiT's with teacher the distillation token.
    """
    if config.distilled:
        return tokens[:, :2].reshape(tokens.shape[0], -1)
    if not config.is_dinov2:
        return tokens[:, 0]
    patches = tokens[:, config.num_prefix_tokens :].mean(axis=1)
    return jnp.concatenate([tokens[:, 0], patches], axis=-1)


def wide(vit: "ViT", images: jax.Array) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    """Tokens [B, T, D], and of each patch its token, which class it is about (CLS and the mean
    patch token, [B, 1, 2 D]), and where, its token at 1/2 and 3/4 of the depth, normalised.
    """
    inner = []  # what each block reads

    def keep(name: str, value: jax.Array) -> jax.Array:
        if name == "hidden":
            inner.append(value)
        return value

    tokens = vit(images, keep).astype(jnp.float32)
    first, depth = vit.first_feature, vit.config.num_layers
    patches = tokens[:, first:]
    earlier = [
        jax.nn.standardize(inner[block][:, first:].astype(jnp.float32))
        for block in (depth // 2, depth * 3 // 4)
    ]
    everywhere = jnp.concatenate([tokens[:, :1], patches.mean(1, keepdims=True)], -1)
    return tokens, (patches, everywhere, *earlier)
