"""What a training run carries, and gradient steps over the parts of one batch."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

Metrics = dict[str, jax.Array]


class TrainState(NamedTuple):
    """Everything a checkpoint holds."""

    params: dict
    opt_state: optax.OptState
    step: jax.Array  # batches seen
    # Parameters that the next masks are drawn with, where those are older: `training.overlap`.
    previous: dict | None = None


def scale_backbone(scale: float) -> optax.GradientTransformation:
    """Steps of params["backbone"] times `scale`: a pretrained one should move less than heads."""
    return optax.masked(
        optax.scale(scale), lambda params: {name: name == "backbone" for name in params}
    )


def update(
    state: TrainState,
    batch: Any,
    loss: Callable[[dict, Any], tuple[jax.Array, Metrics]],
    optimizer: optax.GradientTransformation,
    num_updates: int,
    num_passes: int = 1,
) -> tuple[TrainState, Metrics]:
    """`num_passes` times over the batch, each in `num_updates` gradient steps on parts of it.

    A pass costs the explainer's forward and backward pass and no query.

    Args:
      state: parameters and optimiser state before.
      batch: a pytree of arrays [B, ...]; `num_updates` must divide B.
      loss: (params, part of the batch) → scalar and its metrics.

    Returns:
      The state of the next batch, and metrics over the steps: means, or where a name ends in _min
      or _max the extreme.
    """

    def step(carry: tuple, part: Any) -> tuple[tuple, Metrics]:
        params, opt_state = carry
        gradients, metrics = jax.grad(loss, has_aux=True)(params, part)
        # A user's strict promotion ends here: optax takes floats to the power of whole numbers.
        with jax.numpy_dtype_promotion("standard"):
            updates, opt_state = optimizer.update(gradients, opt_state, params)
        metrics = metrics | {"grad_norm": optax.tree.norm(gradients)}
        return (optax.apply_updates(params, updates), opt_state), metrics

    # Part j holds inputs j, j + U, j + 2U, …: a strided split keeps every device's share local.
    parts = jax.tree.map(
        lambda x: x.reshape(len(x) // num_updates, num_updates, *x.shape[1:]).swapaxes(0, 1), batch
    )
    one_pass = functools.partial(jax.lax.scan, step, xs=parts)
    (params, opt_state), metrics = jax.lax.scan(
        lambda carry, _: one_pass(carry), (state.params, state.opt_state), length=num_passes
    )
    extremes = {"min": jnp.min, "max": jnp.max}
    summed = {n: extremes.get(n.rsplit("_", 1)[-1], jnp.mean)(v) for n, v in metrics.items()}
    return TrainState(params, opt_state, state.step + 1), summed
