"""Black boxes that know nothing of JAX: functions, other libraries' models, endpoints.

    predictor = host.host(function, labels=("cat", "dog"), input=(224, 224, 3))
    predictor = host.open("model.onnx")  # or model.tflite, model.keras, http://…, package.module:f
    predictor(images)  # uint8 [B, 224, 224, 3] → probabilities [B, K]

An adapter's module is imported, and its library with it, when that adapter is used.
"""

from fex_jax.host.answers import HostError
from fex_jax.host.bank import Bank
from fex_jax.host.opening import open
from fex_jax.host.predictor import HostPredictor, host

__all__ = ["Bank", "HostError", "HostPredictor", "host", "open"]
