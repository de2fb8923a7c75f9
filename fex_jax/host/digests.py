"""Names for what is called that change when its answers change."""

import hashlib
import pathlib
from collections.abc import Iterable
from typing import Any

import numpy as np


def of_file(path: str | pathlib.Path, *settings: Any) -> str:
    """sha256 of a file's bytes, and of the settings with which it is used.

    Raises:
      ValueError: it cannot be read.
    """
    try:
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256")
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from error
    digest.update(repr([np.asarray(setting).tolist() for setting in settings]).encode())
    return "sha256:" + digest.hexdigest()


def of_arrays(arrays: Iterable[tuple[str, Any]]) -> str:
    """sha256 of names, types, shapes and values, in the order given."""
    digest = hashlib.sha256()
    for name, array in arrays:
        array = np.ascontiguousarray(array)
        digest.update(f"{name} {array.dtype} {array.shape} ".encode())
        digest.update(array.tobytes())
    return "sha256:" + digest.hexdigest()
