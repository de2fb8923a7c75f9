"""Tensors of the Open Inference Protocol, KServe's version 2, as JSON: one is sent, one is read."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from fex_jax.errors import HostError
from fex_jax.host.pixels import preparation

DATATYPES = {
    "BOOL": np.bool_, "UINT8": np.uint8, "UINT16": np.uint16, "UINT32": np.uint32,
    "UINT64": np.uint64, "INT8": np.int8, "INT16": np.int16, "INT32": np.int32, "INT64": np.int64,
    "FP16": np.float16, "FP32": np.float32, "FP64": np.float64, "BF16": np.float32, "BYTES": None,
}  # fmt: skip
_FLOATS = ("FP16", "FP32", "FP64", "BF16")


class Tensors:
    """What a model takes and gives, by its metadata or, where it has none, as it is told.

    Args:
      name: of the endpoint, in messages.
      describe: asks for the metadata; None where the server has none. Called when first needed.
      tensor: the input's name; None: the only one of the metadata, or "input".
      datatype: of `DATATYPES`; None: the metadata's, or that of a batch.
      answer: the output to read; None: the only one of floats.
      mean, std, scale: of pixels that become floats, see `pixels.preparation`.
    """

    def __init__(
        self,
        name: str,
        describe: Callable[[], Any],
        tensor: str | None,
        datatype: str | None,
        answer: str | None,
        mean: Any,
        std: Any,
        scale: float,
    ) -> None:
        self._name, self._describe, self._given = name, describe, (tensor, datatype, answer)
        self._layouts = {of: preparation(mean, std, scale, of) for of in ("NHWC", "NCHW")}

    def encode(self, batch: Any) -> Any:
        """The request's body of strings, or of an array [B, ...].

        Raises:
          HostError: a model that takes something else, and what it takes.
        """
        name, datatype, shape, answer = self._known
        if isinstance(batch, list):
            if datatype not in (None, "BYTES"):
                raise HostError(
                    f"{self._name} takes {datatype}, and is asked about texts, which are BYTES"
                )
            sizes = [len(batch)] + [1] * (len(shape) - 1)
            tensor = {"shape": sizes, "datatype": "BYTES", "data": batch}
        else:
            values = self._as(batch, datatype or _datatype(batch), shape)
            tensor = {
                "shape": list(values.shape),
                "datatype": datatype or _datatype(batch),
                "data": values.ravel().tolist(),
            }
        whole = len(shape) == len(tensor["shape"])
        if whole and shape[0] > 0 and shape[0] != len(batch):
            raise HostError(
                f"{self._name} takes {shape[0]} inputs at a time, and is asked about {len(batch)}: "
                f"give batch_size={shape[0]} and fixed=True"
            )
        asked = {"outputs": [{"name": answer}]} if answer else {}
        return {"inputs": [{"name": name} | tensor]} | asked

    def decode(self, reply: Any) -> np.ndarray:
        """The answers in a reply.

        Raises:
          HostError: another kind of reply, or several tensors and none is named.
        """
        found = reply.get("outputs") if isinstance(reply, dict) else None
        if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
            fields = (
                ", ".join(map(repr, reply)) if isinstance(reply, dict) else type(reply).__name__
            )
            raise HostError(f"its answer has {fields or 'nothing'}; wanted 'outputs', tensors")
        wanted = self._known[-1]
        fit = [one for one in found if wanted is None or one.get("name", wanted) == wanted]
        if len(fit) != 1:
            raise HostError(_which("output", found, "answer"))
        try:
            data, shape = np.asarray(fit[0]["data"]), [int(size) for size in fit[0]["shape"]]
            return data.reshape(shape)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise HostError(
                f"its tensor cannot be read ({type(error).__name__}: {error}); wanted 'data' and "
                "'shape' that fit"
            ) from error

    @functools.cached_property
    def _known(self) -> tuple[str, str | None, list[int], str | None]:
        """Name, datatype and shape of the input, and the output's name: what is known of them."""
        about = self._describe()
        inputs, outputs = (_listed(about, field) for field in ("inputs", "outputs"))
        tensor, datatype, answer = self._given
        fit = [one for one in inputs if tensor in (None, one["name"])]
        if inputs and len(fit) != 1:
            raise HostError(f"{self._name}: " + _which("input", inputs, "tensor"))
        own = fit[0] if fit else {}
        floats = [one for one in outputs if one.get("datatype") in _FLOATS]
        if answer is None and outputs:
            fit = floats if len(floats) == 1 else outputs
            if len(fit) != 1:
                raise HostError(f"{self._name}: " + _which("output", outputs, "answer"))
            answer = fit[0]["name"]
        datatype = datatype or own.get("datatype")
        if datatype is not None and datatype not in DATATYPES:
            raise HostError(f"{self._name} takes {datatype}; wanted one of {', '.join(DATATYPES)}")
        shape = [int(size) for size in own.get("shape") or ()]
        return tensor or own.get("name", "input"), datatype, shape, answer

    def _as(self, batch: np.ndarray, datatype: str, shape: list[int]) -> np.ndarray:
        """An array in the order of the axes and of the datatype that the model takes."""
        pictures = batch.dtype == np.uint8 and batch.ndim == 4
        orders = {"NHWC": batch.shape[1:]}
        if pictures:
            orders["NCHW"] = (batch.shape[3], *batch.shape[1:3])
        one = shape if len(shape) == batch.ndim - 1 else shape[1:]  # some leave out the batch
        fit = [of for of, sizes in orders.items() if not shape or _fits(sizes, one)]
        if not fit or datatype == "BYTES":
            raise HostError(
                f"{self._name} takes {datatype} {shape}, and is asked about {batch.dtype} "
                f"{list(batch.shape)}: give the input that it takes"
            )
        if pictures and datatype in _FLOATS:
            values = self._layouts[fit[0]](batch)
        else:
            values = batch if fit[0] == "NHWC" else batch.transpose(0, 3, 1, 2)
        with np.errstate(invalid="ignore", over="ignore"):
            converted = values.astype(DATATYPES[datatype])
        if datatype not in _FLOATS and not np.array_equal(converted, values):
            raise HostError(
                f"{self._name} takes {datatype}, and is asked about {batch.dtype} that are none"
            )
        return converted


def _datatype(batch: np.ndarray) -> str:
    kinds = {"b": "BOOL", "u": "UINT", "i": "INT", "f": "FP"}
    bits = "" if batch.dtype.kind == "b" else str(8 * batch.dtype.itemsize)
    return kinds[batch.dtype.kind] + bits


def _fits(sizes: tuple[int, ...], shape: list[int]) -> bool:
    return len(sizes) == len(shape) and all(
        open_ < 0 or open_ == size for size, open_ in zip(sizes, shape, strict=True)
    )


def _listed(about: Any, field: str) -> list[dict[str, Any]]:
    found = about.get(field) if isinstance(about, dict) else None
    return [
        one for one in found or () if isinstance(one, dict) and isinstance(one.get("name"), str)
    ]


def _which(what: str, tensors: list[dict[str, Any]], option: str) -> str:
    listed = ", ".join(
        f"{one.get('name')} {one.get('datatype', '')} {one.get('shape', '')}" for one in tensors
    )
    return f"its {what}s are {listed or 'none'}; name one with {option}="
