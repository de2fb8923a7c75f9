"""Columns of tables: data frames as numbers, and back.

A column is of numbers or of categories. Inside, a table is float64 [B, D]: a category is its place
in the list of its column's, a missing value NaN. `Columns` leads there and back without a loss.

Shapes: B rows, D columns.
"""

import collections
import dataclasses
import datetime
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fex_jax import checks

_MOST_CATEGORIES = 2**16
_EXACT = 2**53  # whole numbers beyond it are no float64
_PLAIN = {f"{kind}{bits}" for kind in ("int", "uint", "float") for bits in (8, 16, 32, 64)}
_FLOATS = {"float32", "float64"}
_DAYS = "numbers made of it, such as days since a date, or to do without"
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
      none: whether what is missing among objects is None, and not NaN.
    """

    name: str | int
    dtype: str
    categories: tuple[str | bool | float, ...] | None = None
    ordered: bool = False
    missing: bool = False
    none: bool = False


_COLUMN = {
    "name": checks.either(checks.text(), checks.integer(-_EXACT, _EXACT)),
    "dtype": checks.text(),
    "categories": checks.either(checks.several(_CATEGORY), checks.nothing()),
    "ordered": checks.flag(),
    "missing": checks.flag(),
    "none": checks.flag(),
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
        if not names:
            raise ValueError("the table has no columns")
        _refuse_twice(names)
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
        own, given = self.names, set(frame.columns)
        absent = [name for name in own if name not in given]
        if absent:
            raise ValueError(
                f"the table lacks the column{'s' * (len(absent) > 1)} {listed(absent)}; it has "
                f"{listed(list(frame.columns)) or 'none'}"
            )
        if len(given) < len(frame.columns):
            _refuse_twice([name for name in frame.columns if name in own])
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

        kinds = {column.dtype for column in self}
        if len(kinds) == 1 and kinds <= _FLOATS:
            return pd.DataFrame(_exactly(values, kinds.pop()), columns=pd.Index(self.names))
        # Copied into one block for each type: f would do so with thousands of columns.
        return pd.DataFrame({c.name: _decode(values[:, i], c) for i, c in enumerate(self)})


def _column(series: Any) -> Column:
    import pandas as pd

    dtype, name = series.dtype, series.name
    if isinstance(name, np.integer):
        name = int(name)
    if not isinstance(name, str | int):
        raise ValueError(f"a column has the name {name!r}; expected a string or a whole number")
    gone = series.isna()
    missing, none = bool(gone.any()), False
    kinds = pd.api.types
    if isinstance(dtype, pd.CategoricalDtype):
        values, text = list(dtype.categories), "category"
    elif kinds.is_bool_dtype(dtype):
        values, text = [False, True], str(dtype)
    elif kinds.is_numeric_dtype(dtype) and "decimal" not in str(dtype) and dtype.kind in "iuf":
        return Column(name, str(dtype), None, missing=missing)
    elif kinds.is_object_dtype(dtype) or kinds.is_string_dtype(dtype):
        text, present = str(dtype), series[~gone]
        none = kinds.is_object_dtype(dtype) and any(x is None for x in series[gone])
        for kind in str, bool:
            if all(isinstance(x, kind) for x in present):
                break
        else:
            raise ValueError(f"column {name!r} {_of_objects(present)}")
        values = sorted(set(present))
    else:
        raise ValueError(f"column {name!r} is of type {dtype}; expected {_advice(dtype)}")
    values = [x.item() if isinstance(x, np.generic) else x for x in values]
    if odd := [x for x in values if not _CATEGORY.fits(x)]:
        raise ValueError(
            f"column {name!r} has the category {odd[0]!r}; expected strings or finite numbers, as "
            "astype(str) makes them"
        )
    if len(values) > _MOST_CATEGORIES:
        raise ValueError(
            f"column {name!r} has {len(values):,} different values, as names or numbers of rows "
            f"have; expected at most {_MOST_CATEGORIES:,} categories"
        )
    ordered = bool(getattr(dtype, "ordered", False))
    return Column(name, text, tuple(values), ordered, missing, none)


def _of_objects(present: Any) -> str:
    """What is wrong with a column of objects that are not all strings, and not all booleans."""
    if all(isinstance(x, int | float | np.number) for x in present):
        return "holds numbers as objects; expected a type of numbers, as infer_objects() finds"
    other = next(x for x in present if not isinstance(x, str))
    if isinstance(other, datetime.date | datetime.time | datetime.timedelta):
        return f"holds {type(other).__name__} values; expected {_DAYS}"
    few = repr(other) if len(repr(other)) <= 80 else f"{repr(other)[:77]}..."
    return (
        f"holds {type(other).__name__} values among others ({few}); expected numbers alone, or "
        "strings alone"
    )


def _advice(dtype: Any) -> str:
    if getattr(dtype, "kind", "") in "mM" or "period" in str(dtype):
        return _DAYS
    if str(dtype).startswith("dictionary"):
        return "categories of pandas, as astype('category') makes them"
    if "decimal" in str(dtype):
        return "floats, as astype(float) makes them"
    return "numbers, strings, categories or booleans, or to do without"


def _encode(series: Any, column: Column) -> np.ndarray:
    import pandas as pd

    gone = series.isna().to_numpy()
    if column.categories is None:
        if series.dtype == object:
            series = series.infer_objects()
        if series.dtype.kind not in "iufb" and not gone.all():
            raise ValueError(
                f"column {column.name!r} is of type {series.dtype}, and was of numbers in the "
                "table that the explainer learned from"
            )
        values = np.full(len(series), np.nan)
        values[~gone] = series[~gone].to_numpy(np.float64)
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
        value = series.iloc[row]
        value = value.item() if isinstance(value, np.generic) else value
        raise ValueError(
            f"column {column.name!r} has {value!r} in row {row}, which was not there in "
            f"the table that the explainer learned from: {listed(list(column.categories))}"
        )
    return np.where(gone, np.nan, codes)


def _decode(values: np.ndarray, column: Column) -> Any:
    import pandas as pd

    if column.categories is None:
        if column.dtype in _PLAIN:
            return _exactly(values, column.dtype)
        given = pd.Series(values).astype("Float64")
        try:
            found = given.astype(column.dtype)
        except (TypeError, ValueError):
            return given
        return found if found.astype("Float64").equals(given) else given
    gone = np.isnan(values)
    codes = np.where(gone, -1, values).astype(np.int64)
    if column.dtype == "category":
        categories = pd.Index(list(column.categories))
        return pd.Categorical.from_codes(codes, categories, ordered=column.ordered)
    if column.dtype == "bool":
        return codes == 1
    found = np.append(np.array(column.categories, object), None if column.none else np.nan)[codes]
    return pd.Series(found, dtype=object).astype(column.dtype)


def _exactly(values: np.ndarray, dtype: str) -> np.ndarray:
    """Numbers in their column's type or, where it has not all of them, as they are: 0.5 among whole
    numbers, 300 among those of eight bits."""
    with np.errstate(all="ignore"):
        found = values.astype(dtype, copy=False)
    return found if np.array_equal(found, values, equal_nan=True) else values


def _refuse_twice(names: Sequence[Any]) -> None:
    name, count = collections.Counter(names).most_common(1)[0]
    if count > 1:
        raise ValueError(f"the table has the column {name!r} twice; rename one")


def listed(names: list) -> str:
    """The first of many names."""
    shown = ", ".join(map(repr, names[:8]))
    return shown + (f", … ({len(names)} in all)" if len(names) > 8 else "")
