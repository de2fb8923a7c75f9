"""TensorFlow Lite files by ai-edge-litert, quantised ones too."""

import pathlib
import queue
from collections.abc import Sequence
from typing import Any

import numpy as np

from fex_jax import errors
from fex_jax.errors import HostError
from fex_jax.host import digests, pixels
from fex_jax.host.answers import brief
from fex_jax.host.predictor import HostPredictor, Input, host

_SLACK = 0.05  # of a sum: the softmax of integers is itself not exact


def tflite(
    path: str | pathlib.Path,
    *,
    labels: Sequence[str] | str | pathlib.Path | None = None,
    input: Input | None = None,
    mean: Sequence[float] | float = 0.0,
    std: Sequence[float] | float = 1.0,
    scale: float = 1 / 255,
    threads: int = 2,
    **options: Any,
) -> HostPredictor:
    """A file of one input and one output [b, K]; b is mostly 1.

    The input is [b, D] or of images, channels last or first. Each of `threads` has an interpreter
    of its own. A quantised input of uint8 gets the pixels as they are, for quantisation is the
    normalisation there; another real input x is quantised as round(x / s) + z, and answers are
    s (q − z), with the file's s and z.

    Args:
      path: the file.
      labels: names of the classes, or a file of them; None: "class 0" and so on.
      input: (height, width, channels) or (columns,), if given, as in the file.
      mean: pixels become (x · `scale` − `mean`) / `std`, unless the network takes uint8.
      threads: interpreters.
      options: of `host`; output is "softmax" where not given. Quantised rows need not sum to 1:
        some probabilities that do must round to them.

    Raises:
      ValueError: another kind of network.
    """
    errors.require("ai_edge_litert")
    from ai_edge_litert.interpreter import Interpreter

    digest, name = digests.of_file(path, mean, std, scale), pathlib.Path(path).name
    interpreters: queue.SimpleQueue[Any] = queue.SimpleQueue()
    for _ in range(threads):
        try:
            interpreter = Interpreter(str(path), num_threads=1)
            interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise ValueError(f"{path} is no network that LiteRT reads: {brief(error)}") from error
        interpreters.put(interpreter)
    inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
    if len(inputs) != 1 or len(outputs) != 1:
        raise ValueError(
            f"{name} has {len(inputs)} inputs and {len(outputs)} outputs; wanted one of each"
        )
    taken, given = inputs[0], outputs[0]
    shape, classes = tuple(map(int, taken["shape"])), int(given["shape"][-1])
    if len(shape) not in (2, 4):
        raise ValueError(f"{name} takes {list(shape)}; wanted images [b, H, W, C] or rows [b, D]")
    order = pixels.layout(shape, input, name) if len(shape) == 4 else "NHWC"
    known = pixels.upright(shape, order)
    if input is not None and not pixels.fits(input, known):
        raise ValueError(f"input is {input!r}, but {name} takes {known}")
    raw = taken["dtype"] == np.uint8 and len(shape) == 4
    prepare = pixels.preparation(mean, std, scale, order) if len(shape) == 4 else np.float32
    if labels is None:
        labels = [f"class {i}" for i in range(classes)]

    def call(batch: np.ndarray) -> np.ndarray:
        values = pixels.arranged(batch, order) if raw else _quantise(prepare(batch), taken)
        interpreter = interpreters.get()
        try:
            interpreter.set_tensor(taken["index"], values)
            interpreter.invoke()
            answer = interpreter.get_tensor(given["index"])
        finally:
            interpreters.put(interpreter)
        found = _real(answer, given)
        if step and softmax:  # half a step off each at most, they may still sum to 1
            least = np.clip(found - step / 2, 0, None).sum(-1)
            if least.max() > 1 + _SLACK:
                raise HostError(
                    f"{name} answers probabilities that sum to {found[least.argmax()].sum():.3g}, "
                    f"more than rounding to {step:.2g} explains: open it with output='sigmoid', if "
                    "its labels are independent, or say what they are"
                )
        return found

    step = float(given["quantization"][0])
    softmax = options.get("output", "softmax") == "softmax" and "tolerance" not in options
    settings = {
        "name": name,
        "digest": digest,
        "batch_size": shape[0],
        "fixed": True,
        "threads": threads,
        "tolerance": max(0.01, classes * step / 2),  # from below: small ones round to 0
    }
    return host(call, labels=labels, input=known, **settings | options)


def _quantise(values: np.ndarray, detail: dict[str, Any]) -> np.ndarray:
    if detail["dtype"] == np.float32:
        return values
    scale, zero = detail["quantization"]
    if not scale:
        raise HostError(f"the network takes {detail['dtype'].__name__} without a scale")
    limits = np.iinfo(detail["dtype"])
    return np.clip(np.round(values / scale) + zero, limits.min, limits.max).astype(detail["dtype"])


def _real(answer: np.ndarray, detail: dict[str, Any]) -> np.ndarray:
    scale, zero = detail["quantization"]
    if not scale:
        return answer
    return (answer.astype(np.float32) - zero) * np.float32(scale)
