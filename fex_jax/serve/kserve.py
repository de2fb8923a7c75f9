"""The Open Inference Protocol (KServe's version 2): tensors as JSON.

In go `images`, BYTES [B] of base64, `pixels`, UINT8 [B, H, W, 3], or `texts`, BYTES [B]; and
perhaps `classes`, INT32 [B] or BYTES [B] of labels. Out come `attributions` and `logits`, FP32
[B, rows, cols], `targets` and `probabilities`; of texts [B, n], 0 where a text has fewer words, and
`words`.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from fex_jax.serve.found import Found

_INTEGERS = {"UINT8", "INT8", "INT16", "INT32", "INT64", "UINT16", "UINT32", "UINT64"}


def read(body: dict[str, Any], names: Sequence[str]) -> tuple[list[Any], list[Any] | None]:
    """The things, a tensor of one of the names, and their targets.

    Raises:
      ValueError: a tensor that is missing, unknown, or not what it says.
    """
    tensors = {}
    for tensor in body.get("inputs") if isinstance(body.get("inputs"), list) else ():
        if not isinstance(tensor, dict) or not isinstance(tensor.get("name"), str):
            raise ValueError("inputs: expected tensors, each with name, shape, datatype and data")
        if tensor["name"] in tensors:
            raise ValueError(f"inputs: {tensor['name']} is there twice")
        tensors[tensor["name"]] = _tensor(tensor)
    given = [tensors.pop(name) for name in names if name in tensors]
    classes = tensors.pop("classes", None)
    if len(given) != 1 or tensors:
        unknown = f"; unknown: {', '.join(tensors)}" if tensors else ""
        raise ValueError(f"inputs: expected {' or '.join(names)}, and perhaps classes{unknown}")
    return given[0], classes


def _tensor(tensor: dict[str, Any]) -> list[Any]:
    name, shape, data = tensor["name"], tensor.get("shape"), tensor.get("data")
    datatype = tensor.get("datatype")
    sizes = isinstance(shape, list) and all(type(size) is int and size >= 0 for size in shape)
    if not (sizes and shape and isinstance(data, list)):
        raise ValueError(f"{name}: expected a shape and data, both lists")
    if datatype not in [*_INTEGERS, "BYTES"]:
        raise ValueError(f"{name}: datatype is {datatype!r}; expected BYTES, or integers")
    try:
        values = np.array(data, object if datatype == "BYTES" else None).reshape(shape)
    except (ValueError, OverflowError):  # rows of several lengths, too
        raise ValueError(f"{name}: its data has no shape {shape}") from None
    if datatype == "BYTES":
        fits = all(isinstance(value, str) for value in values.flat)
    else:
        fits = values.dtype.kind in "iu" or not values.size
    if not fits:
        wanted = "strings" if datatype == "BYTES" else "whole numbers"
        raise ValueError(f"{name}: datatype is {datatype}, but its data are not all {wanted}")
    return values.tolist()


def write(found: Sequence[Found], model: str, labels: tuple[str, ...]) -> dict[str, Any]:
    """The answer to a request of some things, each explained for one class."""
    words = [one.own.get("words") for one in found]
    most = max(one.attributions.shape[-1] for one in found)

    def padded(maps: np.ndarray) -> np.ndarray:
        return np.pad(maps[0], [(0, 0)] * (maps.ndim - 2) + [(0, most - maps.shape[-1])])

    outputs = [
        _output("attributions", "FP32", np.stack([padded(one.attributions) for one in found])),
        _output("logits", "FP32", np.stack([padded(one.logits) for one in found])),
        _output("targets", "INT32", np.array([one.classes[0] for one in found])),
        _output("probabilities", "FP32", np.stack([one.probabilities for one in found])),
    ]
    if words[0] is not None:
        rows = [[*row, *[""] * (most - len(row))] for row in words]
        outputs.append(_output("words", "BYTES", np.array(rows, object)))
    return {"model_name": model, "outputs": outputs, "parameters": {"labels": list(labels)}}


def _output(name: str, datatype: str, array: np.ndarray) -> dict[str, Any]:
    data = array.ravel().tolist()
    return {"name": name, "shape": list(array.shape), "datatype": datatype, "data": data}
