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
      ValueError: a file that cannot be read, several inputs or outputs, channels first, or a size
        that must be given.
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
    taken, given = _shape(model, "inputs", name), _shape(model, "outputs", name)
    if taken is None and input is None:
        raise ValueError(f"{name} does not say what it takes; give input=(height, width, channels)")
    if len(taken or ()) == 4 and taken[1] in (1, 3, 4) and taken[3] not in (1, 3, 4):
        if prepare is None or input is None:
            raise ValueError(
                f"{name} takes {taken}, channels first; wanted (height, width, channels): give "
                "prepare, batch → what the model takes, and input=(height, width, channels)"
            )
    elif prepare is None and taken is not None and input not in (None, "text"):
        sizes = zip(tuple(input), taken[1:], strict=False)
        if len(input) != len(taken) - 1 or any(b not in (None, a) for a, b in sizes):
            raise ValueError(f"input is {tuple(input)}, but {name} takes {taken[1:]}")
    if input is None:
        input = taken[1:]
        if None in input:
            raise ValueError(f"{name} takes {taken}; give input, the sizes left open")
    if labels is None:
        if not given or given[-1] is None:
            raise ValueError(f"{name} does not say how many classes it has; give labels")
        labels = [f"class {i}" for i in range(given[-1])]

    def call(batch: Any) -> np.ndarray:
        given = prepare(batch) if prepare else np.asarray(batch, np.float32)
        return library.ops.convert_to_numpy(model(given, training=False))

    settings = {"name": name, "digest": digest}
    return host(call, labels=labels, input=input, **settings | options)


def _shape(model: Any, which: str, name: str) -> tuple[int | None, ...] | None:
    """Of the only input or output; None: the model has not been built of layers that say it."""
    tensors = getattr(model, which, None)
    if not tensors:
        return None
    if len(tensors) != 1:
        raise ValueError(
            f"{name} has {len(tensors)} {which}; wanted one: give host a function of it"
        )
    return tuple(tensors[0].shape)
