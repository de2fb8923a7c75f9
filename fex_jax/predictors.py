"""The classifier f as functions of its inputs: what an explainer may query, and what is inside."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from fex_jax import masking
from fex_jax.models import Params, functional
from fex_jax.models.vit import ViTClassifier, ViTConfig

Inputs = Any  # an array [B, ...], or a pytree of them


@dataclasses.dataclass(frozen=True)
class Model:
    """A classifier with its parameters bound, as training, attributions and metrics see it.

    FEX and the methods that only query use the first three; a model behind an API has no others.
    """

    predict: Callable[[Inputs], jax.Array]  # inputs → probabilities [B, K]
    mask: Callable[[Inputs, jax.Array], Inputs]  # (inputs, masks [B, N]) → without features at 0
    grid: tuple[int, ...]  # how the N features lie: (rows, columns) of patches, or (N,)

    # For gradients with respect to the input, or to what stands for it.
    embed: Callable[[Inputs], jax.Array] | None = None  # inputs → x [B, ...]
    logits: Callable[[jax.Array, Inputs], jax.Array] | None = None  # (x, inputs) → [B, K]
    pool: Callable[[jax.Array], jax.Array] | None = None  # like x → [B, N], sums over a feature

    # For attention and relevance: network(inputs, tap) → logits; see `models.Tap`.
    network: nnx.Module | None = None
    tokens: Callable[[jax.Array], jax.Array] | None = None  # [B, T] → the features' tokens [B, N]

    @property
    def num_features(self) -> int:
        """N."""
        size = 1
        for length in self.grid:
            size *= length
        return size


def vit(
    config: ViTConfig, params: Params, fill: float = 0.0, dtype: jnp.dtype = jnp.float32
) -> Model:
    """A ViT on normalised images [B, H, W, C]; a removed patch becomes `fill`."""
    _, bind = functional(lambda rngs: ViTClassifier(config, dtype=dtype, rngs=rngs))
    network = bind(params)

    def mask(images: jax.Array, masks: jax.Array) -> jax.Array:
        return masking.patches(images, masks.reshape(-1, *config.grid), fill)

    def pool(values: jax.Array) -> jax.Array:
        side = config.patch_size
        cells = values.reshape(len(values), config.grid[0], side, config.grid[1], -1)
        return cells.sum((2, 4)).reshape(len(values), -1)

    return Model(
        predict=lambda images: jax.nn.softmax(network(images)),
        mask=mask,
        grid=config.grid,
        embed=lambda images: images,
        logits=lambda images, _: network(images),
        pool=pool,
        network=network,
        tokens=lambda values: values[:, config.num_prefix_tokens :],
    )
