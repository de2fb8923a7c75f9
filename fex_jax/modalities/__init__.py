"""What differs between images, texts and tables: how things become batches, maps explanations.

A modality is a module here, named by a predictor's `modality`. Other rooms of the house have a
module of that name where one is large, `feeding`, `evaluation` and `serve`; where there is none,
the one here has what the room asks for. It has

    BATCH_SIZE: things that are explained at a time, by default
    THING: what one is called
    as_list(things) -> a list of them, of one or many; not of tables
    explain(explainer, things, targets, **options) -> explanations
    examples(explainer, size) -> a batch of each shape that explaining `size` things can need
    features(explainer) -> in words, what a map tells of
    lines(things, explanations) -> what a terminal shows of them; not of tables
    Reads: how a black box's inputs are read; see `host.black_box`

and, if `explain` makes batches of several shapes of them,

    groups(predictor, inputs, rows, batch_size) -> those batches, of a task's rows

and, if its explainers are exported as one file (`fex_jax.portable`),

    arrays(explainer, length) -> `Arrays`

and, if files hold its things and jobs explain them (`fex_jax.batch`),

    SUFFIXES: of files that are things themselves
    COLUMNS: of tables, where none is named: the first that is there
    CELL: in words, what such a column holds
    BY_PATH: whether a string there is the path of a file
    WORDS: whether a map's features are words
    TOGETHER: how many batches of things are explained in one call
    read(explainer, content) -> what `ranked` takes of a file's or cell's content
    ranked(explainer, things, classes, refine, batch_size) -> of each thing, a `Map` of each class
    overlay(thing, map) -> a picture of both, where a thing is one
"""

import functools
import importlib.util
import inspect
import itertools
import pkgutil
from collections.abc import Callable, Iterable, Sequence
from types import ModuleType
from typing import Any, Literal, NamedTuple

import numpy as np
from tqdm import tqdm

from fex_jax import checks
from fex_jax.targets import PREDICTED, Target, class_numbers

# What all modalities' `explain` takes.
OPTIONS = {
    "refine": checks.either(checks.integer(0, 2**14), checks.one_of("auto")),
    "batch_size": checks.integer(1, 2**16),
    "with_prediction": checks.flag(),
}


class Map(NamedTuple):
    """An explanation of one class."""

    target: int
    probability: float
    attributions: np.ndarray  # [rows, cols] or [n]
    words: list[str] | None = None


class Arrays(NamedTuple):
    """A batch as arrays of fixed shapes."""

    inputs: dict[str, tuple[tuple[int, ...], Any]]  # shapes without the batch, and dtypes
    shape: tuple[int, ...]  # of a map
    batch: Callable[..., Any]  # the arrays as what `Model`'s bind takes
    description: dict[str, Any]  # JSON


def padded(count: int, most: int) -> int:
    """The size of the batch that `count` things are explained in: a power of two, up to `most`.

    So XLA compiles for a few sizes, and one picture costs what one picture costs. Of more than
    `most` things every batch has the same size.
    """
    return most if count >= most else min(1 << (count - 1).bit_length(), most)


def explain(explainer: Any, *things: Any, **options: Any) -> Any:
    """What `explainer`'s modality explains of things; see `Explainer.__call__`.

    Raises:
      TypeError: an option that there is not.
    """
    modality = of(explainer.predictor)
    known = list(inspect.signature(modality.explain).parameters)[1:] if options else []
    if unknown := [name for name in options if name not in known]:
        raise TypeError(
            f"an explainer of {explainer.predictor.modality} takes {', '.join(known)}; got "
            f"{', '.join(unknown)}"
        )
    return modality.explain(explainer, *things, **options)


def bar(batches: Sequence[Any], progress: bool, what: str = "explanations") -> Iterable[Any]:
    """The batches, with a bar of those that are left once they take more than three seconds."""
    if not progress or len(batches) < 2:
        return batches  # threads would wait for each other: every tqdm takes the lock of all
    return tqdm(batches, what, unit="batch", delay=3)


def check_options(options: dict[str, Any], own: dict[str, checks.Check], targets: Any) -> None:
    """Raises a ValueError at the first option of `explain` that does not fit."""
    checks.require(options, OPTIONS | own, "explain")
    if not options["with_prediction"] and targets is None:
        raise ValueError(
            "explain: with_prediction is False; expected targets beside it, for the predicted "
            "class takes a prediction"
        )


