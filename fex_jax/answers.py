"""What an answer of f is worth."""

import jax
import jax.numpy as jnp

_CERTAIN = 0.01  # probabilities nearer to 0 or 1 count as this near: log-odds stay within ± 4.6


def log_odds(probabilities: jax.Array) -> jax.Array:
    """h = log f − log(1 − f), elementwise, of f at least 0.01 away from 0 and 1.

    What features add to a class is nearer to a sum in h than in f, which saturates.
    """
    f = jnp.clip(probabilities, _CERTAIN, 1 - _CERTAIN)
    return jnp.log(f) - jnp.log1p(-f)
