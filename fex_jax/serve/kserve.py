"""The Open Inference Protocol (KServe's version 2): tensors as JSON.

In go `images`, BYTES [B] of base64, `pixels`, UINT8 [B, H, W, 3], or `texts`, BYTES [B]; and
perhaps `classes`, INT32 [B] or BYTES [B] of labels; [B, 1] is [B]. Out come `attributions` and
`logits`, FP32 [B, rows, cols], `targets` and `probabilities`; of texts [B, n], 0 where a text has
fewer words, and `words`. A request's `outputs` may choose of them.
"""

from collections.abc import Sequence
from importlib import metadata
from typing import Any, NamedTuple

import numpy as np

from fex_jax.serve.found import Found

VERSION = "1"  # of the model: a server has one
_INTEGERS = {"UINT8", "INT8", "INT16", "INT32", "INT64", "UINT16", "UINT32", "UINT64"}


class Tensor(NamedTuple):
    """What goes in or comes out, as metadata says it."""

    name: str
    datatype: str
    shapes: tuple[tuple[int, ...], ...]  # the usual one, and others that are taken; -1: any size

    def json(self) -> dict[str, Any]:
        """An entry of the metadata."""
        return {"name": self.name, "datatype": self.datatype, "shape": list(self.shapes[0])}

    def check(self, shape: Sequence[int]) -> None:
        """Raises a ValueError at a shape that is none of its own."""
        for own in self.shapes:
            if len(own) == len(shape) and all(
                a in (-1, b) for a, b in zip(own, shape, strict=True)
            ):
                return
        wanted = " or ".join(str(list(own)) for own in self.shapes)
        raise ValueError(f"{self.name}: shape is {list(shape)}; expected {wanted}, -1 for any size")


EACH = (-1,), (-1, 1)  # one value for each thing
CLASSES = Tensor("classes", "INT32", EACH)


def server() -> dict[str, Any]:
    """Metadata of the server."""
    try:
        version = metadata.version("fex-jax")
    except metadata.PackageNotFoundError:  # run from its source
        version = ""
    return {"name": "fex_jax", "version": version, "extensions": []}


def model(service: Any) -> dict[str, Any]:
    """Metadata of the model."""
    return {
        "name": service.name,
        "versions": [VERSION],
        "platform": "fex_jax",
        "inputs": [one.json() for one in (*service.modality.INPUTS, CLASSES)],
        "outputs": [one.json() for one in _outputs(service)],
    }


def _outputs(service: Any) -> list[Tensor]:
    maps = (-1, *service.modality.sizes(service.explainer))
    return [
        Tensor("attributions", "FP32", (maps,)),
        Tensor("logits", "FP32", (maps,)),
        Tensor("targets", "INT32", ((-1,),)),
        Tensor("probabilities", "FP32", ((-1, len(service.labels)),)),
        *service.modality.OUTPUTS,
    ]


async def infer(service: Any, body: dict[str, Any]) -> dict[str, Any]:
    """The answer to a request.

    Raises:
      ValueError: what cannot be used.
    """
    names = _wanted(body.get("outputs"), [one.name for one in _outputs(service)])
    things, targets = read(body, service.modality.INPUTS)
    found = await service.explain(*await service.read(things, targets))
    tensors = _tensors(found)
    answer = {
        "model_name": service.name,
        "model_version": VERSION,
        "outputs": [_output(name, tensors[name]) for name in names],
        "parameters": {"labels": list(service.labels)},
    }
    return answer | ({"id": body["id"]} if isinstance(body.get("id"), str) else {})


def _wanted(given: Any, names: list[str]) -> list[str]:
    """The names of the outputs that a request asks for: all, if it asks for none."""
    if given is None or given == []:
        return names
    if not isinstance(given, list) or not all(isinstance(one, dict) for one in given):
        raise ValueError("outputs: expected a list of tensors, each with its name")
    asked = [one.get("name") for one in given]
    for name in asked:
        if name not in names:
            raise ValueError(f"outputs: {name!r} is unknown; expected some of {', '.join(names)}")
    return asked


def read(body: dict[str, Any], inputs: Sequence[Tensor]) -> tuple[list[Any], list[Any] | None]:
    """The things, one of the inputs, and their targets.

    Raises:
      ValueError: a tensor that is missing, unknown, or not what it says.
    """
    names, known = [one.name for one in inputs], {one.name: one for one in (*inputs, CLASSES)}
    tensors = {}
    for tensor in body.get("inputs") if isinstance(body.get("inputs"), list) else ():
        if not isinstance(tensor, dict) or not isinstance(tensor.get("name"), str):
            raise ValueError("inputs: expected tensors, each with name, shape, datatype and data")
        name = tensor["name"]
        if name in tensors:
            raise ValueError(f"inputs: {name} is there twice")
        tensors[name] = _tensor(tensor)
        if name in known:
            known[name].check(tensor["shape"])
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
    return (values[:, 0] if values.shape[1:] == (1,) else values).tolist()


def _tensors(found: Sequence[Found]) -> dict[str, np.ndarray]:
    """Of some things, each explained for one class, all that can be asked for."""
    words = [one.own.get("words") for one in found]
    most = max(one.attributions.shape[-1] for one in found)

    def padded(maps: np.ndarray) -> np.ndarray:
        return np.pad(maps[0], [(0, 0)] * (maps.ndim - 2) + [(0, most - maps.shape[-1])])

    tensors = {
        "attributions": np.stack([padded(one.attributions) for one in found]),
        "logits": np.stack([padded(one.logits) for one in found]),
        "targets": np.array([one.classes[0] for one in found]),
        "probabilities": np.stack([one.probabilities for one in found]),
    }
    if words[0] is not None:
        rows = [[*row, *[""] * (most - len(row))] for row in words]
        tensors["words"] = np.array(rows, object)
    return tensors


def _output(name: str, array: np.ndarray) -> dict[str, Any]:
    datatype = {"f": "FP32", "i": "INT32", "O": "BYTES"}[array.dtype.kind]
    data = array.ravel().tolist()
    return {"name": name, "shape": list(array.shape), "datatype": datatype, "data": data}
