"""The exact empirical attribution that the policy approximates; an oracle for few features."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

_MOST_FEATURES = 16


def empirical(
    predict: Callable[[jax.Array], jax.Array],
    mask: Callable[[jax.Array, jax.Array], jax.Array],
    inputs: jax.Array,
    targets: jax.Array,
    num_features: int,
) -> jax.Array:
    """φ_i(x) = Σ_m m_i f_y(m⊙x) / K_m over all 2^N masks but the empty one (Eq. 2).

    Args:
      predict: inputs → probabilities [B, K].
      mask: (inputs, masks [B, N]) → inputs.
      inputs: the clean inputs [B, ...].
      targets: the explained classes [B].
      num_features: N, at most 16: f sees each input 2^N − 1 times, one mask at a time.

    Returns:
      [B, N].
    """
    if not 1 <= num_features <= _MOST_FEATURES:
        raise ValueError(f"num_features is {num_features}; 2^N queries allow 1 to {_MOST_FEATURES}")
    bits = jnp.arange(num_features)

    def add(total: jax.Array, number: jax.Array) -> tuple[jax.Array, None]:
        kept = (number >> bits) & 1  # [N]
        masks = jnp.broadcast_to(kept, (len(targets), num_features))
        probabilities = predict(mask(inputs, masks))
        share = jnp.take_along_axis(probabilities, targets[:, None], -1) / kept.sum()  # [B, 1]
        return total + kept * share, None

    zero = jnp.zeros((len(targets), num_features))
    return jax.lax.scan(add, zero, jnp.arange(1, 2**num_features))[0]