def each(
    explainer: Any,
    things: Iterable[np.ndarray],
    count: int,
    targets: Target | Sequence[Target] | np.ndarray | None,
    top_k: int | None,
    what: str,
    *,
    batch_size: int,
    progress: bool,
    **options: Any,
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, np.ndarray | None]:
    """Explains things that are arrays of one shape, as a modality's `explain` says.

    Args:
      things: `count`, read when their batch comes.
      what: they are called in errors.
      options: of `Explainer.explain`.

    Returns:
      Maps [B, N], the classes that they explain [B], f(x) [B, K] or None, and how faithful maps are
      [B] or None; with `top_k` all but f(x) [B, k, …].

    Raises:
      ValueError: a class or an option that cannot be used, or `top_k` beside targets.
    """
    most = checks.integer(1, len(explainer.predictor.labels))
    own = {"top_k": checks.either(most, checks.nothing())}
    check_options(options | {"top_k": top_k, "batch_size": batch_size}, own, targets)
    if None not in (top_k, targets):
        raise ValueError(f"explain: top_k is {top_k}; expected no targets beside it")
    classes = np.full((count, top_k or 1), PREDICTED, np.int32)
    if targets is not None:
        classes = class_numbers(targets, count, explainer.predictor.labels, what)[:, None]
    size, ahead, parts = padded(count, batch_size), iter(things), []
    for start in bar(range(0, count, size), progress):
        asked = classes[start : start + size]
        batch = np.stack(list(itertools.islice(ahead, len(asked))))
        found = explainer.explain(pad(batch, size), pad(asked, size), **options)
        parts.append([x if x is None else x[: len(asked)] for x in found])
    maps, chosen, answers, faithfulness = (
        None if arrays[0] is None else np.concatenate(arrays) for arrays in zip(*parts, strict=True)
    )
    if top_k is None:
        maps, chosen = maps[:, 0], chosen[:, 0]
        faithfulness = None if faithfulness is None else faithfulness[:, 0]
    return maps, chosen, answers, faithfulness


def pad(array: np.ndarray, size: int) -> np.ndarray:
    """Repeats the last entry, so that batches have few shapes."""
    if len(array) == size:
        return array
    return np.concatenate([array, np.repeat(array[-1:], size - len(array), 0)])


def warmup(
    explainer: Any,
    sizes: Sequence[int],
    *,
    top_k: int = 1,
    refine: int | Literal["auto"] = 0,
    batch_size: int | None = None,
    with_prediction: bool = True,
) -> None:
    """Compiles what calls with so many things, and these options, need.

    A black box is not asked: what takes its answers is given others, and what asks while it
    refines is compiled by the first call.

    Args:
      explainer: an `explain.Explainer`.
      sizes: numbers of things; all that are padded alike share what is compiled.
      top_k: classes of each.
      refine: queries about each map.
      batch_size: of the calls; None: their default.
      with_prediction: of the calls.

    Raises:
      ValueError: sizes that are none, or an explainer of tables.
    """
    checks.require({"sizes": sizes}, {"sizes": checks.several(checks.integer(1, 2**16))}, "warmup")
    modality, predictor = of(explainer.predictor), explainer.predictor
    if not hasattr(modality, "examples"):
        raise ValueError(
            f"warmup compiles for pictures and texts; an explainer of {predictor.modality} "
            "compiles at its first call"
        )
    alone = bool(predictor.inside or predictor.absence)
    if refine and not alone:
        return
    count = len(predictor.labels)
    most = batch_size or modality.BATCH_SIZE
    for size in sorted({padded(size, most) for size in sizes}):
        for batch in modality.examples(explainer, size):
            classes = np.full((size, top_k), PREDICTED if with_prediction else 0, np.int32)
            answers = None if alone else np.full((size, count), 1 / count, np.float32)
            given = {"refine": refine, "with_prediction": with_prediction, "answers": answers}
            explainer.explain(batch, classes, **given)


def require_images(predictor: Any, what: str) -> None:
    """Raises a ValueError at `what` only explainers of images have."""
    if predictor.modality != "images":
        raise ValueError(
            f"{what} is of explainers of images, and this one explains {predictor.modality}"
        )


def of(predictor: Any) -> ModuleType:
    """The module of what a predictor takes."""
    return named(predictor.modality)


def names() -> list[str]:
    """Those of all modalities."""
    return [module.name for module in pkgutil.iter_modules(__path__)]


@functools.cache
def named(modality: str, room: str = __name__) -> ModuleType:
    """The module of a modality in a room, a package; where the room has none, that of here."""
    own = importlib.util.find_spec(f"{room}.{modality}")
    return importlib.import_module(own.name if own else f"{__name__}.{modality}")
