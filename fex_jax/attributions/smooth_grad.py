"""SmoothGrad: the gradient, averaged over noisy copies of the input."""

import dataclasses

import jax
import jax.numpy as jnp

from fex_jax.attributions.door import public
from fex_jax.attributions.gradients import Output, path_gradients, require
from fex_jax.predictors import Inputs, Model


@public
def smooth_grad(
    model: Model,
    inputs: Inputs,
    targets: jax.Array,
    key: jax.Array,
    *,
    samples: int = 50,
    std: float = 0.1,
    output: Output = "probability",
    chunk: int | None = None,
) -> jax.Array:
    """φ(x) = |E[∇f_y(x + ε)]|, ε normal, summed per feature (Smilkov et al., 2017).

    A gradient's sign says nothing of a feature of many numbers, so their sizes are summed.

    Args:
      model: with `embed`, `logits` and `pool`, or a ValueError says what it lacks.
      inputs: B of them.
      targets: the explained classes y [B].
      key: for ε; see `door.public`.
      samples: whose mean stands for the expectation.
      std: the standard deviation of ε, in units of the embedded inputs.
      output: what f is.
      chunk: gradients in memory at once; B where None.

    Returns:
      [B, N].
    """
    require(model, "SmoothGrad", "embed", "logits", "pool")

    def noisy(sample: jax.Array, index: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        mine = jax.random.fold_in(key[index], sample)
        noise = std * jax.random.normal(mine, x.shape, x.dtype)
        return x + noise, jnp.full_like(x, 1 / samples)

    whole = dataclasses.replace(model, pool=lambda values, _: values)  # the mean comes first
    options = {"output": output, "chunk": chunk}
    mean = path_gradients(whole, inputs, targets, noisy, samples, **options)
    return model.pool(jnp.abs(mean), inputs)
