"""fex-jax: fast explanations of black-box classifiers, learned by policy gradients."""

import importlib
import os
from typing import Any

# TensorFlow, which only reads data here, prints a screenful when it is imported.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

# Imported when they are used: JAX and TensorFlow take seconds.
_PLACES = {"fit": "fex_jax.training.fit"}
_EXTRA = {"fit": "train"}

__all__ = list(_PLACES)


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(importlib.import_module(_PLACES[name]), name)
    except ModuleNotFoundError as error:
        raise ImportError(
            f"fex_jax.{name} needs {error.name}: pip install 'fex-jax[{_EXTRA[name]}]'"
        ) from error
