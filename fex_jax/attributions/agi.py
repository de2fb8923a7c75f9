"""AGI: gradients along the ways on which the input becomes one of other classes."""

import jax
import jax.numpy as jnp

from fex_jax.answers import PROBABILITIES
from fex_jax.attributions.door import public
from fex_jax.attributions.gradients import require
from fex_jax.predictors import Inputs, Model


@public
def agi(
    model: Model,
    inputs: Inputs,
    targets: jax.Array,
    key: jax.Array | None = None,
    *,
    classes: int = 5,
    steps: int = 20,
    step_size: float = 0.05,
) -> jax.Array:
    """φ(x) = −Σ_k Σ_j ∇f_y(x_kj) ⊙ (x_k,j+1 − x_kj), per feature (Pan, Li and Zhu, IJCAI 2021).

    x_k,j+1 = x_kj + ε sign ∇f_k(x_kj) begins at x and ends where k is the most probable class, or
    after `steps`. So no baseline is chosen: Σ_i φ_i is about what f_y loses on all these ways. k
    are the most probable classes beside y; the authors draw theirs. Pixels may leave their range.

    Args:
      model: with `embed`, `logits` and `pool`, or a ValueError says what it lacks.
      inputs: B of them.
      targets: the explained classes y [B].
      key: unused, here for all methods to be called alike.
      classes: how many k, at most all but y.
      steps: of a way at most.
      step_size: ε, in units of the embedded inputs.

    Returns:
      [B, N].
    """
    require(model, "AGI", "embed", "logits", "pool")
    x = model.embed(inputs)

    def probabilities(x: jax.Array) -> jax.Array:
        return PROBABILITIES[model.output](model.logits(x, inputs))

    def gradient(x: jax.Array, of: jax.Array) -> jax.Array:
        return jax.grad(lambda x: jnp.take_along_axis(probabilities(x), of[:, None], -1).sum())(x)

    first = probabilities(x)
    itself = jnp.arange(first.shape[-1]) == targets[:, None]
    count = min(classes, first.shape[-1] - 1)
    others = jax.lax.top_k(jnp.where(itself, -jnp.inf, first), count)[1]  # [B, k]

    def way(total: jax.Array, goal: jax.Array) -> tuple[jax.Array, None]:
        def go(state: tuple[jax.Array, jax.Array], _: None) -> tuple[tuple, None]:
            place, total = state
            there = probabilities(place).argmax(-1) == goal
            move = step_size * jnp.sign(gradient(place, goal))
            move = jnp.where(there.reshape(-1, *[1] * (x.ndim - 1)), 0, move)
            return (place + move, total - gradient(place, targets) * move), None

        return jax.lax.scan(go, (x, total), None, steps)[0][1], None

    total, _ = jax.lax.scan(way, jnp.zeros_like(x), others.T)
    return model.pool(total, inputs)
