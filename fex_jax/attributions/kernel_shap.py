"""KernelSHAP: Shapley values as a weighted regression (Lundberg and Lee, NeurIPS 2017)."""

import jax
import jax.numpy as jnp

from fex_jax.attributions import coalitions, regression
from fex_jax.attributions.door import public
from fex_jax.attributions.queries import ask_about
from fex_jax.predictors import Inputs, Model


@public
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

    v(S) = f_y(S⊙x). w(S) ∝ (N − 1) / (C(N,|S|) |S| (N − |S|)). Coalitions come in complementary
    pairs (Covert and Lee, AISTATS 2021), of sizes by `coalitions.plan`, and none twice. Where
    `num_queries` covers all 2^N − 2, φ are the exact Shapley values. Of an odd number one query is
    not made; f(x) and f(∅) are asked beside. Where an input has fewer features, N is their number
    and φ of the others 0. Where queries leave φ open, it is as near to equal shares as they allow.
    """
    valid, size = model.features(inputs), model.num_features
    pairs = num_queries // 2
    if size < 32:
        pairs = min(pairs, coalitions.most_pairs(size))
    plan = coalitions.plan(size, pairs)
    drawn = jax.vmap(lambda key, valid: coalitions.prepare(plan, key, valid))(key, valid)

    def draw(query: jax.Array, index: jax.Array) -> jax.Array:
        """None, all, and then each pair."""
        one = jax.tree.map(lambda x: x[index], drawn)
        mask, _ = coalitions.coalition(one, query // 2 - 1)
        mask = mask & (query > 1)
        return jnp.where(query % 2, ~mask, mask) & one.valid

    answers = ask_about(model, inputs, targets, draw, 2 + 2 * pairs, chunk)
    total = answers[1] - answers[0]
    # Both equations of a pair say the same of φ: v(S) − v(∅) − φ·S and its complement's have one
    # mean square, of which only their difference depends on φ.
    gains = (answers[2::2] - answers[3::2] + total) / 2
    length = min(max(size, 32), max(pairs, 1))  # of a block of equations
    blocks = max(-(-pairs // length), 1)

    def fit(one: tuple[coalitions.Drawn, jax.Array, jax.Array]) -> jax.Array:
        drawn, gains, total = one
        padded = jnp.pad(gains, (0, blocks * length - pairs))

        def rows(block: jax.Array) -> jax.Array:
            numbers = block * length + jnp.arange(length)
            masks, weights = jax.vmap(lambda i: coalitions.coalition(drawn, i))(numbers)
            weights = jnp.where(numbers < pairs, weights, 0)
            return _equations(masks, padded[numbers], total, drawn.valid, weights)

        return _solution(regression.triangle(rows, blocks, size + 1), total, drawn.valid)

    return jax.lax.map(fit, (drawn, gains.T, total))


def constrained_regression(
    masks: jax.Array, gains: jax.Array, total: jax.Array, valid: jax.Array, weights: jax.Array
) -> jax.Array:
    """φ minimising Σ w (gains − φ·S)² with Σ φ = total: [M, N], [M], scalar, [N], [M] → [N].

    Of several such φ, the one nearest to equal shares. φ of what is not `valid` is 0.
    """
    equations = _equations(masks, gains, total, valid, weights)
    found = regression.triangle(lambda _: equations, 1, equations.shape[-1])
    return _solution(found, total, valid)


def _equations(
    masks: jax.Array, gains: jax.Array, total: jax.Array, valid: jax.Array, weights: jax.Array
) -> jax.Array:
    """√w (S − |S| / n)·ψ = √w (gains − total |S| / n), [M, N + 1]: φ = total / n + ψ with Σ ψ = 0.

    The shortest ψ fulfils this constraint, for every row does.
    """
    share = (masks & valid).sum(-1) / jnp.maximum(valid.sum(), 1)
    centred = jnp.where(valid, masks.astype(share.dtype) - share[:, None], 0)
    return jnp.sqrt(weights)[:, None] * jnp.column_stack([centred, gains - total * share])


def _solution(found: jax.Array, total: jax.Array, valid: jax.Array) -> jax.Array:
    equal = total / jnp.maximum(valid.sum(dtype=total.dtype), 1)
    return jnp.where(valid, equal + regression.solve(found), 0)


def normalize(attributions: jax.Array, total: jax.Array, valid: jax.Array) -> jax.Array:
    """φ_i + (total − Σφ) / n: attributions [..., N] that add up to `total` [...].

    The n features are those that are `valid` [..., N]; the others become 0, whatever they held.
    """
    share = total / valid.sum(-1, dtype=total.dtype) - attributions.mean(-1, where=valid)
    return jnp.where(valid, attributions + share[..., None], 0)
