"""GradSHAP: expected gradients at random points between a baseline and noisy inputs."""

from collections.abc import Callable

import jax
from jax.typing import ArrayLike

from fex_jax.attributions.door import public
from fex_jax.attributions.gradients import Output, baselines, path_gradients, require
from fex_jax.predictors import Inputs, Model

# (sample, index, x) → (α [], noise like x): for one input x [...], the batch's `index`-th.
Draw = Callable[[jax.Array, jax.Array, jax.Array], tuple[jax.Array, jax.Array]]


@public
def grad_shap(
    model: Model,
    inputs: Inputs,
    targets: jax.Array,
    key: jax.Array,
    *,
    samples: int = 100,
    std: float = 0.1,
    baseline: ArrayLike | None = None,
    output: Output = "probability",
    chunk: int | None = None,
) -> jax.Array:
    """φ(x) = E[(x̃ − x′) ⊙ ∇f_y(x′ + α (x̃ − x′))], x̃ = x + ε, per feature (Lundberg, 2017).

    With α uniform on [0, 1] and ε normal, drawn anew for every sample of every input.

    Args:
      model: with `embed`, `logits` and `pool`, or a ValueError says what it lacks.
      inputs: B of them.
      targets: the explained classes y [B].
      key: for α and ε; see `door.public`.
      samples: whose mean stands for the expectation.
      std: the standard deviation of ε.
      baseline: x′, of a shape that broadcasts to the embedded inputs'; the input without any of
        its features where None.
      output: what f is.
      chunk: gradients in memory at once; B where None.

    Returns:
      [B, N].
    """

    def draw(sample: jax.Array, index: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        # A key for each, so that the draws do not depend on the chunk.
        mine = jax.random.fold_in(key[index], sample)
        for_alpha, for_noise = jax.random.split(mine)
        noise = std * jax.random.normal(for_noise, x.shape, x.dtype)
        return jax.random.uniform(for_alpha, dtype=x.dtype), noise

    return grad_shap_of(
        model, inputs, targets, draw, samples, baseline=baseline, output=output, chunk=chunk
    )


def grad_shap_of(
    model: Model,
    inputs: Inputs,
    targets: jax.Array,
    draw: Draw,
    samples: int,
    *,
    baseline: ArrayLike | None = None,
    output: Output = "probability",
    chunk: int | None = None,
) -> jax.Array:
    """`grad_shap` [B, N] with the caller's draws: (sample, index, x) → (α, ε)."""
    require(model, "GradSHAP", "embed", "logits", "pool")
    starts = baselines(model, inputs, baseline)

    def path(sample: jax.Array, index: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        alpha, noise = draw(sample, index, x)
        difference = x + noise - starts[index]
        return starts[index] + alpha * difference, difference / samples

    return path_gradients(model, inputs, targets, path, samples, output=output, chunk=chunk)
