"""Asking f about many masked versions of a batch, a bounded number of them at a time."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from fex_jax.predictors import Inputs, Model

# (query [], input []) → its mask [N]: a query's and an input's number, in a vmap over many.
Draw = Callable[[jax.Array, jax.Array], jax.Array]

_CPU_BYTES = 2**24  # about the caches: activations beyond them cost time
_MOST_AT_ONCE = 1024  # more does not make an accelerator faster


def target_probabilities(
    model: Model, inputs: Inputs, targets: jax.Array, masks: jax.Array, chunk: int | None = None
) -> jax.Array:
    """f_y(m⊙x) of every mask of every input, [M, B]; masks [M, B, N]: see `ask_about`."""
    return ask_about(model, inputs, targets, lambda q, b: masks[q, b], len(masks), chunk)


def ask_about(
    model: Model,
    inputs: Inputs,
    targets: jax.Array,
    draw: Draw,
    num_queries: int,
    chunk: int | None = None,
) -> jax.Array:
    """f_y(m⊙x) of `num_queries` masks of each input; f sees `chunk` inputs at a time.

    Masks exist for one chunk at a time, so that memory does not grow with their number.

    Args:
      model: the classifier, of which `predict` and `mask` are used.
      inputs: the clean inputs, B of them.
      targets: [B] the classes y.
      draw: (query, input) → its mask; 1 = kept.
      num_queries: M, masks of each input.
      chunk: masked inputs in memory together, at most, whatever M and B are; None:
        `default_chunk`.

    Returns:
      [M, B].
    """
    batch = len(targets)
    pairs = num_queries * batch
    steps = -(-pairs // min(chunk or default_chunk(model, inputs), pairs))
    chunk = -(-pairs // steps)  # alike, for what fills up the last one is asked, too

    def step(first: jax.Array) -> jax.Array:
        # The last step is filled up with masks from the start, so that all have one shape.
        query, index = jnp.divmod((first + jnp.arange(chunk)) % pairs, batch)
        clean = jax.tree.map(lambda x: jnp.asarray(x)[index], inputs)
        probabilities = model.predict(model.mask(clean, jax.vmap(draw)(query, index)))
        return jnp.take_along_axis(probabilities, jnp.asarray(targets)[index, None], -1)[:, 0]

    answers = jax.lax.map(step, jnp.arange(0, pairs, chunk))
    return answers.reshape(-1)[:pairs].reshape(num_queries, batch)


def default_chunk(model: Model, inputs: Inputs) -> int:
    """How many inputs f may see at a time: the activations of that many fill a part of the device.

    Counts the two largest arrays that `predict` makes of one input. The part is a quarter of an
    accelerator's memory, and 16 MiB, about its caches, of a CPU.
    """
    one = jax.tree.map(lambda x: jax.ShapeDtypeStruct((1, *x.shape[1:]), x.dtype), inputs)
    equations = jax.make_jaxpr(model.predict)(one).jaxpr.eqns
    sizes = [v.aval.size * v.aval.dtype.itemsize for e in equations for v in e.outvars]
    stats = jax.devices()[0].memory_stats() or {}
    available = stats.get("bytes_limit", 4 * _CPU_BYTES) // 4
    return min(max(available // max(sum(sorted(sizes)[-2:]), 1), 1), _MOST_AT_ONCE)


def bernoulli(keys: jax.Array, size: int, keep: float) -> Draw:
    """Masks of `size` that keep each feature with probability `keep`, from a key for each input."""

    def draw(query: jax.Array, index: jax.Array) -> jax.Array:
        return jax.random.bernoulli(jax.random.fold_in(keys[index], query), keep, (size,))

    return draw
