"""What differs between images, texts and tables: how things become batches, maps explanations.

A modality is a module here, named by a predictor's `modality`; it has

    explain(explainer, things, targets, **options) -> explanations
"""

import importlib
from types import ModuleType
from typing import Any

from fex_jax import checks

# What all modalities' `explain` takes.
OPTIONS = {"refine": checks.integer(0, 2**14), "batch_size": checks.integer(1, 2**16)}


def of(predictor: Any) -> ModuleType:
    """The module of what a predictor takes."""
    return importlib.import_module(f"{__name__}.{predictor.modality}")
