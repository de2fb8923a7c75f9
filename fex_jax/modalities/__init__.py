"""What differs between images, texts and tables: how things become batches, maps explanations.

A modality is a module here, named by a predictor's `modality`; it has

    explain(explainer, things, targets, **options) -> explanations
    examples(explainer, size) -> a batch of each shape that explaining `size` things can need
"""

import importlib
from collections.abc import Sequence
from types import ModuleType
from typing import Any, Literal

import numpy as np

from fex_jax import checks
from fex_jax.targets import PREDICTED

# What all modalities' `explain` takes.
OPTIONS = {
    "refine": checks.either(checks.integer(0, 2**14), checks.one_of("auto")),
    "batch_size": checks.integer(1, 2**16),
    "with_prediction": checks.flag(),
}


def padded(count: int, most: int) -> int:
    """The size of the batch that `count` things are explained in: a power of two, up to `most`.

    So XLA compiles for a few sizes, and one picture costs what one picture costs. Of more than
    `most` things every batch has the same size.
    """
    return most if count >= most else min(1 << (count - 1).bit_length(), most)


def check_options(options: dict[str, Any], own: dict[str, checks.Check], targets: Any) -> None:
    """Raises a ValueError at the first option of `explain` that does not fit."""
    checks.require(options, OPTIONS | own, "explain")
    if not options["with_prediction"] and targets is None:
        raise ValueError(
            "explain: with_prediction is False; expected targets beside it, for the predicted "
            "class takes a prediction"
        )


def warmup(
    explainer: Any,
    sizes: Sequence[int],
    *,
    top_k: int = 1,
    refine: int | Literal["auto"] = 0,
    batch_size: int | None = None,
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
    """
    checks.require({"sizes": sizes}, {"sizes": checks.several(checks.integer(1, 2**16))}, "warmup")
    modality, predictor = of(explainer.predictor), explainer.predictor
    alone = bool(predictor.inside or predictor.absence)
    if refine and not alone:
        return
    count = len(predictor.labels)
    most = batch_size or modality.BATCH_SIZE
    for size in sorted({padded(size, most) for size in sizes}):
        for batch in modality.examples(explainer, size):
            classes = np.full((size, top_k), PREDICTED, np.int32)
            answers = None if alone else np.full((size, count), 1 / count, np.float32)
            explainer.explain(batch, classes, refine=refine, answers=answers)


def of(predictor: Any) -> ModuleType:
    """The module of what a predictor takes."""
    return importlib.import_module(f"{__name__}.{predictor.modality}")
