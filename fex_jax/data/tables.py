"""Tables to learn from: their rows, and the features that their columns are.

Shapes: B rows, D columns.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from fex_jax.data import frames
from fex_jax.data.columns import Columns, listed


class Source(NamedTuple):
    """A table to learn from."""

    columns: Columns
    values: np.ndarray  # float64 [B, D]
    groups: tuple[tuple[str, tuple[int, ...]], ...]  # features: names and numbers of columns
    # Rows that take the place of removed features, float64 [M, D]; None: some of the values.
    background: np.ndarray | None = None

    @property
    def size(self) -> int:
        """B."""
        return len(self.values)

    def split(self, count: int) -> tuple["Source", "Source"]:
        """The first `count` rows, and the others."""
        first, others = self.values[:count], self.values[count:]
        return self._replace(values=first), self._replace(values=others)

    def contents(self, predictor: Any) -> tuple:
        """What tells it from others."""
        return self.columns.to_list(), *self[1:]


def open_table(
    given: Any,
    groups: Mapping[str, Sequence[str]] | None = None,
    background: Any = None,
    limit: int | None = None,
    names: Sequence[str | int] | None = None,
) -> Source:
    """A source of whatever holds a table, in a fixed random order.

    Args:
      given: see `frames.as_frame`.
      groups: columns that are one feature, by its name; those of one-hot codes are found.
      background: a table of the same columns whose rows take the place of removed features.
      limit: rows to use; None: all.
      names: columns to use, in this order; None: all.

    Raises:
      ValueError: what cannot be used, and why.
    """
    if isinstance(given, Source):
        return given
    frame = frames.as_frame(given, names)
    if names is not None:
        frame = frame[_fitted(list(frame.columns), names)]
    if not len(frame):
        raise ValueError("the table has no rows to learn from")
    columns = Columns.of(frame)
    values = columns.encode(frame)[order(len(frame))[:limit]]
    found = None if background is None else columns.encode(frames.as_frame(background, names))
    if found is not None and not len(found):
        raise ValueError("the background has no rows")
    return Source(columns, values, features(columns, values, groups or {}), found)


def order(size: int) -> np.ndarray:
    """Numbers of a table's rows in the order of `open_table`, [size]."""
    return np.random.default_rng(0).permutation(size)


def _fitted(own: list[str | int], names: Sequence[str | int]) -> list[str | int]:
    """The columns that f was fitted on, in its order, by the table's `own` names.

    LightGBM keeps each name with "_" for its spaces, and reads a frame by the place of its columns.

    Raises:
      ValueError: the table lacks one.
    """
    kept = {str(name).replace(" ", "_"): name for name in own} | {name: name for name in own}
    if absent := [name for name in names if name not in kept]:
        raise ValueError(
            f"the table lacks {listed(absent)}, which the predictor takes; it has {listed(own)}"
        )
    return [kept[name] for name in names]


def features(
    columns: Columns, values: np.ndarray, groups: Mapping[str, Sequence[str]]
) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """The features of a table: columns alone, those of groups, and one-hot codes, together.

    Columns of 0 and 1 whose names begin alike up to their last "_" or "=", and one of which is 1 in
    every row, are one feature of the common name.

    Raises:
      ValueError: a group of unknown columns, or a column in two groups.
    """
    places = {name: i for i, name in enumerate(columns.names)}
    owner: dict[int, str] = {}
    if not isinstance(groups, Mapping):
        raise ValueError(f"groups are {groups!r}; expected a list of columns for each name")
    for group, members in groups.items():
        if not (isinstance(group, str) and isinstance(members, list | tuple) and members):
            raise ValueError(f"group {group!r} is {members!r}; expected a list of columns")
        if group in places and group not in members:
            raise ValueError(f"group {group!r} has the name of a column; choose another")
        for name in members:
            if name not in places:
                raise ValueError(f"group {group!r} names the column {name!r}, which is not there")
            if places[name] in owner:
                raise ValueError(f"column {name!r} is in two groups")
            owner[places[name]] = group
    for prefix, members in _one_hot(columns, values).items():
        if prefix not in places and prefix not in groups and not owner.keys() & set(members):
            owner |= dict.fromkeys(members, prefix)
    found: dict[Any, list[int]] = {}
    for i, name in enumerate(columns.names):
        found.setdefault(("group", owner[i]) if i in owner else ("column", name), []).append(i)
    return tuple((str(name), tuple(members)) for (_, name), members in found.items())


def _one_hot(columns: Columns, values: np.ndarray) -> dict[str, list[int]]:
    begins: dict[str, list[int]] = {}
    binary = ((values == 0) | (values == 1)).all(0)
    for i, column in enumerate(columns):
        name = str(column.name)
        cut = max(name.rfind("_"), name.rfind("="))
        codes = column.categories is None or column.dtype.startswith("bool")
        if binary[i] and codes and cut > 0:
            begins.setdefault(name[:cut], []).append(i)
    return {
        prefix: members
        for prefix, members in begins.items()
        if len(members) > 1 and (values[:, members].sum(1) == 1).all()
    }
