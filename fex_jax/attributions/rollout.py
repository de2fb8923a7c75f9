"""Attention rollout: how much of each token attention carries to CLS, through all blocks."""

import jax
import jax.numpy as jnp

from fex_jax.attributions.door import public
from fex_jax.attributions.gradients import require, tapped
from fex_jax.predictors import Inputs, Model


@public
def rollout(model: Model, inputs: Inputs, targets: jax.Array, key: jax.Array) -> jax.Array:
    """CLS row of Â_L ⋯ Â_1, Â = ½ mean_heads(A) + ½ I (Abnar & Zuidema, 2020); for no class.

    Args:
      model: with `network` and `tokens`, or a ValueError says what it lacks.
      inputs: B of them.
      targets: unused but for their number; here for all methods to be called alike.
      key: unused, here for the same.

    Returns:
      [B, N].
    """
    require(model, "attention rollout", "network", "tokens")
    attentions = [weights.mean(1) for weights in tapped(model, inputs, "attention")["attention"]]
    row = jax.nn.one_hot(jnp.zeros_like(targets), attentions[0].shape[-1])  # CLS, [B, T]
    for attention in reversed(attentions):
        row = (row + (row[:, None] @ attention)[:, 0]) / 2
    return model.tokens(row, inputs)
