"""Gradients of the explained class: along paths to the inputs, and at what a network's taps see.

Shapes: B inputs, N features, K classes, S steps.
"""

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from fex_jax.answers import LOG_PROBABILITIES, PROBABILITIES
from fex_jax.predictors import Inputs, Model

Output = Literal["probability", "logit", "log_probability"]

# (step, index, x) → (point, direction), both like x: for one input x [...], the batch's `index`-th.
Path = Callable[[jax.Array, jax.Array, jax.Array], tuple[jax.Array, jax.Array]]


def require(model: Model, method: str, *fields: str) -> None:
    """Raises a ValueError naming the fields that `method` needs and `model` lacks."""
    if missing := [field for field in fields if getattr(model, field) is None]:
        raise ValueError(
            f"{method} looks inside the classifier, and this Model has no {', '.join(missing)}: "
            "set them, or choose a method that only queries it"
        )


def baselines(model: Model, inputs: Inputs, baseline: ArrayLike | None) -> jax.Array:
    """x′ of each input, like x [B, ...]: what is given, or where None, x without any feature."""
    if baseline is None:
        return model.embed(model.blank(inputs))
    shape = jax.eval_shape(model.embed, inputs).shape
    try:
        return jnp.broadcast_to(baseline, shape)
    except ValueError:
        raise ValueError(
            f"baseline has shape {np.shape(baseline)}, which does not broadcast to {shape}"
        ) from None


def path_gradients(
    model: Model,
    inputs: Inputs,
    targets: jax.Array,
    path: Path,
    steps: int,
    *,
    output: Output,
    chunk: int | None,
) -> jax.Array:
    """Σ_s pool(direction_s ⊙ ∇f_y(point_s)), for the S points and directions of each input's path.

    Args:
      model: with `embed`, `logits` and `pool`.
      inputs: B of them.
      targets: the explained classes y [B].
      path: (step, index, x) → (point, direction).
      steps: S.
      output: what f is.
      chunk: of the B S gradients, how many are in memory at once; B where None.

    Returns:
      [B, N], or what `model.pool` returns.

    Raises:
      ValueError: another output; names those there are.
    """
    outputs = {"probability": PROBABILITIES[model.output], "logit": lambda logits: logits}
    if model.output in LOG_PROBABILITIES:
        outputs["log_probability"] = LOG_PROBABILITIES[model.output]
    if output not in outputs:
        raise ValueError(f"output {output!r} is not one of {', '.join(outputs)}")
    batch = len(targets)
    chunk = min(chunk or batch, batch * steps)
    x = model.embed(inputs)  # [B, ...]

    def add(scores: jax.Array, first: jax.Array) -> tuple[jax.Array, None]:
        step, index = jnp.divmod(first + jnp.arange(chunk), batch)  # [chunk]
        some, classes = jax.tree.map(lambda leaf: jnp.asarray(leaf)[index], (inputs, targets))
        points, directions = jax.vmap(path)(step, index, x[index])

        def explained(points: jax.Array) -> jax.Array:
            return _of_targets(outputs[output](model.logits(points, some)), classes)

        share = model.pool(directions * jax.grad(explained)(points), some).astype(scores.dtype)
        # The last chunk is filled up with steps that do not exist.
        exists = (step < steps).reshape(-1, *[1] * (share.ndim - 1))
        return scores.at[index].add(jnp.where(exists, share, 0)), None

    scores = jnp.zeros(jax.eval_shape(model.pool, x, inputs).shape, jnp.float32)
    return jax.lax.scan(add, scores, jnp.arange(0, batch * steps, chunk))[0]


def tapped(model: Model, inputs: Inputs, *names: str) -> dict[str, list[jax.Array]]:
    """What the network's taps of these names see, in the order of the blocks; see `models.Tap`."""
    return _run(model, inputs, names)[1]


def tapped_gradients(
    model: Model, inputs: Inputs, targets: jax.Array, *names: str
) -> tuple[dict[str, list[jax.Array]], dict[str, list[jax.Array]]]:
    """The same values, and the gradient of each input's target logit with respect to them."""

    def explained(shifts: dict[str, list[jax.Array]]) -> tuple[jax.Array, dict]:
        logits, values = _run(model, inputs, names, shifts)
        return _of_targets(logits, targets), values

    # The derivative by a value is that by a zero added to it.
    shapes = jax.eval_shape(lambda: tapped(model, inputs, *names))
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    gradients, values = jax.grad(explained, has_aux=True)(zeros)
    return values, gradients


def _run(
    model: Model,
    inputs: Inputs,
    names: tuple[str, ...],
    shifts: dict[str, list[jax.Array]] | None = None,
) -> tuple[jax.Array, dict[str, list[jax.Array]]]:
    values = {name: [] for name in names}

    def tap(name: str, value: jax.Array) -> jax.Array:
        if name in values:
            value = value + shifts[name][len(values[name])] if shifts else value
            values[name].append(value)
        return value

    logits = model.network(inputs, tap)
    for name in names:
        if not values[name]:
            raise ValueError(f"the network {type(model.network).__name__} taps no {name!r}")
    return logits, values


def _of_targets(outputs: jax.Array, targets: jax.Array) -> jax.Array:
    """The sum over the batch, whose gradient is each input's own."""
    return jnp.take_along_axis(outputs, targets[:, None], axis=-1).sum()
