"""Black boxes that know nothing of JAX: functions, other libraries' models, endpoints.

    predictor = fex_jax.host(function, labels=("cat", "dog"), input=(224, 224, 3))
    predictor = fex_jax.host.open("model.onnx")  # .tflite, .keras, http://…, package.module:f
    predictor = fex_jax.host.open(session)  # of ONNX Runtime, a Keras model, a pipeline, …
    predictor(images)  # uint8 [B, 224, 224, 3] → probabilities [B, K]

An adapter's module is imported, and its library with it, when that adapter is used; so is JAX when
`OwnMask` or `Superpixels` is.
"""

import importlib
import sys
import types
from typing import Any

from fex_jax.errors import HostError
from fex_jax.host.bank import Bank
from fex_jax.host.opening import check, find_module, is_name, is_object, open, parse_options
from fex_jax.host.predictor import HostPredictor, host

__all__ = [
    "Bank",
    "HostError",
    "HostPredictor",
    "OwnMask",
    "Superpixels",
    "check",
    "find_module",
    "host",
    "is_name",
    "is_object",
    "open",
    "parse_options",
]


def __getattr__(name: str) -> Any:
    if name in ("OwnMask", "Superpixels"):
        return getattr(importlib.import_module("fex_jax.host.features"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class _Host(types.ModuleType):
    """The package is the function `host` too, for `fex_jax.host` can be only one thing."""

    __call__ = staticmethod(host)


sys.modules[__name__].__class__ = _Host
