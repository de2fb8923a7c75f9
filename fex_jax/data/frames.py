"""Data frames of pandas, of whatever holds a table."""

import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

# What makes a table of something that is none, by a method that it has.
_HINTS = {
    "collect": "; its collect() is one",  # a lazy frame of polars
    "toarray": "; its toarray() is one",  # a sparse matrix
    "to_frame": "; of a frame one row is frame[:1], one column frame[['name']]",  # a series
    "setdefault": "; pandas.DataFrame of it is one",  # a dictionary
}


def as_frame(given: Any, names: Sequence[str | int] | None = None) -> Any:
    """A pandas DataFrame of one, of a table of polars or Arrow, an array [B, D], or a file.

    Columns of an array have the `names`, or are x0, x1, …; what is masked is missing.

    Raises:
      ValueError: something else, a file that cannot be read, or pandas is not installed.
    """
    try:
        import pandas as pd
    except ModuleNotFoundError:
        raise ValueError("tables need pandas: pip install 'fex-jax[tables]'") from None
    if isinstance(given, str | os.PathLike):
        return _read(pathlib.Path(given).expanduser())
    if hasattr(given, "iloc") and hasattr(given, "columns"):
        return given
    if hasattr(given, "get_columns") and hasattr(given, "to_dict"):  # of polars
        return pd.DataFrame({column.name: _series(column) for column in given.get_columns()})
    if hasattr(given, "column_names") and hasattr(given, "to_pandas"):  # of Arrow
        return given.to_pandas()
    array = np.ma.filled(given.astype(float), np.nan) if np.ma.isMaskedArray(given) else given
    array = np.asarray(array)
    if array.ndim != 2:
        shape = list(getattr(given, "shape", array.shape))
        hint = next((said for name, said in _HINTS.items() if hasattr(given, name)), "")
        raise ValueError(
            f"{type(given).__name__} of shape {shape} is no table: expected a data frame, an array "
            f"[rows, columns], or a .csv or .parquet file{hint}"
        )
    if names is None:
        names = [f"x{i}" for i in range(array.shape[1])]
    if len(names) != array.shape[1]:
        raise ValueError(f"the array has {array.shape[1]} columns; expected {len(names)}")
    return pd.DataFrame(array, columns=list(names)).infer_objects()


def _series(column: Any) -> Any:
    """A column of polars as pandas has it."""
    import pandas as pd

    values = column.to_list()
    if str(column.dtype).startswith("Enum"):
        return pd.Categorical(values, column.dtype.categories.to_list())
    return pd.Categorical(values) if str(column.dtype) == "Categorical" else values


def _read(path: pathlib.Path) -> Any:
    import pandas as pd

    readers = {".csv": pd.read_csv, ".tsv": lambda p: pd.read_csv(p, sep="\t"),
               ".parquet": pd.read_parquet}  # fmt: skip
    reader = readers.get(path.suffix.lower())
    if reader is None or not path.is_file():
        reason = "is no table" if path.exists() else "is not there"
        raise ValueError(f"{path} {reason}; expected a .csv, .tsv or .parquet file")
    try:
        return reader(path)
    except ImportError as error:
        raise ValueError(f"{path} cannot be read: {error}") from None
    except (OSError, ValueError) as error:  # as those of pandas and Arrow are
        raise ValueError(f"{path} cannot be read as a table: {error}") from None
