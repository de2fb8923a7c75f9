"""The classes to explain: those of a training batch, and those that people name."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Target = int | str


def choose_classes(key: jax.Array, probabilities: jax.Array, rule: str, count: int) -> jax.Array:
    """Classes [B, T] to train on: f(x) [B, K] → the most probable ("argmax"), or drawn from f(x)
    ("sampled") or uniformly ("uniform"), one after the other, none twice.

    T = `count`, at most K − 1: answers for all classes but one say what the last is worth, too.
    """
    ranking = jnp.zeros_like(probabilities) if rule == "uniform" else jnp.log(probabilities)
    if rule != "argmax":  # the order of these is that of draws without replacement
        ranking += jax.random.gumbel(key, ranking.shape)
    return jax.lax.top_k(ranking, max(1, min(count, ranking.shape[-1] - 1)))[1]


def class_numbers(
    targets: Target | Sequence[Target] | np.ndarray,
    count: int,
    labels: tuple[str, ...],
    what: str,
) -> np.ndarray:
    """Class numbers [B] from numbers or labels, one for all inputs or one for each.

    Args:
      targets: a class, or `count` of them.
      count: B.
      labels: names of the K classes.
      what: the inputs' name in errors.

    Raises:
      ValueError: names the first class that is not there, or how many came.
    """
    single = isinstance(targets, str) or np.ndim(targets) == 0
    listed = [targets] * count if single else list(targets)
    if len(listed) != count:
        raise ValueError(f"{len(listed)} targets for {count} {what}; give one for each, or one")
    return np.array([_class_number(target, labels) for target in listed], np.int32)


def _class_number(target: Any, labels: tuple[str, ...]) -> int:
    if isinstance(target, str):
        if target not in labels:
            shown = ", ".join(labels[:10])
            shown += f", … ({len(labels)} in all)" if len(labels) > 10 else ""
            raise ValueError(f"class {target!r} is unknown; classes: {shown}")
        return labels.index(target)
    if isinstance(target, bool) or not isinstance(target, int | np.integer | jax.Array):
        raise ValueError(f"target {target!r} is neither a class number nor a label")
    if not 0 <= int(target) < len(labels):
        raise ValueError(f"class {int(target)} is out of range; expected 0 to {len(labels) - 1}")
    return int(target)
