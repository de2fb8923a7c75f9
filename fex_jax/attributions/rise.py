"""RISE: Randomized Input Sampling for Explanation (Petsiuk, Das and Saenko, BMVC 2018)."""

import dataclasses

import jax
import jax.numpy as jnp

from fex_jax.attributions.door import public
from fex_jax.attributions.queries import ask_about, bernoulli
from fex_jax.predictors import Inputs, Model


@public
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
    draw = bernoulli(key, model.num_features, keep)
    answers = ask_about(model, inputs, targets, draw, num_queries, chunk)
    images = jnp.arange(len(targets))

    def add(total: jax.Array, part: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        query, answer = part
        masks = jax.vmap(draw, (None, 0))(query, images).astype(answer.dtype)
        return total + answer[:, None] * masks, None

    zero = jnp.zeros((len(targets), model.num_features), jnp.float32)
    total, _ = jax.lax.scan(add, zero, (jnp.arange(num_queries), answers))
    return total / (num_queries * keep)


@public
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
    m x + (1 − m) fill. The saliency of a pixel is Σ_m f_y(m⊙x) m / (K p). Beyond the centres of the
    outermost cells the authors' code, skimage's `resize`, mirrors the grid; here its edge repeats.

    Raises:
      ValueError: features that do not lie in rows and columns, or inputs that do not.
    """
    if len(model.grid) != 2:
        raise ValueError(
            f"smooth_rise needs features in rows and columns, but they lie in {model.grid}; rise "
            "takes any"
        )
    rows, columns = model.grid
    shape: tuple[int, ...] = getattr(inputs, "shape", ())
    if len(shape) != 4 or shape[1] % rows or shape[2] % columns:
        raise ValueError(
            f"smooth_rise takes images [B, H, W, C] of {rows} x {columns} patches, got {shape}"
        )
    height, width = shape[1:3]
    cell = (-(-height // cells), -(-width // cells))

    def draw(query: jax.Array, index: jax.Array) -> jax.Array:
        """A soft mask [H, W]."""
        grid_key, shift_key = jax.random.split(jax.random.fold_in(key[index], query))
        grid = jax.random.bernoulli(grid_key, keep, (cells, cells)).astype(jnp.float32)
        large = [(cells + 1) * c for c in cell]
        soft = jax.image.resize(grid, large, "bilinear")
        shift = jax.random.randint(shift_key, (2,), 0, jnp.array(cell))
        return jax.lax.dynamic_slice(soft, tuple(shift), (height, width))

    def blend(images: jax.Array, masks: jax.Array) -> jax.Array:
        return masks[..., None] * images + (1 - masks[..., None]) * fill

    soft = dataclasses.replace(model, mask=blend)
    answers = ask_about(soft, inputs, targets, draw, num_queries, chunk)

    def add(total: jax.Array, part: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        query, answer = part
        masks = jax.vmap(draw, (None, 0))(query, jnp.arange(len(targets)))
        return total + answer[:, None, None] * masks, None

    zero = jnp.zeros((len(targets), height, width), jnp.float32)
    total, _ = jax.lax.scan(add, zero, (jnp.arange(num_queries), answers))
    patches = total.reshape(-1, rows, height // rows, columns, width // columns)
    return patches.mean((2, 4)).reshape(len(targets), -1) / (num_queries * keep)
