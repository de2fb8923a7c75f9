"""What f answers, asking it about masked inputs in training, and what an answer says."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

# What f answers of the logits z [..., K], by what its head is for, and the logarithm of that.
PROBABILITIES = {"softmax": jax.nn.softmax, "sigmoid": jax.nn.sigmoid, "value": lambda z: z}
LOG_PROBABILITIES = {"softmax": jax.nn.log_softmax, "sigmoid": jax.nn.log_sigmoid}

_FEW = 64  # features: with more of them, each is worth less
_ENOUGH = 512  # inputs of f at a time: about as many as keep an accelerator busy
_CERTAIN = 0.01  # probabilities nearer to 0 or 1 count as this near: log-odds stay within ± 4.6


def ask(
    predict: Callable[[Any], jax.Array],
    mask: Callable[[Any, jax.Array], Any],
    inputs: Any,
    targets: jax.Array,
    masks: jax.Array,
    at_once: int | None = None,
) -> jax.Array:
    """f(m⊙x) of the targets: B inputs, targets [B, T], masks [S, B, N] → [S, B, T].

    Args:
      at_once: masks of each input that f sees at a time. None: on an accelerator as many as fill
        it, on a CPU, which a batch fills, one.
    """
    if at_once is None and jax.default_backend() != "cpu":
        at_once = _ENOUGH * jax.device_count() // len(targets)
    at_once = min(at_once or 1, len(masks))

    def answers(kept: jax.Array) -> jax.Array:
        return jnp.take_along_axis(predict(mask(inputs, kept)), targets, -1)

    # The batch stays one axis, so that every device goes on with its own part of it.
    return jax.lax.map(answers, masks, batch_size=at_once if at_once > 1 else None)


def log_odds(probabilities: jax.Array) -> jax.Array:
    """h = log f − log(1 − f), elementwise, of f at least 0.01 away from 0 and 1.

    What features add to a class is nearer to a sum in h than in f, which saturates.
    """
    f = jnp.clip(probabilities, _CERTAIN, 1 - _CERTAIN)
    return jnp.log(f) - jnp.log1p(-f)


def odds_of_draw(logits: jax.Array, valid: jax.Array) -> jax.Array:
    """log p − log(1 − p), p = softmax of logits [..., N] over the `valid` features; 0 elsewhere.

    Its sigmoid is the chance that a feature is the one that is drawn.
    """
    log_p = jax.nn.log_softmax(logits, where=valid)
    rest = jnp.log1p(-jnp.minimum(jnp.exp(log_p), 1 - 1e-6))
    return jnp.where(valid, log_p - rest, 0)


def standardized(values: jax.Array, clean: jax.Array, targets: jax.Array) -> jax.Array:
    """Values [..., B, T] in standard deviations of f_k(x) over the batch, [B, K]; T of the K.

    An output that is the same of every input is left as it is.
    """
    spread = clean.std(0)
    unit = jnp.where(spread > 1e-6 * jnp.abs(clean).max(0), spread, 1.0)
    return values / unit[targets]


def alpha(temperature: float, num_features: Any) -> Any:
    """What a unit of a map's logits is worth to a score of so many features.

    Beyond 64 features it falls with their number, as what one of them adds to the score does: else
    the map of a finer grid is a flatter one (docs/derivations.md).
    """
    return temperature * _FEW / jnp.maximum(num_features, _FEW)


def mirrored(logits: Any, budget: float) -> Any:
    """A map of one of two classes as that of the other: logits of mean `budget`, any shape.

    What speaks for one speaks against the other, h_0 = −h_1. y is drawn from f(x), so of two
    classes the more probable one's map is the one that learned.
    """
    return 2 * budget - logits
