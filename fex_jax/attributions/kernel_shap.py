"""KernelSHAP: Shapley values as a weighted regression (Lundberg and Lee, NeurIPS 2017)."""

import jax
import jax.numpy as jnp
import numpy as np

from fex_jax.attributions.queries import target_probabilities
from fex_jax.predictors import Inputs, Model

_RIDGE = 1e-6  # keeps the regression solvable with fewer queries than features


def kernel_shap(
    model: Model,
    inputs: Inputs,
    targets: jax.Array,
    key: jax.Array,
    *,
    num_queries: int = 1000,
    chunk: int | None = None,
) -> jax.Array:
    """φ = argmin Σ_S w(S) (v(S) − v(∅) − φ·S)² subject to Σ φ_i = v(x) − v(∅): [B, N].

    v(S) = f_y(S⊙x). w(S) ∝ (N − 1) / (C(N,|S|) |S| (N − |S|)). Coalitions are drawn from w in
    complementary pairs (Covert and Lee, AISTATS 2021), and where `num_queries` suffices for all
    2^N − 2 of them, each is asked once and φ are the exact Shapley values. Where an input has
    fewer features, N is their number and φ of the others 0.
    """
    size, valid = model.num_features, model.features(inputs)
    if size < 20 and 2**size - 2 <= num_queries:
        # A feature that is not there changes no Shapley value of the others, and no answer.
        masks, weights = all_coalitions(size)
        masks = masks[:, None] & valid
    else:
        masks = sample_coalitions(key, num_queries, valid)
        weights = jnp.full(len(masks), 1 / len(masks))
    ends = jnp.stack([jnp.zeros_like(valid), valid])
    answers = target_probabilities(model, inputs, targets, jnp.concatenate([ends, masks]), chunk)
    gains = answers[2:] - answers[0]
    columns = (jnp.swapaxes(masks, 0, 1), gains.T, answers[1] - answers[0], valid)
    return jax.lax.map(lambda one: constrained_regression(*one, weights), columns)


def all_coalitions(size: int) -> tuple[jax.Array, jax.Array]:
    """Every coalition but the empty and the full one, [2^N − 2, N], and weights that sum to 1."""
    masks = (np.arange(1, 2**size - 1)[:, None] >> np.arange(size)) & 1
    members = masks.sum(-1)
    of_size = np.bincount(members, minlength=size)
    weights = 1 / (of_size[members] * members * (size - members))
    return jnp.asarray(masks, bool), jnp.asarray(weights / weights.sum(), jnp.float32)


def sample_coalitions(key: jax.Array, count: int, valid: jax.Array) -> jax.Array:
    """Coalitions drawn from the Shapley kernel with their complements, [M, B, N]; M ≥ `count`.

    Of the n features that an input has, `valid` [B, N], they hold 1 to n − 1; where n is 1, all or
    none: there is nothing between, and both are consistent with φ = v(x) − v(∅).
    """
    half = -(-count // 2)
    batch, size = valid.shape
    size_key, member_key = jax.random.split(key)
    sizes = jnp.arange(1, max(size, 2))
    others = valid.sum(-1, keepdims=True) - sizes  # [B, N − 1]
    logits = jnp.where(others > 0, -jnp.log(sizes * jnp.maximum(others, 1.0)), -jnp.inf)
    members = 1 + jax.random.categorical(size_key, logits, shape=(half, batch))
    places = jax.random.uniform(member_key, (half, batch, size))
    ranks = jnp.argsort(jnp.argsort(jnp.where(valid, places, 1.0), -1), -1)
    masks = ranks < members[..., None]
    return jnp.concatenate([masks, ~masks]) & valid


def normalize(attributions: jax.Array, total: jax.Array, valid: jax.Array) -> jax.Array:
    """φ_i + (total − Σφ) / n: attributions [..., N] that add up to `total` [...].

    The n features are those that are `valid` [..., N]; the others become 0, whatever they held.
    """
    share = total / valid.sum(-1) - attributions.mean(-1, where=valid)
    return jnp.where(valid, attributions + share[..., None], 0)


def constrained_regression(
    masks: jax.Array, gains: jax.Array, total: jax.Array, valid: jax.Array, weights: jax.Array
) -> jax.Array:
    """φ minimising Σ w (gains − φ·S)² with Σ φ = total: [M, N], [M], scalar, [N], [M] → [N].

    With A = Σ w S Sᵀ and b = Σ w S gains: φ = A⁻¹ (b − λ 1), λ = (1ᵀA⁻¹b − total) / 1ᵀA⁻¹1, where
    1 holds a one for each `valid` feature. The others are in no coalition and get φ = 0.
    """
    masks = masks.astype(jnp.float32)
    gram = (masks * weights[:, None]).T @ masks + _RIDGE * jnp.eye(masks.shape[1])
    ones = valid.astype(jnp.float32)
    solved = jnp.linalg.solve(gram, jnp.stack([masks.T @ (weights * gains), ones], -1))
    unconstrained, direction = solved[:, 0], solved[:, 1]
    return unconstrained - direction * (unconstrained.sum() - total) / direction.sum()
