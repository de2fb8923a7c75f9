"""RISE: Randomized Input Sampling for Explanation (Petsiuk, Das and Saenko, BMVC 2018)."""

import dataclasses

import jax
import jax.numpy as jnp

from fex_jax.attributions.queries import random_masks, target_probabilities
from fex_jax.predictors import Inputs, Model


def rise(
    model: Model,
    inputs: Inputs,
    targets: jax.Array,
    key: jax.Array,
    *,
    num_queries: int = 100,
    keep: float = 0.5,
    chunk: int | None = None,
) -> jax.Array:
    """φ_i = Σ_m f_y(m⊙x) m_i / (K p), m_i ~ Bernoulli(p): [B, N], with whole features as cells.

    Its expectation is E[f_y(m⊙x) | m_i = 1]. K = `num_queries`, p = `keep`.
    """
    masks = random_masks(key, num_queries, len(targets), model.num_features, keep)
    answers = target_probabilities(model, inputs, targets, masks, chunk)
    return jnp.einsum("mb,mbn->bn", answers, masks.astype(jnp.float32)) / (num_queries * keep)


def smooth_rise(
    model: Model,
    inputs: jax.Array,
    targets: jax.Array,
    key: jax.Array,
    *,
    num_queries: int = 100,
    keep: float = 0.5,
    cells: int = 7,
    fill: float = 0.0,
    chunk: int | None = None,
) -> jax.Array:
    """The published form for images [B, H, W, C]: soft masks, averaged over patches to [B, N].

    A mask is a grid of `cells` x `cells` Bernoulli(p) values, upsampled bilinearly to one cell more
    than the image and cropped at a random offset; a pixel under mask value m becomes
    m x + (1 − m) fill. The saliency of a pixel is Σ_m f_y(m⊙x) m / (K p). Beyond the outermost
    cells' centres their values are repeated; the authors' skimage mirrors the grid there.

    Raises:
      ValueError: features that do not lie in rows and columns.
    """
    if len(model.grid) != 2:
        raise ValueError(
            f"smooth_rise needs features in rows and columns, but they lie in {model.grid}; rise "
            "takes any"
        )
    height, width = inputs.shape[1:3]
    cell = (-(-height // cells), -(-width // cells))
    shape = (num_queries, len(targets))
    grid_key, shift_key = jax.random.split(key)
    grids = random_masks(grid_key, *shape, cells * cells, keep)
    shifts = jax.random.randint(shift_key, (*shape, 2), 0, jnp.array(cell))
    # What a mask is made from takes N numbers, not H x W: pixels exist for a chunk at a time only.
    codes = jnp.concatenate([grids.astype(jnp.int32), shifts], -1)  # [K, B, cells² + 2]

    def expand(code: jax.Array) -> jax.Array:
        grid = code[:-2].reshape(cells, cells).astype(jnp.float32)
        large = [(cells + 1) * c for c in cell]
        soft = jax.image.resize(grid, large, "bilinear")
        return jax.lax.dynamic_slice(soft, (code[-2], code[-1]), (height, width))

    def blend(images: jax.Array, codes: jax.Array) -> jax.Array:
        soft = jax.vmap(expand)(codes)[..., None]
        return soft * images + (1 - soft) * fill

    answers = target_probabilities(
        dataclasses.replace(model, mask=blend), inputs, targets, codes, chunk
    )

    def add(total: jax.Array, part: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        answer, code = part
        return total + answer[:, None, None] * jax.vmap(expand)(code), None

    zero = jnp.zeros((len(targets), height, width))
    saliency = jax.lax.scan(add, zero, (answers, codes))[0] / (num_queries * keep)
    rows, columns = model.grid
    patches = saliency.reshape(-1, rows, height // rows, columns, width // columns)
    return patches.mean((2, 4)).reshape(len(targets), -1)
