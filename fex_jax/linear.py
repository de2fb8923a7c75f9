"""LIME's and KernelSHAP's maps as linear functions of f's answers, so that f learns through them.

    e = A v,   v_j = f_y(m_j ⊙ x),   M masks, the same for all inputs of a batch

A solves the method's weighted least squares, depends on the masks alone, and is a constant of the
gradient. `attributions.lime` and `attributions.kernel_shap` explain; these are for training.
Shapes: B inputs, N features.
"""

import jax
import jax.numpy as jnp

from fex_jax.draws import sample_coalitions
from fex_jax.predictors import Inputs, Model


def lime(
    model: Model,
    inputs: Inputs,
    targets: jax.Array,
    key: jax.Array,
    num_queries: int,
    kernel_width: float = 0.25,
    ridge: float = 1.0,
) -> jax.Array:
    """A = (Zᵀ Π Z + α I)⁻¹ Zᵀ Π with Z = the masks less their mean by π; as `lime`: [B, N]."""
    drawn = jax.random.bernoulli(key, 0.5, (num_queries, model.num_features))
    masks = drawn.astype(jnp.float32)
    distances = 1 - jnp.sqrt(masks.mean(-1))
    weights = jnp.exp(-((distances / kernel_width) ** 2) / 2)[:, None]  # π(m)
    centred = masks - (weights * masks).sum(0) / weights.sum()
    squares = centred.T @ (weights * centred) + ridge * jnp.eye(model.num_features)
    solution = jnp.linalg.solve(squares, (weights * centred).T)
    return answers(model, inputs, targets, drawn) @ solution.T


def kernel_shap(
    model: Model, inputs: Inputs, targets: jax.Array, key: jax.Array, num_queries: int
) -> jax.Array:
    """φ = t / N + A g, where t = f_y(x) − f_y(∅), and A g is the shortest solution of all pairs.

    Coalitions are drawn from the Shapley kernel, in pairs S and its complement, which say of φ·S:
    (f_y(S) − f_y(its complement) + t) / 2. Σ φ = t. Shape [B, N].
    """
    size = model.num_features
    masks = sample_coalitions(key, num_queries, jnp.ones((1, size), bool))[:, 0]
    ends = jnp.stack([jnp.zeros(size, bool), jnp.ones(size, bool)])
    v = answers(model, inputs, targets, jnp.concatenate([ends, masks]))
    total = v[:, 1] - v[:, 0]
    coalitions = masks[: len(masks) // 2].astype(jnp.float32)
    first, second = jnp.split(v[:, 2:], 2, -1)
    shares = coalitions.mean(-1)
    gains = (first - second + total[:, None]) / 2 - total[:, None] * shares
    with jax.default_matmul_precision("highest"):
        solution = jnp.linalg.pinv(coalitions - shares[:, None])
    return total[:, None] / size + gains @ solution.T


def answers(model: Model, inputs: Inputs, targets: jax.Array, masks: jax.Array) -> jax.Array:
    """f_y(m_j ⊙ x) of masks [M, N], [B, M]; what f computes on the way is computed again for the
    gradient, so that memory does not grow with M."""

    @jax.checkpoint
    def one(mask: jax.Array) -> jax.Array:
        each = jnp.broadcast_to(mask, (len(targets), len(mask)))
        found = model.predict(model.mask(inputs, each))
        return jnp.take_along_axis(found, targets[:, None], -1)[:, 0]

    return jax.lax.map(one, masks).T
