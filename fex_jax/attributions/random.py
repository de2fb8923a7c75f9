"""Scores that know nothing: what every other method must beat."""

import jax

from fex_jax.predictors import Inputs, Model


def random(model: Model, inputs: Inputs, targets: jax.Array, key: jax.Array) -> jax.Array:
    """φ_i ~ U(0, 1), [B, N]; no queries."""
    return jax.random.uniform(key, (len(targets), model.num_features))
