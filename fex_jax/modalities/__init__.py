"""What differs between images and texts: how things become batches and maps explanations.

A modality is a module here, named by a predictor's `modality`; it has

    explain(explainer, things, targets, **options) -> explanations
"""

import importlib
from types import ModuleType
from typing import Any


def of(predictor: Any) -> ModuleType:
    """The module of what a predictor takes."""
    return importlib.import_module(f"{__name__}.{predictor.modality}")
