"""Leave one feature out (Zeiler and Fergus, ECCV 2014)."""

import jax
import jax.numpy as jnp

from fex_jax.attributions.door import public
from fex_jax.attributions.queries import ask_about
from fex_jax.predictors import Inputs, Model


@public
def occlusion(
    model: Model,
    inputs: Inputs,
    targets: jax.Array,
    key: jax.Array | None = None,
    *,
    chunk: int | None = None,
) -> jax.Array:
    """φ_i = f_y(x) − f_y(x without i), [B, N]; N + 1 queries, no randomness."""
    size = model.num_features

    def all_but_one(query: jax.Array, index: jax.Array) -> jax.Array:
        return jnp.arange(1, size + 1) != query  # and at first all

    answers = ask_about(model, inputs, targets, all_but_one, size + 1, chunk)
    return (answers[0] - answers[1:]).T
