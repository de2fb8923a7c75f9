"""The exact empirical attribution that the policy approximates; an oracle for few features."""

import jax
import jax.numpy as jnp

from fex_jax.attributions.door import public
from fex_jax.predictors import Inputs, Model

_MOST_FEATURES = 16


@public
def empirical(
    model: Model, inputs: Inputs, targets: jax.Array, key: jax.Array | None = None
) -> jax.Array:
    """φ_i(x) = Σ_m m_i f_y(m⊙x) / K_m over all 2^N masks but the empty one (Eq. 2): [B, N].

    N is at most 16: f sees each input 2^N − 1 times, one mask at a time; no randomness. Where an
    input has fewer features, N is their number and φ of the others 0.
    """
    size = model.num_features
    if not 1 <= size <= _MOST_FEATURES:
        raise ValueError(f"the input has {size} features; 2^N queries allow 1 to {_MOST_FEATURES}")
    bits, valid = jnp.arange(size), model.features(inputs)
    repeats = 2.0 ** (~valid).sum(-1, keepdims=True)  # masks that differ where nothing is

    def add(total: jax.Array, number: jax.Array) -> tuple[jax.Array, None]:
        masks = ((number >> bits) & 1) * valid  # [B, N]
        probabilities = model.predict(model.mask(inputs, masks))
        kept = jnp.maximum(masks.sum(-1, keepdims=True), 1)
        share = jnp.take_along_axis(probabilities, targets[:, None], -1) / kept  # [B, 1]
        return total + masks * share / repeats, None

    zero = jnp.zeros((len(targets), size))
    return jax.lax.scan(add, zero, jnp.arange(1, 2**size))[0]
