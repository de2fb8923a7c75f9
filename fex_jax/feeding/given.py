"""What people give: columns of tables of any kind, files below folders."""

import collections
import os
import pathlib
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np

from fex_jax.data import folders
from fex_jax.windows import Pair

Named: TypeAlias = str | Sequence[str] | None  # a column, or two of pairs; None: see `choose`


def source_of(given: Any, kind: Any, limit: int | None) -> Any:
    """The first `limit` items of a source that was given as such; None: it is none.

    Raises:
      ValueError: a source of another kind, or an empty path, which would be the present folder.
    """
    if isinstance(given, str) and not given.strip():
        raise ValueError(f"the data is {given!r}; expected the path of a file or a folder")
    if not hasattr(given, "contents"):
        return None
    if not isinstance(given, kind):
        raise ValueError("the data is a source of other things than the predictor takes")
    return given.split(limit)[0] if limit and limit < given.size else given


def shuffled(
    given: Any, size: int, limit: int | None, skipped: collections.Counter
) -> tuple[np.ndarray, str]:
    """The numbers of so many items in a fixed random order, and what was skipped, in words."""
    words = in_words(skipped)
    if not size:
        name = given if isinstance(given, str | os.PathLike) else "the data"
        raise ValueError(f"{name} holds nothing to train on{words}")
    return np.random.default_rng(0).permutation(size)[:limit], words


def in_words(skipped: collections.Counter) -> str:
    """What was skipped, as the end of a sentence."""
    words = f"; skipped {skipped.total()}: " if skipped else ""
    return words + ", ".join(f"{count} {reason}" for reason, count in skipped.most_common(10))


class Column(Sequence):
    """A column of a table whose cells are read when they are asked for."""

    def __init__(self, cell: Callable[[int], Any], size: int):
        self._cell, self._size = cell, size

    def __getitem__(self, i: int) -> Any:
        return self._cell(int(i))

    def __len__(self) -> int:
        return self._size


def from_table(
    given: Any,
    column: Named,
    known: Sequence[str],
    pairs: Sequence[Pair] = (),
    *,
    files: bool = False,
) -> Any:
    """A table's column, see `choose`; of what is no table in memory, what was given.

    With `files` a path may have the column, which is looked for when it is read.

    Raises:
      ValueError: a column that is not there, or one of what has none.
    """
    if (names := _column_names(given)) is not None:
        return _column_of(given, choose(names, column, known, pairs))
    if column is not None and not (files and isinstance(given, str | os.PathLike)):
        raise ValueError(f"column is {column!r}, but the data is no table: leave it out")
    return given


def _column_names(given: Any) -> list[str] | None:
    """The columns of a table of `datasets`, pandas or Arrow; None: it is no table."""
    if isinstance(given, dict):
        names = ", ".join(map(str, given)) or "nothing"
        raise ValueError(f"the data is a dict of {names}: choose one of its values")
    names = getattr(given, "column_names", None)
    if names is None and hasattr(given, "iloc") and hasattr(given, "columns"):
        names = given.columns
    return None if names is None else list(names)


def _column_of(table: Any, name: str | Pair) -> Sequence | Iterator:
    names = [name] if isinstance(name, str) else name

    def cell(row: Any) -> Any:
        return tuple(row[part] for part in name) if isinstance(name, tuple) else row[name]

    if hasattr(table, "iloc"):
        pairs = isinstance(name, tuple)
        return list(zip(*(table[part] for part in name), strict=True) if pairs else table[name])
    if hasattr(table, "column"):  # of Arrow
        return Column(lambda i: cell({key: table[key][i].as_py() for key in names}), table.num_rows)
    if hasattr(table, "__len__"):
        return Column(lambda i: cell(table[i]), len(table))
    return (cell(row) for row in table)  # a data set that is streamed


def choose(
    names: Sequence[str],
    column: Named,
    known: Sequence[str],
    pairs: Sequence[Pair] = (),
    where: str = "the data",
) -> str | Pair:
    """The column, or pair, that is asked for or is named like what it holds, or the only column.

    Raises:
      ValueError: there is none, or it is not there, or a pair is there beside another or a column.
    """
    if not names:
        raise ValueError(f"{where} is empty")
    if column is None and len(names) == 1 and set(";\t") & set(str(names[0])):
        raise ValueError(
            f"{where} has one column, {names[0]!r}: separate columns by commas, as .tsv by tabs, "
            "or name it with column="
        )
    if column is None:
        found: list[Any] = [pair for pair in pairs if set(pair) <= set(names)]
        single = [n for n in known if n in names and not any(n in pair for pair in found)]
        found += single[:1] or list(names) * (len(names) == 1)
        problem = ", of which several may be meant" if len(found) > 1 else ""
    else:
        found = [column if isinstance(column, str) else tuple(column)]
        missing = {column} if isinstance(column, str) else set(column)
        problem = f" but no {column!r}" if missing - set(names) else ""
    if problem or not found:
        raise ValueError(
            f"{where} has the columns {', '.join(map(str, names))}{problem}: name the one to read "
            "with column=, or --config.data.column"
        )
    (chosen,) = found
    for part in [chosen] if isinstance(chosen, str) else chosen:
        if list(names).count(part) > 1:
            raise ValueError(f"{where} has the column {part!r} twice: rename one")
    return chosen


def walk(
    root: pathlib.Path, suffixes: Collection[str], what: str, skipped: collections.Counter
) -> list[pathlib.Path]:
    """All files below a folder with one of the endings, sorted; hidden ones are passed over."""
    if not root.is_dir():
        kind = "a file" if root.exists() else "not there"
        raise ValueError(f"{root} is {kind}; expected a folder of {what}")
    found = []
    for file in folders.walk(root, skipped):
        suffix = file.suffix.lower()
        if suffix in suffixes:
            found.append(file)
        else:
            skipped[suffix or "without an ending"] += 1
    return sorted(found)
