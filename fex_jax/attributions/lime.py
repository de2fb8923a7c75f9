"""LIME: a linear model around the input (Ribeiro, Singh and Guestrin, KDD 2016)."""

import jax
import jax.numpy as jnp

from fex_jax.attributions.queries import random_masks, target_probabilities
from fex_jax.predictors import Inputs, Model


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
    input has fewer features, N and K_m count those, and φ of the others is 0.
    """
    valid = model.features(inputs)
    masks = random_masks(key, num_queries, *valid.shape, 0.5) & valid
    answers = target_probabilities(model, inputs, targets, masks, chunk)
    distances = 1 - jnp.sqrt(masks.sum(-1) / valid.sum(-1))
    weights = jnp.exp(-(distances**2) / (2 * kernel_width**2))
    # One input's regression at a time: the masks as floats take 32 times their memory.
    columns = tuple(jnp.swapaxes(x, 0, 1) for x in (masks, answers, weights))
    ridges = jnp.where(valid, ridge, 1.0)  # with α = 0 too a column of zeros has a solution, 0
    return jax.lax.map(lambda one: weighted_ridge(*one), (*columns, ridges))


def weighted_ridge(
    features: jax.Array, values: jax.Array, weights: jax.Array, ridge: jax.Array | float
) -> jax.Array:
    """Ridge regression with an intercept that is not penalised: [M, N], [M], [M], α [N] → [N]."""
    total = weights.sum()
    features = features.astype(jnp.float32)
    centred = features - weights @ features / total
    residual = values - weights @ values / total
    gram = (centred * weights[:, None]).T @ centred + ridge * jnp.eye(features.shape[1])
    return jnp.linalg.solve(gram, centred.T @ (weights * residual))
