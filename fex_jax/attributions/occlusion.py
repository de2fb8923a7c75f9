"""Leave one feature out (Zeiler and Fergus, ECCV 2014)."""

import jax
import jax.numpy as jnp

from fex_jax.attributions.queries import target_probabilities
from fex_jax.predictors import Inputs, Model


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
    masks = jnp.concatenate([jnp.ones((1, size), bool), ~jnp.eye(size, dtype=bool)])
    masks = jnp.broadcast_to(masks[:, None], (size + 1, len(targets), size))
    answers = target_probabilities(model, inputs, targets, masks, chunk)
    return (answers[0] - answers[1:]).T
