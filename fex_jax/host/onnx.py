"""ONNX files and ONNX Runtime sessions."""

import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from fex_jax import errors
from fex_jax.host import digests, pixels
from fex_jax.host.answers import AssumedLogits, brief
from fex_jax.host.predictor import HostPredictor, host, read_labels

_FLOATS = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64}


def onnx(
    model: str | pathlib.Path | Any,
    *,
    labels: Sequence[str] | str | pathlib.Path | None = None,
    input: tuple[int, ...] | str | None = None,
    mean: Sequence[float] | float = 0.0,
    std: Sequence[float] | float = 1.0,
    scale: float = 1 / 255,
    answer: str | None = None,
    digest: str | None = None,
    **options: Any,
) -> HostPredictor:
    """A network of one input; batch size, order of the axes and types are read from the file.

    Args:
      model: a file, or an `onnxruntime.InferenceSession`.
      labels: names of the classes, or a file of them; None: "class 0" and so on.
      input: (height, width, channels), (columns,) or "text", where the file leaves a size open.
      mean: pixels become (x · `scale` − `mean`) / `std`, unless the network takes uint8.
      answer: the output to read; None: the only one of floats in rows and columns.
      digest: of a session; a file has its own.
      options: of `host`; output is "logits" where not given.

    Raises:
      ValueError: another kind of network, or a size that must be given.
    """
    errors.require("onnxruntime")
    import onnxruntime

    if isinstance(model, str | pathlib.Path):
        digest = digest or digests.of_file(model, mean, std, scale, answer)
        name = pathlib.Path(model).name
        try:
            session = onnxruntime.InferenceSession(str(model), providers=_providers(onnxruntime))
        except Exception as error:
            raise ValueError(
                f"{model} is no network that ONNX Runtime reads: {brief(error)}"
            ) from error
    else:
        session, name = model, "the ONNX session"
    if len(session.get_inputs()) != 1:
        names = ", ".join(node.name for node in session.get_inputs())
        raise ValueError(f"{name} takes {names}; wanted one input: wrap it in a function for host")
    taken, given = session.get_inputs()[0], _answer(session, answer, name)
    shape = [size if isinstance(size, int) else None for size in taken.shape]
    settings: dict[str, Any] = {"name": name, "digest": digest or "", "output": "logits"}
    order = pixels.layout(shape, input, name) if len(shape) == 4 else "NHWC"
    known: Any = pixels.upright(shape, order)
    prepare = pixels.preparation(mean, std, scale, order) if len(shape) == 4 else np.asarray
    if taken.type == "tensor(uint8)":

        def convert(batch: Any) -> np.ndarray:
            return pixels.arranged(batch, order)

    elif taken.type == "tensor(string)":
        known = "text"
        column = len(shape) == 2

        def convert(batch: Any) -> np.ndarray:
            texts = np.array(batch, object)
            return texts[:, None] if column else texts

    elif taken.type in _FLOATS:

        def convert(batch: Any) -> np.ndarray:
            return prepare(batch).astype(_FLOATS[taken.type])

    else:
        raise ValueError(f"{name} takes {taken.type}; wanted floats, uint8 or strings")
    if input is not None and input != known and (known == "text" or not pixels.fits(input, known)):
        raise ValueError(f"input is {input!r}, but {name} takes {known!r}")
    if known != "text" and None in known:
        if input is None:
            raise ValueError(f"{name} takes {taken.shape}; give input, the sizes it leaves open")
        known = tuple(input)
    if shape[:1] not in ([], [None]):
        settings |= {"batch_size": shape[0], "fixed": True}
    classes = given.shape[-1] if given.shape and isinstance(given.shape[-1], int) else None
    if labels is None:
        if classes is None:
            raise ValueError(f"{name} does not say how many classes it has; give labels")
        labels = [f"class {i}" for i in range(classes)]
    elif isinstance(labels, str | pathlib.Path):
        labels = read_labels(labels)
    if len(given.shape) == 2 and classes == 1 and len(labels) == 2 and "output" not in options:
        raise ValueError(
            f"{name} answers one number for two classes: say what it is of the second, "
            "output='logits' or, of a probability, 'softmax'"
        )
    if len(given.shape) == 2 and classes not in (None, 1, len(labels)):
        raise ValueError(f"{name} answers {classes} numbers, and there are {len(labels)} labels")

    assumed = AssumedLogits(name)

    def call(batch: Any) -> np.ndarray:
        found = session.run([given.name], {taken.name: convert(batch)})[0]
        return found if "output" in options else assumed(found)

    return host(call, labels=labels, input=known, **settings | options)


def _providers(runtime: Any) -> list[str]:
    ours = ("CUDAExecutionProvider", "CPUExecutionProvider")
    return [provider for provider in ours if provider in runtime.get_available_providers()]


def _answer(session: Any, wanted: str | None, name: str) -> Any:
    outputs = session.get_outputs()
    if wanted is not None:
        fit = [node for node in outputs if node.name == wanted]
    else:
        fit = [node for node in outputs if node.type in _FLOATS and len(node.shape) in (1, 2)]
    if len(fit) != 1:
        listed = ", ".join(f"{node.name} {node.type} {node.shape}" for node in outputs)
        raise ValueError(
            f"{name} gives {listed}; wanted one output of floats [B, K]: name it with answer=, "
            "and export scikit-learn's classifiers with zipmap=False"
        )
    return fit[0]
