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


# What estimators of scikit-learn note when they are asked: where a list lies in memory, and how
# often a tree of neighbours, which is made of other fields, was searched.
_NOTES = {"_stop_words_id", "_tree"}


def of_estimator(model: Any) -> str:
    """joblib's hash of an estimator, the same after it was asked, stored and opened again.

    "": of one that cannot be pickled, for a part of it has no name.
    """
    from joblib import hashing

    class Hasher(hashing.NumpyHasher):
        def save(self, part: Any) -> None:
            if isinstance(part, np.ma.MaskedArray):
                part = "masked", part.data, np.ma.getmaskarray(part)
            elif type(part) is np.ndarray and part.dtype.names:
                part = [(field, part[field]) for field in part.dtype.names]  # not what is between
            elif type(part) is np.ndarray and not part.dtype.hasobject:
                part = part.copy()  # strides of an axis of one entry are arbitrary
            super().save(part)

        def reducer_override(self, part: Any) -> Any:
            if not (type(part).__module__.startswith("sklearn.") and hasattr(part, "get_params")):
                return NotImplemented
            return type(part), (), {k: v for k, v in vars(part).items() if k not in _NOTES}

    try:
        return "joblib:" + Hasher("sha1").hash(model)
    except Exception:  # pickling runs the code of whatever is in it
        return ""
