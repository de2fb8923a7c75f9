"""Integrated Gradients: the gradient, averaged on the way from a baseline to the input."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from fex_jax.attributions.door import public
from fex_jax.attributions.gradients import Output, baselines, path_gradients, require
from fex_jax.predictors import Inputs, Model


@public
def integrated_gradients(
    model: Model,
    inputs: Inputs,
    targets: jax.Array,
    key: jax.Array | None = None,
    *,
    steps: int = 100,
    baseline: ArrayLike | None = None,
    output: Output = "probability",
    chunk: int | None = None,
) -> jax.Array:
    """φ(x) = (x − x′) ⊙ ∫₀¹ ∇f_y(x′ + α (x − x′)) dα, summed per feature (Sundararajan, 2017).

    Σ_i φ_i = f_y(x) − f_y(x′), up to the error of the integral: Gauss-Legendre quadrature, whose
    error falls fastest with the steps for a smooth f, and which is captum's default too.

    Args:
      model: with `embed`, `logits` and `pool`, or a ValueError says what it lacks.
      inputs: B of them.
      targets: the explained classes y [B].
      key: unused, here for all methods to be called alike.
      steps: points of the quadrature.
      baseline: x′, of a shape that broadcasts to the embedded inputs'; the input without any of
        its features where None.
      output: what f is.
      chunk: gradients in memory at once; B where None.

    Returns:
      [B, N].
    """
    require(model, "Integrated Gradients", "embed", "logits", "pool")
    nodes, weights = np.polynomial.legendre.leggauss(steps)  # on [−1, 1]
    nodes, weights = jnp.float32((1 + nodes) / 2), jnp.float32(weights / 2)
    starts = baselines(model, inputs, baseline)

    def path(step: jax.Array, index: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        difference = x - starts[index]
        return starts[index] + nodes[step] * difference, weights[step] * difference

    return path_gradients(model, inputs, targets, path, steps, output=output, chunk=chunk)
