"""LIME: a linear model around the input (Ribeiro, Singh and Guestrin, KDD 2016)."""

import jax
import jax.numpy as jnp

from fex_jax.attributions import regression
from fex_jax.attributions.door import public
from fex_jax.attributions.queries import ask_about, bernoulli
from fex_jax.predictors import Inputs, Model


@public
def lime(
    model: Model,
    inputs: Inputs,
    targets: jax.Array,
    key: jax.Array,
    *,
    num_queries: int = 1000,
    kernel_width: float = 0.25,
    ridge: float = 1.0,
    chunk: int | None = None,
) -> jax.Array:
    """Coefficients φ of min Σ_m π(m) (f_y(m⊙x) − b − φ·m)² + α |φ|², m_i ~ Bernoulli(½): [B, N].

    π(m) = exp(−d² / 2σ²) with d = 1 − √(K_m / N), the cosine distance to the clean input;
    σ = `kernel_width`, α = `ridge`; defaults are those of the authors' image explainer. Where an
    input has fewer features, N and K_m count those, and φ of the others is 0. With α = 0 and too
    few queries for one solution, φ is the shortest. The narrower the kernel, the more α outweighs
    all π(m), and φ tends to 0, as the formula says.
    """
    valid, size = model.features(inputs), model.num_features
    draw = bernoulli(key, size, 0.5)
    answers = ask_about(
        model, inputs, targets, lambda q, b: draw(q, b) & valid[b], num_queries, chunk
    )
    length = min(max(size, 32), num_queries)  # of a block of equations
    blocks = -(-num_queries // length)

    def fit(one: tuple[jax.Array, jax.Array]) -> jax.Array:
        index, values = one
        values = jnp.pad(values, (0, blocks * length - num_queries))

        def masks(block: jax.Array) -> jax.Array:
            numbers = block * length + jnp.arange(length)
            return jax.vmap(draw, (0, None))(numbers, index) & valid[index]

        def logs(block: jax.Array) -> jax.Array:
            """log π, relative to which weights are: they themselves may leave float32."""
            exists = block * length + jnp.arange(length) < num_queries
            share = masks(block).sum(-1) / jnp.maximum(valid[index].sum(), 1)
            return jnp.where(exists, -(((1 - jnp.sqrt(share)) / kernel_width) ** 2) / 2, -jnp.inf)

        largest = jax.lax.map(logs, jnp.arange(blocks)).max()

        def rows(block: jax.Array) -> jax.Array:
            some = jax.lax.dynamic_slice(values, (block * length,), (length,))
            return _equations(masks(block), some, jnp.exp(logs(block) - largest))

        # Divided by the largest weight, the problem is the same with a ridge as much larger.
        scaled = jnp.where(ridge > 0, ridge * jnp.exp(-largest), 0)
        return _solution(regression.triangle(rows, blocks, size + 2), scaled)

    return jax.lax.map(fit, (jnp.arange(len(targets)), answers.T))


def weighted_ridge(
    masks: jax.Array, values: jax.Array, weights: jax.Array, ridge: jax.Array | float
) -> jax.Array:
    """Ridge regression with an intercept that is not penalised: [M, N], [M], [M], α → [N]."""
    equations = _equations(masks, values, weights)
    return _solution(regression.triangle(lambda _: equations, 1, equations.shape[-1]), ridge)


def _equations(masks: jax.Array, values: jax.Array, weights: jax.Array) -> jax.Array:
    ones = jnp.ones_like(values)
    columns = jnp.column_stack([ones, masks.astype(values.dtype), values])
    return jnp.sqrt(weights)[:, None] * columns


def _solution(found: jax.Array, ridge: jax.Array | float) -> jax.Array:
    """φ; the first column is the intercept's, and what is right of and below it is free of it."""
    return regression.solve(found[1:, 1:], ridge)
