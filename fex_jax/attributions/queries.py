"""Asking f about many masked versions of a batch, a bounded number of them at a time."""

import jax
import jax.numpy as jnp

from fex_jax.predictors import Inputs, Model

_CPU_BYTES = 2**28  # activations beyond the caches gain nothing
_MOST_AT_ONCE = 1024  # more does not make an accelerator faster


def target_probabilities(
    model: Model, inputs: Inputs, targets: jax.Array, masks: jax.Array, chunk: int | None = None
) -> jax.Array:
    """f_y(m⊙x) of every mask of every input; f sees `chunk` inputs at a time.

    Args:
      model: the classifier, of which `predict` and `mask` are used.
      inputs: the clean inputs, B of them.
      targets: [B] the classes y.
      masks: [M, B, N], M masks of each input; 1 = kept.
      chunk: masked inputs in memory together, whatever M and B are; None: `default_chunk`.

    Returns:
      [M, B].
    """
    pairs = masks.shape[0] * masks.shape[1]
    chunk = min(chunk or default_chunk(model, inputs), pairs)
    # The last step is filled up with masks from the start, so that all have one shape.
    numbers = jnp.arange(-(-pairs // chunk) * chunk).reshape(-1, chunk) % pairs
    flat = masks.reshape(pairs, -1)

    def step(numbers: jax.Array) -> jax.Array:
        index = numbers % masks.shape[1]
        clean = jax.tree.map(lambda x: jnp.asarray(x)[index], inputs)
        probabilities = model.predict(model.mask(clean, flat[numbers]))
        return jnp.take_along_axis(probabilities, jnp.asarray(targets)[index, None], -1)[:, 0]

    return jax.lax.map(step, numbers).reshape(-1)[:pairs].reshape(masks.shape[:2])


def default_chunk(model: Model, inputs: Inputs) -> int:
    """How many inputs f may see at a time: the activations of that many fill a part of the device.

    Counts the two largest arrays that `predict` makes of one input. The part is a quarter of an
    accelerator's memory, and 256 MiB on a CPU.
    """
    one = jax.tree.map(lambda x: jax.ShapeDtypeStruct((1, *x.shape[1:]), x.dtype), inputs)
    equations = jax.make_jaxpr(model.predict)(one).jaxpr.eqns
    sizes = [v.aval.size * v.aval.dtype.itemsize for e in equations for v in e.outvars]
    stats = jax.devices()[0].memory_stats() or {}
    available = stats.get("bytes_limit", 4 * _CPU_BYTES) // 4
    return min(max(available // max(sum(sorted(sizes)[-2:]), 1), 1), _MOST_AT_ONCE)


def random_masks(key: jax.Array, num_masks: int, batch: int, size: int, keep: float) -> jax.Array:
    """Masks that keep each feature with probability `keep`: [M, B, N] bool."""
    return jax.random.bernoulli(key, keep, (num_masks, batch, size))
