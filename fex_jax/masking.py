"""Removing features from inputs: the only thing the method does to the data."""

import jax
import jax.numpy as jnp


def patches(images: jax.Array, masks: jax.Array, fill: jax.Array | float = 0.0) -> jax.Array:
    """Images whose patches with mask 0 are replaced by `fill` (m ⊙ x for fill 0).

    Args:
      images: normalised images [B, H, W, C].
      masks: 1 = kept, 0 = removed, one row-major entry per cell of a grid [B, rows, cols].
      fill: a number, or one value per channel [C].

    Returns:
      [B, H, W, C]; H and W must be multiples of rows and cols.
    """
    batch, height, width, channels = images.shape
    rows, cols = masks.shape[1:]
    cells = images.reshape(batch, rows, height // rows, cols, width // cols, channels)
    kept = masks.astype(bool)[:, :, None, :, None, None]
    return jnp.where(kept, cells, jnp.asarray(fill, images.dtype)).reshape(images.shape)
