"""Maps against pixels that are known to tell the classes apart, as XAI-TRIS measures them.

Clark, Wilming and Haufe 2024, arXiv 2306.12816. What is scored is the size of an attribution.
"""

import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import wasserstein_distance_nd

from fex_jax.metrics.perturbation import ranks


def top_precision(scores: jax.Array, masks: jax.Array) -> jax.Array:
    """Share of the k largest |φ| that lie in the mask, k its size; chance is k / N.

    Equal sizes are ranked by position.

    Args:
      scores: φ, [B, N].
      masks: [B, N] bool, none of them empty.

    Returns:
      [B] in 0 to 1; NaN of an empty mask.
    """
    size = masks.sum(-1, keepdims=True)
    top = ranks(jnp.abs(jnp.asarray(scores))) < size
    return (top & masks).sum(-1) / size[:, 0]


def earth_movers_score(maps: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """1 − W(|φ|, mask) / δ: how little of a map must be moved how far to lie evenly on the mask.

    W is the earth mover's distance of the two, each of mass 1, by Euclidean distances of cells; δ
    is the largest distance of two cells. 1: the map is the mask. A linear program for each map.

    Args:
      maps: φ, [B, rows, columns].
      masks: bool, of the same shape, none of them empty.

    Returns:
      [B] in 0 to 1; a map of zeros counts as an even one; NaN of an empty mask, or of NaN.

    Raises:
      ValueError: shapes that differ.
    """
    maps, masks = np.abs(np.asarray(maps, np.float64)), np.asarray(masks, bool)
    if maps.ndim != 3 or maps.shape != masks.shape:
        raise ValueError(f"maps are {maps.shape}, masks {masks.shape}; wanted [B, rows, columns]")
    cells = np.argwhere(np.ones(maps.shape[1:], bool)).astype(float)
    largest = np.linalg.norm(cells[-1] - cells[0])
    found = np.full(len(maps), np.nan)
    for i, (sizes, mask) in enumerate(zip(maps, masks, strict=True)):
        if mask.any() and not np.isnan(sizes).any():
            sizes = sizes if sizes.any() else np.ones_like(sizes)
            moved = wasserstein_distance_nd(cells, cells[mask.ravel()], sizes.ravel())
            found[i] = 1 - moved / largest
    return found
