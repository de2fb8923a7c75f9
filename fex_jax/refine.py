"""Improving an explainer's map of an input by a few queries about that very input.

Shapes: B inputs, N features, M pairs of queries. Masks exist for one chunk of queries, or for one
block of an input's equations, at a time: memory does not grow with their number.
"""

import jax
import jax.numpy as jnp
import numpy as np

from fex_jax import draws
from fex_jax.answers import log_odds
from fex_jax.attributions import regression
from fex_jax.attributions.door import public
from fex_jax.attributions.queries import ask_about
from fex_jax.predictors import Inputs, Model

LEAST_QUERIES = 8
BUDGET_RANGE = 3.0  # of logits, where training drew none: 5 % to 95 % of the features are kept
_NEVER = -1e9  # the logit of a feature that is not there
_RATIOS = np.logspace(-4, 1, 26)  # τ²/σ² tried
_ALONE = 0.1  # of a weight's prior variance: what it does not share with its neighbours


@public
def refine_scores(
    model: Model,
    inputs: Inputs,
    targets: jax.Array,
    scores: jax.Array,
    key: jax.Array,
    *,
    num_queries: int,
    logits: bool = False,
    budget_range: float = BUDGET_RANGE,
    chunk: int | None = None,
) -> jax.Array:
    """Weights w of c(m) = Σ_i (2m_i − 1) w_i + ε, where before any query w ~ N(βs + γ, τ²).

    c(m) = h(m⊙x) − h((1−m)⊙x), h the log-odds of f_y, or its value, is what FEX maximises by
    default, and Σ w_i is what it is for the whole input. s is the explainer's map: of it only order
    and relative distances are believed. β and γ are fitted; w is the posterior mean, over τ²/σ²,
    how little s is believed, by its restricted likelihood (REML). Masks are drawn as in training,
    around s at budgets that cover the range evenly.

    Args:
      model: the classifier, of which `predict` and `mask` are used.
      inputs: B of them.
      targets: the explained classes y [B].
      scores: s [B, N].
      key: of the masks; see `door.public`.
      num_queries: even, at least `LEAST_QUERIES`; one pair is the whole input and nothing of it.
      logits: s are logits of λ, and so is what is returned: w with their mean and spread.
      budget_range: masks keep σ(±`budget_range`) of the features, as those of training did.
      chunk: masked inputs in memory together.

    Returns:
      [B, N], 0 where an input has no such feature.

    Raises:
      ValueError: another number of queries, or scores of another shape.
    """
    if num_queries < LEAST_QUERIES or num_queries % 2:
        raise ValueError(
            f"refining takes {num_queries} queries; expected an even number from {LEAST_QUERIES} on"
        )
    valid = model.features(inputs)
    if scores.shape != valid.shape:
        raise ValueError(f"scores have shape {scores.shape}; expected {valid.shape}")
    mean, spread = _moments(scores, valid)
    scores, size = _standardize(scores, valid), scores.shape[-1]
    pairs = num_queries // 2

    def kept(pair: jax.Array, index: jax.Array) -> jax.Array:
        """The first half of a pair [N]; of the first pair, all."""
        budget = budget_range * ((2 * pair - 1) / (pairs - 1) - 1)
        logits = jnp.where(valid[index], scores[index] + budget, _NEVER)
        mask = draws.masks(jax.random.fold_in(key[index], pair), logits, model.grid)
        return (mask | (pair == 0)) & valid[index]

    def draw(query: jax.Array, index: jax.Array) -> jax.Array:
        """First all halves that are kept, then what each of them removes."""
        mask = kept(query % pairs, index)
        return jnp.where(query < pairs, mask, ~mask & valid[index])

    h = ask_about(model, inputs, targets, draw, num_queries, chunk)
    if model.output != "value":
        h = log_odds(h)
    length = min(max(size, 32), pairs)  # of a block of equations
    blocks = -(-pairs // length)

    def fit(one: tuple[jax.Array, ...]) -> jax.Array:
        index, contrasts = one
        contrasts = jnp.pad(contrasts, (0, blocks * length - pairs))

        def rows(block: jax.Array) -> jax.Array:
            numbers = block * length + jnp.arange(length)
            masks = jax.vmap(kept, (0, None))(numbers, index)
            some = jax.lax.dynamic_slice(contrasts, (block * length,), (length,))
            return jnp.where((numbers < pairs)[:, None], _equations(masks, some, valid[index]), 0)

        # Where there are many, the triangle says the same in N + 1 equations.
        found = rows(0) if blocks == 1 else regression.triangle(rows, blocks, size + 1)
        return _posterior(found, pairs, scores[index], valid[index], priors)

    priors = _priors(model.grid)
    weights = jax.lax.map(fit, (jnp.arange(len(targets)), (h[:pairs] - h[pairs:]).T))
    if not logits:
        return weights
    return jnp.where(valid, mean + spread * _standardize(weights, valid), 0)


def posterior_mean(
    masks: jax.Array,
    contrasts: jax.Array,
    scores: jax.Array,
    valid: jax.Array,
    grid: tuple[int, ...],
) -> jax.Array:
    """E[w | c] of one input: masks [M, N], c [M], s [N], valid [N] → [N].

    With X = 2m − 1, A = X [s 1] and V = I + κ X C Xᵀ, κ = τ²/σ²: (β, γ) = (AᵀV⁻¹A)⁻¹AᵀV⁻¹c and
    w = βs + γ + κ C XᵀV⁻¹(c − A(β, γ)).
    """
    equations = _equations(masks, contrasts, valid)
    return _posterior(equations, len(contrasts), scores, valid, _priors(grid))


def _priors(grid: tuple[int, ...]) -> jax.Array:
    """The C that are tried, [L, N, N]: on a grid features weigh what their neighbours do."""
    size = int(np.prod(grid))
    if len(grid) != 2:
        return jnp.eye(size)[None]
    smooth = np.stack([draws.covariance(grid, length) for length in draws.LENGTHS])
    return jnp.asarray((1 - _ALONE) * smooth + _ALONE * np.eye(size, dtype=np.float32))


def _equations(masks: jax.Array, contrasts: jax.Array, valid: jax.Array) -> jax.Array:
    """[X c], [M, N + 1]."""
    return jnp.column_stack([jnp.where(valid, jnp.where(masks, 1.0, -1.0), 0), contrasts])


@jax.default_matmul_precision("highest")
def _posterior(
    equations: jax.Array, pairs: int, scores: jax.Array, valid: jax.Array, priors: jax.Array
) -> jax.Array:
    """`posterior_mean` from [X c]: its `pairs` rows, or the triangle of them."""
    signs, contrasts = equations[:, :-1], equations[:, -1]
    basis = jnp.stack([scores, jnp.float32(valid)], -1)  # [N, 2]
    known = signs @ basis

    def fit(ratio: jax.Array, shared: jax.Array, gram: jax.Array) -> tuple[jax.Array, jax.Array]:
        factor = jnp.linalg.cholesky(jnp.eye(len(contrasts)) + ratio * gram)

        def whiten(x: jax.Array) -> jax.Array:
            return jax.scipy.linalg.solve_triangular(factor, x, lower=True)

        a, y = whiten(known), whiten(contrasts)
        # Of a flat map the first column is zero; the ridge gives it β = 0.
        information = a.T @ a + 1e-6 * jnp.eye(2)
        trend = jnp.linalg.solve(information, a.T @ y)
        rest = y - a @ trend
        likelihood = -(
            jnp.log(jnp.diagonal(factor)).sum()
            + jnp.linalg.slogdet(information)[1] / 2
            + (pairs - 2) / 2 * jnp.log(rest @ rest + 1e-12)
        )
        own = ratio * shared @ jax.scipy.linalg.solve_triangular(factor.T, rest)
        return likelihood, basis @ trend + own

    def of_prior(prior: jax.Array) -> tuple[jax.Array, jax.Array]:
        shared = prior @ signs.T  # [N, M]
        return jax.lax.map(lambda ratio: fit(ratio, shared, signs @ shared), _RATIOS)

    likelihoods, weights = jax.lax.map(of_prior, priors)
    believed = jax.nn.softmax(likelihoods.reshape(-1))
    return jnp.where(valid, believed @ weights.reshape(-1, len(valid)), 0)


def _moments(x: jax.Array, valid: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean and standard deviation over an input's own features, [B, 1] each."""
    return x.mean(-1, keepdims=True, where=valid), x.std(-1, keepdims=True, where=valid)


def _standardize(x: jax.Array, valid: jax.Array) -> jax.Array:
    """[B, N] with mean 0 and variance 1 over an input's own features; a flat map becomes 0."""
    mean, spread = _moments(x, valid)
    return jnp.where(valid, (x - mean) / jnp.maximum(spread, 1e-9), 0)
