"""Tables: data frames as numbers and back, and what people have them in.

A column is of numbers or of categories. Inside, a table is float64 [B, D]: a category is its place
in the list of its column's, a missing value NaN. `Columns` leads there and back without a loss.

Shapes: B rows, D columns.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from fex_jax import checks
from fex_jax.data import frames

_MOST_CATEGORIES = 2**16
_EXACT = 2**53  # whole numbers beyond it are no float64
_CATEGORY = checks.either(checks.text(), checks.flag(), checks.number(-1e300, 1e300))


@dataclasses.dataclass(frozen=True)
class Column:
    """A column as the first table had it.

    Attributes:
      name: a string, or an integer.
      dtype: of pandas.
      categories: what its values may be, in order; None: numbers.
      ordered: of categories whose order says something.
      missing: whether a value was missing.
    """

    name: str | int
    dtype: str
    categories: tuple[str | bool | float, ...] | None = None
    ordered: bool = False
    missing: bool = False


_COLUMN = {
    "name": checks.either(checks.text(), checks.integer(0, 2**31)),
    "dtype": checks.text(),
    "categories": checks.either(checks.several(_CATEGORY), checks.nothing()),
    "ordered": checks.flag(),
    "missing": checks.flag(),
}


class Columns(tuple[Column, ...]):
    """The columns of a table."""

    @classmethod
    def of(cls, frame: Any) -> "Columns":
        """Of a data frame.

        Raises:
          ValueError: names a column that is neither numbers nor categories, or is there twice.
        """
        names = list(frame.columns)
        twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
        if twice:
            raise ValueError(f"the table has the column {twice[0]!r} twice; rename one")
        if not names:
            raise ValueError("the table has no columns")
        return cls(_column(frame[name]) for name in names)

    @classmethod
    def from_list(cls, values: Sequence[Mapping[str, Any]], where: Any) -> "Columns":
        """What `to_list` wrote, checked."""
        for value in values:
            if not isinstance(value, Mapping) or set(value) != set(_COLUMN):
                raise ValueError(f"{where}: a column is {value!r}; expected {', '.join(_COLUMN)}")
            checks.require(value, _COLUMN, where)
        return cls(
            Column(**{k: tuple(v) if isinstance(v, list) else v for k, v in value.items()})
            for value in values
        )

    def to_list(self) -> list[dict[str, Any]]:
        """As JSON has it."""
        return [dataclasses.asdict(column) for column in self]

    @property
    def names(self) -> list[str | int]:
        """Of all columns, in order."""
        return [column.name for column in self]

    def encode(self, frame: Any) -> np.ndarray:
        """A data frame as float64 [B, D]; its columns may come in any order, others beside them.

        Raises:
          ValueError: names the column and the first row that cannot be used, and why.
        """
        absent = [name for name in self.names if name not in frame.columns]
        if absent:
            raise ValueError(
                f"the table lacks the column{'s' * (len(absent) > 1)} {listed(absent)}; it has "
                f"{listed(list(frame.columns)) or 'none'}"
            )
        values = np.empty((len(frame), len(self)))
        for i, column in enumerate(self):
            values[:, i] = _encode(frame[column.name], column)
            if not column.missing and np.isnan(values[:, i]).any():
                row = int(np.isnan(values[:, i]).argmax())
                raise ValueError(
                    f"column {column.name!r} has a missing value in row {row}, and had none in the "
                    "table that the explainer learned from; fill it in"
                )
        return values

    def decode(self, values: np.ndarray) -> Any:
        """float64 [B, D] as the data frame that it came from."""
        import pandas as pd

        found = {c.name: _decode(values[:, i], c) for i, c in enumerate(self)}
        return pd.DataFrame(found, copy=False)


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
) -> Source:
    """A source of whatever holds a table, in a fixed random order.

    Args:
      given: see `frames.as_frame`.
      groups: columns that are one feature, by its name; those of one-hot codes are found.
      background: a table of the same columns whose rows take the place of removed features.
      limit: rows to use; None: all.

    Raises:
      ValueError: what cannot be used, and why.
    """
    if isinstance(given, Source):
        return given
    frame = frames.as_frame(given)
    if not len(frame):
        raise ValueError("the table has no rows to learn from")
    columns = Columns.of(frame)
    order = np.random.default_rng(0).permutation(len(frame))[:limit]
    values = columns.encode(frame)[order]
    found = None if background is None else columns.encode(frames.as_frame(background))
    if found is not None and not len(found):
        raise ValueError("the background has no rows")
    return Source(columns, values, features(columns, values, groups or {}), found)


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
    for group, members in groups.items():
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
        codes = column.categories is None or column.dtype == "bool"
        if binary[i] and codes and cut > 0:
            begins.setdefault(name[:cut], []).append(i)
    return {
        prefix: members
        for prefix, members in begins.items()
        if len(members) > 1 and (values[:, members].sum(1) == 1).all()
    }


def _column(series: Any) -> Column:
    import pandas as pd

    dtype, name = series.dtype, series.name
    if not isinstance(name, str | int):
        raise ValueError(f"a column has the name {name!r}; expected a string")
    missing = bool(series.isna().any())
    kinds = pd.api.types
    if isinstance(dtype, pd.CategoricalDtype):
        values, text = list(dtype.categories), "category"
    elif kinds.is_bool_dtype(dtype):
        values, text = [False, True], str(dtype)
    elif kinds.is_numeric_dtype(dtype) and not kinds.is_complex_dtype(dtype):
        return Column(name, str(dtype), None, missing=missing)
    elif kinds.is_string_dtype(dtype) or kinds.is_object_dtype(dtype):
        values, text = list(pd.unique(series.dropna())), str(dtype)
        if all(isinstance(x, str) for x in values) or all(isinstance(x, bool) for x in values):
            values = sorted(values)
        else:
            other = next(x for x in values if not isinstance(x, str))
            raise ValueError(
                f"column {name!r} holds {type(other).__name__} values among others ({other!r}); "
                "expected numbers alone, or strings alone"
            )
    else:
        advice = "numbers made of them, such as days since a date" if _is_time(dtype) else "numbers"
        raise ValueError(
            f"column {name!r} is of type {dtype}; expected {advice}, categories, or to do without"
        )
    values = [x.item() if isinstance(x, np.generic) else x for x in values]
    if not all(_CATEGORY.fits(x) for x in values):
        raise ValueError(f"column {name!r} has other categories than strings and numbers")
    if len(values) > _MOST_CATEGORIES:
        raise ValueError(
            f"column {name!r} has {len(values):,} different values, as names or numbers of rows "
            f"have; expected at most {_MOST_CATEGORIES:,} categories"
        )
    ordered = bool(getattr(dtype, "ordered", False))
    return Column(name, text, tuple(values), ordered, missing)


def _is_time(dtype: Any) -> bool:
    return getattr(dtype, "kind", "") in "mM" or "period" in str(dtype)


def _encode(series: Any, column: Column) -> np.ndarray:
    import pandas as pd

    gone = series.isna().to_numpy()
    if column.categories is None:
        try:
            values = series.to_numpy(np.float64, na_value=np.nan)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"column {column.name!r} is of type {series.dtype}, and was of numbers: {error}"
            ) from None
        wrong = np.isinf(values)
        if wrong.any():
            raise ValueError(
                f"column {column.name!r} is infinite in row {int(wrong.argmax())}; expected finite "
                "numbers, or missing values"
            )
        large = np.abs(values) > _EXACT
        if series.dtype.kind in "iu" and large.any():
            raise ValueError(
                f"column {column.name!r} holds {series.iloc[int(large.argmax())]}, a whole number "
                "beyond 2**53; if they name things, drop them or make them strings"
            )
        return values
    codes = pd.Index(list(column.categories), dtype=object).get_indexer(series.astype(object))
    new = (codes < 0) & ~gone
    if new.any():
        row = int(new.argmax())
        raise ValueError(
            f"column {column.name!r} has {series.iloc[row]!r} in row {row}, which was not there in "
            f"the table that the explainer learned from: {listed(list(column.categories))}"
        )
    return np.where(gone, np.nan, codes)


def _decode(values: np.ndarray, column: Column) -> Any:
    import pandas as pd

    if column.categories is None:
        kept = column.dtype if not np.isnan(values).any() or not _is_plain_integer(column) else None
        return pd.Series(values) if kept is None else pd.Series(values).astype(kept)
    codes = np.where(np.isnan(values), -1, values).astype(np.int64)
    categories = pd.Index(list(column.categories))
    found = pd.Categorical.from_codes(codes, categories, ordered=column.ordered)
    return found if column.dtype == "category" else pd.Series(found).astype(column.dtype)


def _is_plain_integer(column: Column) -> bool:
    """Whether its type has no missing values: a background of other rows may hold some."""
    return column.dtype.startswith(("int", "uint"))


def listed(names: list) -> str:
    """The first of many names."""
    shown = ", ".join(map(repr, names[:8]))
    return shown + (f", … ({len(names)} in all)" if len(names) > 8 else "")
