"""Least squares by QR and SVD: accurate in float32 at any number of equations, in bounded memory.

Normal equations square the condition number, which float32 has no digits for. The triangle of a QR
decomposition does not, and takes up equations block by block.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp


def triangle(rows: Callable[[jax.Array], jax.Array], blocks: int, width: int) -> jax.Array:
    """R [width, width] of A = QR, where rows(0), rows(1), … [M, width] lie above each other in A.

    Memory is that of a block and of R, whatever the number of blocks.
    """

    def add(found: jax.Array, block: jax.Array) -> tuple[jax.Array, None]:
        return jnp.linalg.qr(jnp.concatenate([found, rows(block)]), mode="r"), None

    zero = jnp.zeros((width, width), jnp.float32)
    return jax.lax.scan(add, zero, jnp.arange(blocks))[0]


def solve(found: jax.Array, ridge: jax.Array | float = 0.0) -> jax.Array:
    """φ [N] minimising |Aφ − b|² + α |φ|² from the triangle of [A b], [N + 1, N + 1]; α = `ridge`.

    With α = 0, of all φ that minimise the first term the shortest: what the equations leave open
    is 0.
    """
    left, values, right = jnp.linalg.svd(found[:-1, :-1])
    smallest = values[:1] * len(values) * jnp.finfo(values.dtype).eps
    solid = values > smallest
    size = jnp.where(solid, values, 1)
    # s / (s² + α), where s² could leave float32.
    shares = jnp.where(solid, 1 / (size + ridge / size), 0)
    with jax.default_matmul_precision("highest"):
        return right.T @ (shares * (left.T @ found[:-1, -1]))
