"""AttCAT: gradient times token at every block, weighted by the attention of CLS."""

import jax
import jax.numpy as jnp

from fex_jax.attributions.door import public
from fex_jax.attributions.gradients import require, tapped_gradients
from fex_jax.predictors import Inputs, Model


@public
def attcat(model: Model, inputs: Inputs, targets: jax.Array, key: jax.Array) -> jax.Array:
    """Σ_l mean_heads(A^l)_{CLS,i} Σ_d h^l_id ∂y/∂h^l_id, h^l block l's input (Qiang et al., 2022).

    Args:
      model: with `network` and `tokens`, or a ValueError says what it lacks.
      inputs: B of them.
      targets: the explained classes y [B].
      key: unused, here for all methods to be called alike.

    Returns:
      [B, N].
    """
    require(model, "AttCAT", "network", "tokens")
    values, gradients = tapped_gradients(model, inputs, targets, "hidden", "attention")
    scores = 0.0
    blocks = zip(values["attention"], values["hidden"], gradients["hidden"], strict=True)
    for weights, hidden, gradient in blocks:
        contributions = (hidden * gradient).sum(-1).astype(jnp.float32)  # [B, T]
        scores += weights[:, :, 0].mean(1) * contributions
    return model.tokens(scores, inputs)
