"""Scores that know nothing: what every other method must beat."""

import jax

from fex_jax.attributions.door import public
from fex_jax.predictors import Inputs, Model


@public
def random(model: Model, inputs: Inputs, targets: jax.Array, key: jax.Array) -> jax.Array:
    """φ_i ~ U(0, 1), [B, N]; no queries."""
    return jax.vmap(lambda key: jax.random.uniform(key, (model.num_features,)))(key)
