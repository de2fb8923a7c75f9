"""ID-ExpO: a classifier is fine-tuned so that its explanations become more faithful.

Written from Yoshikawa and Iwata, AISTATS 2024, arXiv 2310.12553. For an input x of class y, an
explanation e that is differentiable, and the share s of the features that is kept:

    m_i(s) = σ((e_i − e_(s)) / τ)                      soft: e_(s) parts the s N first from the rest
    L_ins  = −mean_s log f_y(m(s) ⊙ x)                 what is inserted first should suffice
    L_del  = mean_s log f_y((1 − m(s)) ⊙ x) − log f_y(x)    what is deleted first should hurt
    L      = L_task + λ₁ (L_ins + L_del) + λ₂ ‖e‖²

e is standardised in m, so that τ means the same of every map. Shapes: B inputs, N features.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from fex_jax import masking

Predict = Callable[[jax.Array], jax.Array]  # normalised images [B, H, W, C] → log f [B, K]


class Terms(NamedTuple):
    """The parts of the regulariser, scalars."""

    insertion: jax.Array
    deletion: jax.Array
    norm: jax.Array


def soft_masks(scores: jax.Array, shares: jax.Array, temperature: float) -> jax.Array:
    """m(s), increasing with the scores: [B, N] and shares [B] in (0, 1) → [B, N] in (0, 1).

    e_(s) lies in the middle between the k-th and the k+1-th largest, k = round(s N), at least 1 and
    less than N; as all of e moves it moves along.
    """
    size = scores.shape[-1]
    spread = scores.std(-1, keepdims=True)
    e = (scores - scores.mean(-1, keepdims=True)) / jnp.maximum(spread, 1e-6)
    ordered = -jnp.sort(-e, -1)
    k = jnp.clip(jnp.round(shares * size).astype(int), 1, size - 1)[:, None]
    between = (jnp.take_along_axis(ordered, k - 1, -1) + jnp.take_along_axis(ordered, k, -1)) / 2
    return jax.nn.sigmoid((e - between) / temperature)


def regularizer(
    log_predict: Predict,
    images: jax.Array,
    classes: jax.Array,
    scores: jax.Array,
    shares: jax.Array,
    *,
    grid: tuple[int, int],
    temperature: float,
    fill: float = 0.0,
) -> Terms:
    """L_ins, L_del and ‖e‖² / N, means over inputs.

    Args:
      log_predict: images → log f, whose parameters learn.
      images: normalised [B, H, W, C].
      classes: y [B].
      scores: e [B, N], through which gradients flow.
      shares: s, [points, B] of each input.
      grid: rows and columns of the features.
      temperature: τ, in standard deviations of e.
      fill: what a removed patch becomes.
    """

    def log_of_class(images: jax.Array) -> jax.Array:
        return jnp.take_along_axis(log_predict(images), classes[:, None], -1)[:, 0]

    def at(share: jax.Array) -> tuple[jax.Array, jax.Array]:
        masks = soft_masks(scores, share, temperature)
        shown = masks.reshape(-1, *grid)
        kept, rest = (masking.soften(images, m, fill) for m in (shown, 1 - shown))
        return log_of_class(kept), log_of_class(rest)

    inserted, deleted = jax.lax.map(at, shares)  # [points, B]
    clean = log_of_class(images)
    return Terms(-inserted.mean(), (deleted - clean).mean(), jnp.mean(scores**2))
