"""fex-jax: fast explanations of black-box classifiers, learned by policy gradients.

explainer = fex_jax.load("runs/mine")
table = fex_jax.evaluate(["fex", "rise"], explainer, images)
"""

import importlib
import os
from typing import Any

# TensorFlow, which only reads data here, prints a screenful when it is imported.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

# Where the public functions are; they are imported when they are first used.
_PUBLIC = {
    "evaluate": "fex_jax.evaluation",
    "load": "fex_jax.explain",
}

__all__ = list(_PUBLIC)  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *_PUBLIC]
