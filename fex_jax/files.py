"""Files that strangers wrote: each is the right kind of file, or named in one sentence."""

import json
import pathlib
from typing import Any

import jax
import numpy as np
from safetensors import SafetensorError, safe_open

from fex_jax import escape

_LARGEST_JSON = 2**20  # bytes


def inside(directory: pathlib.Path, name: str) -> pathlib.Path:
    """A file or folder of a directory, which may not be a link that leads out of it.

    The files of the Hugging Face cache are links to its `blobs`, which are taken.

    Raises:
      ValueError: it leads elsewhere.
    """
    path = directory / name
    root, place = directory.resolve(), path.resolve()
    cached = [parent.parent / "blobs" for parent in root.parents if parent.name == "snapshots"]
    if not any(place.is_relative_to(allowed) for allowed in (root, *cached)):
        raise ValueError(f"{path} is a link out of its folder; put the file itself there")
    return path


def read_json(path: pathlib.Path) -> dict[str, Any]:
    """The object in a JSON file of at most 1 MiB.

    Raises:
      ValueError: it is too large, no UTF-8, no JSON (NaN and Infinity are none) or no object.
    """
    with path.open("rb") as file:
        content = file.read(_LARGEST_JSON + 1)
    if len(content) > _LARGEST_JSON:
        raise ValueError(f"{path} is larger than {_LARGEST_JSON:,} bytes: it is no such file")
    try:
        values = json.loads(content.decode(), parse_constant=_refuse)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no UTF-8 text at byte {error.start}") from None
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else error
        raise ValueError(f"{path} is no JSON: {reason}") from None
    if not isinstance(values, dict):
        raise ValueError(f"{path} holds a {type(values).__name__}; expected an object {{…}}")
    return values


def tensor_shapes(path: pathlib.Path) -> dict[str, jax.ShapeDtypeStruct]:
    """What tensors a safetensors file holds; only its header is read.

    Raises:
      ValueError: it is damaged or another kind of file, or a tensor is no float32.
    """
    with _opened(path) as file:
        slices = {name: file.get_slice(name) for name in file.keys()}
        for name, tensor in slices.items():
            if tensor.get_dtype() != "F32":
                raise ValueError(
                    f"{path}: tensor {escape.terminal(name)} is {tensor.get_dtype()}; expected F32"
                )
        return {
            name: jax.ShapeDtypeStruct(tuple(tensor.get_shape()), np.float32)
            for name, tensor in slices.items()
        }


def read_tensors(path: pathlib.Path) -> dict[str, np.ndarray]:
    """All tensors of a safetensors file.

    Raises:
      ValueError: it is damaged or another kind of file, or a tensor is not finite.
    """
    with _opened(path) as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}
    for name, tensor in tensors.items():
        if not np.isfinite(tensor).all():
            raise ValueError(f"{path}: tensor {name} holds NaN or infinite values")
    return tensors


def _opened(path: pathlib.Path) -> Any:
    try:
        return safe_open(path, framework="np")
    except SafetensorError as error:
        raise ValueError(
            f"{path} is damaged or no safetensors file ({error}): copy or download it again"
        ) from None


def _refuse(constant: str) -> None:
    raise ValueError(f"it holds {constant}, which is no number")
