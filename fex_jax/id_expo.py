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

Predict = Callable[[jax.Array], jax.Array]  # inputs [B, ...] → log f [B, K]
Keep = Callable[[jax.Array, jax.Array], jax.Array]  # (inputs, m [B, N] in [0, 1]) → m ⊙ inputs


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
    # Below the root: the gradient of a root is infinite at a map without any spread.
    spread = jnp.sqrt(jnp.maximum(scores.var(-1, keepdims=True), 1e-12))
    e = (scores - scores.mean(-1, keepdims=True)) / spread
    ordered = -jnp.sort(-e, -1)
    k = jnp.clip(jnp.round(shares * size).astype(int), 1, size - 1)[:, None]
    between = (jnp.take_along_axis(ordered, k - 1, -1) + jnp.take_along_axis(ordered, k, -1)) / 2
    return jax.nn.sigmoid((e - between) / temperature)


def regularizer(
    log_predict: Predict,
    keep: Keep,
    inputs: jax.Array,
    classes: jax.Array,
    scores: jax.Array,
    shares: jax.Array,
    temperature: float,
) -> Terms:
    """L_ins, L_del and ‖e‖² / N, means over inputs.

    Args:
      log_predict: inputs → log f, whose parameters learn.
      keep: inputs with a share of each feature, the rest of which is a baseline's.
      inputs: x [B, ...].
      classes: y [B].
      scores: e [B, N], through which gradients flow.
      shares: s, [points, B] of each input.
      temperature: τ, in standard deviations of e.
    """

    def log_of_class(inputs: jax.Array) -> jax.Array:
        return jnp.take_along_axis(log_predict(inputs), classes[:, None], -1)[:, 0]

    def at(share: jax.Array) -> tuple[jax.Array, jax.Array]:
        masks = soft_masks(scores, share, temperature)
        return log_of_class(keep(inputs, masks)), log_of_class(keep(inputs, 1 - masks))

    inserted, deleted = jax.lax.map(at, shares)  # [points, B]
    clean = log_of_class(inputs)
    return Terms(-inserted.mean(), (deleted - clean).mean(), jnp.mean(scores**2))


def loss(
    log_predict: Predict,
    keep: Keep,
    inputs: jax.Array,
    targets: jax.Array,
    explain: Callable[[jax.Array], jax.Array],
    key: jax.Array,
    *,
    strength: float,
    norm: float,
    temperature: float,
    points: int,
) -> jax.Array:
    """L of the predicted classes, whose task loss is the cross-entropy; a scalar.

    Args:
      log_predict, keep, inputs, temperature: see `regularizer`.
      targets: probabilities of the classes, [B, K].
      explain: predicted classes [B] → e [B, N].
      key: of the shares.
      strength: λ₁.
      norm: λ₂.
      points: shares of each input, one of each equal part of (0, 1): an unbiased mean over all.
    """
    log_f = log_predict(inputs)
    classes = jax.lax.stop_gradient(log_f.argmax(-1))
    drawn = jax.random.uniform(key, (points, len(inputs)))
    shares = (jnp.arange(points)[:, None] + drawn) / points
    terms = regularizer(log_predict, keep, inputs, classes, explain(classes), shares, temperature)
    task = -(targets * log_f).sum(-1).mean()
    return task + strength * (terms.insertion + terms.deletion) + norm * terms.norm
