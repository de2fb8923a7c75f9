"""The classes to explain: those of a training batch, and those that people name."""

import re
import reprlib
import unicodedata
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from fex_jax import escape

Target = int | str
PREDICTED = -1  # in place of a class's number: of column i of [B, k], the i-th most probable


def choose_classes(key: jax.Array, probabilities: jax.Array, rule: str, count: int) -> jax.Array:
    """Classes [B, T] to train on: f(x) [B, K] → the most probable ("argmax"), or drawn from f(x)
    ("sampled") or uniformly ("uniform"), one after the other, none twice.

    T = `count`, at most K. Of probabilities at most K − 1: answers for all classes but one say what
    the last is worth, too.
    """
    most = probabilities.shape[-1] - (rule != "uniform")
    ranking = jnp.zeros_like(probabilities) if rule == "uniform" else jnp.log(probabilities)
    if rule != "argmax":  # the order of these is that of draws without replacement
        ranking += jax.random.gumbel(key, ranking.shape)
    return jax.lax.top_k(ranking, max(1, min(count, most)))[1]


def ranked(answers: jax.Array, classes: jax.Array) -> jax.Array:
    """Classes [B, k], those that are `PREDICTED` by their rank in f(x) [B, K]; jittable."""
    if classes.shape[1] == 1:  # needs no sorting
        predicted = answers.argmax(-1, keepdims=True)
    else:
        predicted = jnp.argsort(-answers, stable=True)[:, : classes.shape[1]]
    return jnp.where(classes == PREDICTED, predicted, classes).astype(jnp.int32)


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
      ValueError: names the first class that is not there or whose label several have, or how many
        came.
    """
    listed = isinstance(targets, Sequence) and not isinstance(targets, str | bytes)
    single = not listed and np.ndim(targets) == 0
    listed = [targets] * count if single else list(targets)
    if len(listed) != count:
        raise ValueError(f"{len(listed)} targets for {count} {what}; give one for each, or one")
    return np.array([_class_number(target, labels) for target in listed], np.int32)


def named(name: str, labels: Sequence[str]) -> list[int]:
    """Numbers of the classes with exactly this name, or else with one that folds to the same."""
    exact = [i for i, label in enumerate(labels) if label == name]
    return exact or [i for i, label in enumerate(labels) if fold(label) == fold(name)]


def _class_number(target: Any, labels: tuple[str, ...]) -> int:
    if isinstance(target, str):
        found = named(target, labels)
        if not found:
            shown = escape.terminal(", ".join(labels[:10]))
            shown += f", … ({len(labels)} in all)" if len(labels) > 10 else ""
            raise ValueError(f"class {reprlib.repr(target)} is unknown; classes: {shown}")
        if len(found) > 1:
            numbers = ", ".join(map(str, found))
            raise ValueError(
                f"class {reprlib.repr(target)} is ambiguous: give one of the numbers {numbers}"
            )
        return found[0]
    number = np.asarray(None if isinstance(target, Sequence) else target)
    if number.shape or number.dtype.kind not in "iu" or np.ma.is_masked(target):
        raise ValueError(f"target {reprlib.repr(target)} is neither a class number nor a label")
    if not 0 <= int(number) < len(labels):
        raise ValueError(f"class {int(number)} is out of range; expected 0 to {len(labels) - 1}")
    return int(number)


def match_classes(
    names: Sequence[str], labels: Sequence[str], by: Literal["name", "position"] = "name"
) -> np.ndarray | None:
    """The predictor's class for each class of the data, int [len(names)].

    Args:
      names: of the data's classes.
      labels: of the predictor's.
      by: "name": the same name but for case, spaces, underscores and hyphens, where one of exactly
        that name is not there; a name that several classes have pairs them in their order.
        "position": the same number.

    Returns:
      None where a name has no counterpart, or not as many.

    Raises:
      ValueError: by position, and they are not as many; another `by`.
    """
    if by == "position":
        if len(names) != len(labels):
            raise ValueError(
                f"{len(names)} classes of the data cannot be matched by position with the "
                f"predictor's {len(labels)}"
            )
        return np.arange(len(names))
    if by != "name":
        raise ValueError(f"classes are matched by {by!r}; choose name or position")
    keys = (str, fold)
    grouped = [(key, _places(names, key), _places(labels, key)) for key in keys]
    matched = []
    for number, name in enumerate(names):
        for key, ours, theirs in grouped:
            same, there = ours[key(name)], theirs.get(key(name), [])
            if len(same) == len(there):
                matched.append(there[same.index(number)])
                break
        else:
            return None
    return np.array(matched) if len(set(matched)) == len(matched) else None


def fold(name: str) -> str:
    """A class's name without what may differ: case, spaces, underscores, hyphens, composition."""
    return re.sub(r"[\s_-]+", "", unicodedata.normalize("NFKC", name).casefold()) or name


def _places(names: Sequence[str], key: Callable[[str], str]) -> dict[str, list[int]]:
    """key(name) → the numbers of the names that have it."""
    places: dict[str, list[int]] = {}
    for number, name in enumerate(names):
        places.setdefault(key(name), []).append(number)
    return places
