"""Keras 3 models, of any of its backends."""

import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fex_jax import errors
from fex_jax.host import digests
from fex_jax.host.answers import brief
from fex_jax.host.predictor import HostPredictor, Input, host


def keras(
    model: str | pathlib.Path | Any,
    *,
    labels: Sequence[str] | str | pathlib.Path | None = None,
    input: Input | None = None,
    prepare: Callable[[Any], Any] | None = None,
    **options: Any,
) -> HostPredictor:
    """A model of one input and one output.

    Args:
      model: a model, or a .keras file; a file that holds code (a Lambda layer) is refused.
      labels: names of the classes, or a file of them; None: "class 0" and so on.
      input: where the model leaves a size open: (height, width, channels), (columns,) or "text".
      prepare: batch → what the model takes; None: float32 as they are, pixels from 0 to 255.
      options: of `host`. What the answers are (output) is "softmax" where not given.

    Raises:
      ValueError: a file that cannot be read, or a size that must be given.
    """
    errors.require("keras")
    import keras as library

    name = getattr(model, "name", None) or pathlib.Path(model).name
    if isinstance(model, str | pathlib.Path):
        digest = digests.of_file(model)
        try:
            model = library.saving.load_model(model, compile=False, safe_mode=True)
        except Exception as error:
            raise ValueError(f"{model} is no model that Keras reads: {brief(error)}") from error
    else:
        digest = digests.of_arrays((w.path, library.ops.convert_to_numpy(w)) for w in model.weights)
    if input is None:
        input = tuple(model.input_shape[1:])
        if None in input:
            raise ValueError(f"{name} takes {model.input_shape}; give input, the sizes left open")
    if labels is None:
        labels = [f"class {i}" for i in range(model.output_shape[-1])]

    def call(batch: Any) -> np.ndarray:
        given = prepare(batch) if prepare else np.asarray(batch, np.float32)
        return library.ops.convert_to_numpy(model(given, training=False))

    settings = {"name": name, "digest": digest}
    return host(call, labels=labels, input=input, **settings | options)
