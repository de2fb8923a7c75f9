"""Tables by name, in training and test splits, and their rows in batches without end."""

import itertools
import json
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from fex_jax.data import columns, frames, tables


def train_stream(
    source: tables.Source,
    batch_size: int,
    seed: int,
    start: int = 0,
    limit: int | None = None,
    process: tuple[int, int] = (0, 1),
    mix: float = 0.0,
) -> Iterator[np.ndarray]:
    """Rows [batch_size, D] without end, in a new order every epoch, from batch `start` on.

    Each feature of a row is another row's with probability `mix`: nothing is learned from labels,
    so rows that nobody has measured teach as well, and there is no end of them.

    Args:
      batch_size: rows of all processes together.
      process: index and count; each has its own part of every batch.
    """
    values, (index, count) = source.values[:limit], process
    part = batch_size // count
    owner = np.zeros(len(source.columns), int)
    for number, (_, members) in enumerate(source.groups):
        owner[list(members)] = number
    for step, rows in enumerate(shuffled(len(values), batch_size, seed, start), start):
        rng = np.random.default_rng((seed, 1, step))
        others = values[rng.integers(len(values), size=batch_size)]
        swapped = rng.random((batch_size, len(source.groups))) < mix
        batch = np.where(swapped[:, owner], others, values[rows])
        yield batch[index * part : (index + 1) * part]


def shuffled(size: int, batch_size: int, seed: int, start: int = 0) -> Iterator[np.ndarray]:
    """Numbers of rows, [batch_size] without end, in a new order every epoch, from `start` on."""
    for step in itertools.count(start):
        places = np.arange(step * batch_size, (step + 1) * batch_size)
        rows = np.empty(batch_size, int)
        for epoch in np.unique(places // size):
            own = places // size == epoch
            order = np.random.default_rng((seed, 0, epoch)).permutation(size)
            rows[own] = order[places[own] % size]
        yield rows


def open_source(
    name: str,
    split: str,
    path: str,
    drop: str = "",
    groups: str = "{}",
    names: Sequence[str | int] | None = None,
) -> tables.Source:
    """The data set that a config of configs/ names; every fifth row is of its test split.

    Args:
      name: "table": the file of `path`; "adult": the file adult.data of UCI; "nhanes": a folder of
        nhanes_X.csv and nhanes_y.csv; "breast_cancer" or "california", as scikit-learn has them.
      split: "train", "test" or "all".
      path: of a file; "": none.
      drop: names of columns that f does not take, with commas between.
      groups: JSON of columns that are one feature, by its name.
      names: see `tables.open_table`.

    Raises:
      ValueError: another name or split, no such column, or a file that is not there.
    """
    frame, _ = load(name, path)
    dropped = [column.strip() for column in drop.split(",") if column.strip()]
    if unknown := [column for column in dropped if column not in frame.columns]:
        raise ValueError(
            f"table.drop names {columns.listed(unknown)}; {path or name} has no such column"
        )
    frame = frame.drop(columns=dropped)
    try:
        found = json.loads(groups)
    except ValueError as error:
        raise ValueError(f"table.groups is {groups!r}, no JSON: {error}") from None
    source = tables.open_table(part(frame, "train"), found, names=names)
    if split == "train":
        return source
    return source._replace(values=source.columns.encode(part(frame, split)))


def open_classes(
    name: str, split: str, path: str, column: str = ""
) -> tuple[tuple[str, ...], np.ndarray]:
    """The classes of the rows of `open_source`: their names in order, and numbers of them [B].

    Args:
      column: of a table's file, that which holds the class; "": the data set says it.

    Raises:
      ValueError: as `open_source`; no classes, only one, or a row without any.
    """
    import pandas as pd

    frame, found = load(name, path)
    if column and column not in frame.columns:
        raise ValueError(f"table.label is {column!r}; {path or name} has no such column")
    found = frame[column] if column else found
    if found is None:
        raise ValueError(f"{path}: table.label must name the column that holds the class")
    numbers, names = pd.factorize(found, sort=True)
    if (numbers < 0).any():
        raise ValueError(f"row {int((numbers < 0).argmax())} of {path or name} has no class")
    if len(names) < 2 or found.dtype.kind == "f":
        raise ValueError(
            f"{path or name} has {'one class' if len(names) < 2 else 'numbers'} to predict; "
            "expected two classes or more, strings, whole numbers or booleans"
        )
    own = part(numbers, split)
    own = own[tables.order(len(own))] if split == "train" else own
    return tuple(map(str, names)), own


def load(name: str, path: str = "") -> tuple[Any, Any]:
    """A data set of `open_source`, whole: a data frame, and what is to be predicted or None."""
    if name == "table":
        return frames.as_frame(path), None
    if name == "adult":
        return _adult(pathlib.Path(path).expanduser())
    if name == "nhanes":
        return _nhanes(pathlib.Path(path).expanduser())
    import sklearn.datasets as sets

    if name == "breast_cancer":
        return sets.load_breast_cancer(return_X_y=True, as_frame=True)
    if name == "california":
        try:
            return sets.fetch_california_housing(
                data_home=path or None, return_X_y=True, as_frame=True, download_if_missing=False
            )
        except OSError:
            raise ValueError(
                "california: its file is not there, and nothing is downloaded here: call "
                "sklearn.datasets.fetch_california_housing() once, or give its data_home with "
                "data.path"
            ) from None
    raise ValueError(
        f"data.name is {name!r}; of tables choose table, adult, nhanes, breast_cancer or california"
    )


def part(rows: Any, split: str) -> Any:
    """The rows of a split, of a data frame or a column: every fifth is for tests; or all.

    Raises:
      ValueError: another split.
    """
    if split not in ("train", "test", "all"):
        raise ValueError(f"the split is {split!r}; tables have train, test and all")
    held_out = np.arange(len(rows)) % 5 == 4
    return rows if split == "all" else rows[held_out if split == "test" else ~held_out]


def _adult(path: pathlib.Path) -> tuple[Any, Any]:
    """UCI Adult without the census weight and the second form of education."""
    import pandas as pd

    names = (
        "age workclass fnlwgt education education_num marital_status occupation relationship race "
        "sex capital_gain capital_loss hours_per_week native_country income"
    ).split()
    if not path.is_file():
        raise ValueError(f"adult: there is no file {str(path)!r}; give adult.data with data.path")
    frame = pd.read_csv(path, names=names, skipinitialspace=True, na_values="?")
    income = frame.pop("income") == ">50K"
    frame = frame.drop(columns=["fnlwgt", "education"])
    texts = [name for name in frame.columns if frame[name].dtype.kind not in "iuf"]
    return frame.astype(dict.fromkeys(texts, "category")), income


def _nhanes(path: pathlib.Path) -> tuple[Any, Any]:
    """NHANES I: 18 measurements of people, and for how many years each lived on."""
    import pandas as pd

    files = path / "nhanes_X.csv", path / "nhanes_y.csv"
    for file in files:
        if not file.is_file():
            raise ValueError(f"nhanes: there is no file {str(file)!r}; give its folder, data.path")
    frame, years = (pd.read_csv(file, index_col=0) for file in files)
    return frame, years["y"]
