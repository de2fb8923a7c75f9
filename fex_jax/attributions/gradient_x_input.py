"""Gradient×Input: a linear model's contributions, with the gradient at the input as weights."""

import jax

from fex_jax.attributions.door import public
from fex_jax.attributions.gradients import Output, path_gradients, require
from fex_jax.predictors import Inputs, Model


@public
def gradient_x_input(
    model: Model,
    inputs: Inputs,
    targets: jax.Array,
    key: jax.Array | None = None,
    *,
    output: Output = "probability",
    chunk: int | None = None,
) -> jax.Array:
    """φ(x) = x ⊙ ∇f_y(x), summed per feature (Shrikumar et al., 2016).

    Args:
      model: with `embed`, `logits` and `pool`, or a ValueError says what it lacks.
      inputs: B of them.
      targets: the explained classes y [B].
      key: unused, here for all methods to be called alike.
      output: what f is.
      chunk: gradients in memory at once; B where None.

    Returns:
      [B, N].
    """
    require(model, "Gradient×Input", "embed", "logits", "pool")
    return path_gradients(
        model, inputs, targets, lambda step, index, x: (x, x), 1, output=output, chunk=chunk
    )
