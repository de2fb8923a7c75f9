"""What differs between images and texts: how things become batches and maps explanations.

A modality is a module here, named by a predictor's `modality`; it has

    explain(explainer, things, targets, **options) -> explanations
    examples(explainer, size) -> a batch of each shape that explaining `size` things can need
"""

import importlib
from types import ModuleType
from typing import Any

from fex_jax import checks

# What all modalities' `explain` takes.
OPTIONS = {
    "refine": checks.integer(0, 2**14),
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


def of(predictor: Any) -> ModuleType:
    """The module of what a predictor takes."""
    return importlib.import_module(f"{__name__}.{predictor.modality}")
