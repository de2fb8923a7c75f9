"""Removing features from inputs: the only thing the method does to the data."""

import jax
import jax.numpy as jnp

from fex_jax.token_batch import TokenBatch


def patches(images: jax.Array, masks: jax.Array, fill: jax.Array | float = 0.0) -> jax.Array:
    """Images whose patches with mask 0 are replaced by `fill` (m ⊙ x for fill 0).

    Args:
      images: normalised images [B, H, W, C].
      masks: 1 = kept, 0 = removed, one row-major entry per cell of a grid [B, rows, cols].
      fill: a number, or one value per channel [C].

    Returns:
      [B, H, W, C]; H and W must be multiples of rows and cols.
    """
    cells, kept = _cells(images, masks.astype(bool))
    return jnp.where(kept, cells, jnp.asarray(fill, images.dtype)).reshape(images.shape)


def soften(images: jax.Array, masks: jax.Array, fill: jax.Array | float = 0.0) -> jax.Array:
    """m x + (1 − m) fill of each patch, for masks in [0, 1]; otherwise as `patches`."""
    cells, kept = _cells(images, masks)
    return (kept * cells + (1 - kept) * fill).reshape(images.shape)


def _cells(images: jax.Array, masks: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Images as [B, rows, h, cols, w, C], and masks [B, rows, cols] that broadcast to them."""
    batch, height, width, channels = images.shape
    rows, cols = masks.shape[1:]
    cells = images.reshape(batch, rows, height // rows, cols, width // cols, channels)
    return cells, masks[:, :, None, :, None, None]


def tokens(inputs: TokenBatch, masks: jax.Array, mask_id: int | None) -> TokenBatch:
    """Texts whose features with mask 0 are replaced by [MASK], or hidden from attention.

    CLS, SEP and padding belong to no feature and stay.

    Args:
      inputs: B texts of T tokens.
      masks: 1 = kept, 0 = removed, [B, N]; entries beyond a text's features have no effect.
      mask_id: the id of [MASK]; None deletes by attention instead, positions unchanged.
    """
    kept = jnp.take_along_axis(masks.astype(bool), jnp.maximum(inputs.features, 0), -1)
    kept = kept | (inputs.features < 0)  # [B, T]
    if mask_id is None:
        return inputs._replace(attention=inputs.attention & kept)
    return inputs._replace(ids=jnp.where(kept, inputs.ids, mask_id))


def sum_over_features(values: jax.Array, features: jax.Array) -> jax.Array:
    """Sums of what a feature's tokens hold: [B, T, ...] and features [B, T] → [B, N = T, ...]."""
    size = features.shape[-1]
    index = jnp.where(features < 0, size, features)  # out of range: dropped
    return jax.vmap(lambda x, i: jax.ops.segment_sum(x, i, size))(values, index)


def valid_features(features: jax.Array) -> jax.Array:
    """Which of N = T features a text has: features [B, T] → bool [B, N]."""
    return jnp.arange(features.shape[-1]) <= features.max(-1, keepdims=True)
