"""The exact empirical attribution that the policy approximates; an oracle for few features."""

import jax
import jax.numpy as jnp

from fex_jax.predictors import Inputs, Model

_MOST_FEATURES = 16


def empirical(
    model: Model, inputs: Inputs, targets: jax.Array, key: jax.Array | None = None
) -> jax.Array:
    """φ_i(x) = Σ_m m_i f_y(m⊙x) / K_m over all 2^N masks but the empty one (Eq. 2): [B, N].

    N is at most 16: f sees each input 2^N − 1 times, one mask at a time; no randomness.
    """
    size = model.num_features
    if not 1 <= size <= _MOST_FEATURES:
        raise ValueError(f"the input has {size} features; 2^N queries allow 1 to {_MOST_FEATURES}")
    bits = jnp.arange(size)

    def add(total: jax.Array, number: jax.Array) -> tuple[jax.Array, None]:
        kept = (number >> bits) & 1  # [N]
        masks = jnp.broadcast_to(kept, (len(targets), size))
        probabilities = model.predict(model.mask(inputs, masks))
        share = jnp.take_along_axis(probabilities, targets[:, None], -1) / kept.sum()  # [B, 1]
        return total + kept * share, None

    zero = jnp.zeros((len(targets), size))
    return jax.lax.scan(add, zero, jnp.arange(1, 2**size))[0]
