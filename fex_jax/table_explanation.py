"""Explanations of the rows of a table: a data frame of attributions, and how it is shown."""

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from fex_jax import errors, table_plots

if TYPE_CHECKING:
    from fex_jax.host.rows import Rows


@dataclasses.dataclass(frozen=True, eq=False)
class TableExplanation:
    """Attributions of B rows and N features.

    Shapley values add up: base + Σ attributions = prediction.

    Attributes:
      attributions: data frame [B, N], of the table's index; a feature of several columns is one.
      base_values: v(∅) [B], what f says in the mean of the background; None: attributions do not
        add up.
      predictions: v(x) [B], what f says of the row.
      targets: [B] numbers of the explained classes.
      labels: names of the K classes.
      data: the rows, data frame [B, N]; a feature of several columns shows the one that is not 0.
      quantity: what the attributions are, in words.
    """

    attributions: Any
    base_values: np.ndarray | None
    predictions: np.ndarray
    targets: np.ndarray
    labels: tuple[str, ...]
    data: Any
    quantity: str

    @classmethod
    def of(
        cls,
        frame: Any,
        reads: "Rows",
        attributions: np.ndarray,
        targets: np.ndarray,
        predictions: np.ndarray,
        labels: tuple[str, ...],
        quantity: str,
        adds_up: bool = True,
    ) -> "TableExplanation":
        """Of rows, what a method says of them [B, N], the classes [B], and f's answers [B, K]."""
        import pandas as pd

        names, shown = [], {}
        for name, members in reads.features:
            own = [frame[reads.columns[i].name] for i in members]
            names.append(own[0].name if str(own[0].name) == name else name)
            shown[names[-1]] = own[0].to_numpy() if len(own) == 1 else _joined(own)
        return cls(
            pd.DataFrame(attributions, index=frame.index, columns=names),
            reads.base[targets] if adds_up else None,
            np.take_along_axis(predictions, targets[:, None].astype(int), 1)[:, 0],
            targets,
            labels,
            pd.DataFrame(shown, index=frame.index, columns=names),
            quantity,
        )

    def __len__(self) -> int:
        """B."""
        return len(self.targets)

    def first(self, count: int) -> "TableExplanation":
        """The same of the first so many rows."""
        arrays = {n: getattr(self, n)[:count] for n in ("predictions", "targets")}
        if self.base_values is not None:
            arrays["base_values"] = self.base_values[:count]
        frames = {n: getattr(self, n).iloc[:count] for n in ("attributions", "data")}
        return dataclasses.replace(self, **arrays, **frames)

    def bar(self, path: Any, most: int = 12) -> None:
        """Draws the mean sizes of attributions; see `fex_jax.table_plots`."""
        table_plots.bar(path, self, most)

    def beeswarm(self, path: Any, most: int = 12) -> None:
        """Draws all attributions; see `fex_jax.table_plots`."""
        table_plots.beeswarm(path, self, most)

    def waterfall(self, path: Any, row: int, most: int = 9) -> None:
        """Draws those of one row, by its place; see `fex_jax.table_plots`.

        Raises:
          ValueError: they do not add up.
        """
        self.require_sum("a waterfall")
        table_plots.waterfall(path, self, row, most)

    def to_shap(self) -> Any:
        """As a `shap.Explanation`, which `shap.plots` take.

        Raises:
          ImportError: shap is not installed.
          ValueError: they do not add up.
        """
        self.require_sum("a shap.Explanation")
        errors.require("shap")
        import shap

        return shap.Explanation(
            values=self.attributions.to_numpy(),
            base_values=np.array(self.base_values),
            data=self.data.to_numpy(),
            feature_names=[str(name) for name in self.attributions.columns],
        )

    def require_sum(self, what: str) -> None:
        """Refuses `what`, which shows a sum, of attributions that do not add up."""
        if self.base_values is None:
            raise ValueError(
                f"{what} is of values that add up to the prediction, and these are "
                f"{self.quantity}: fit with the preset shapley"
            )


def _joined(columns: list[Any]) -> np.ndarray:
    """What columns of one feature hold, in words [B]: of numbers those that are not 0."""
    named = [""] * len(columns[0])
    for column in columns:
        is_code = column.dtype.kind in "biuf"
        for row, value in enumerate(column):
            if value is None or value != value or (is_code and value == 0):
                continue
            word = str(column.name) if is_code and value == 1 else f"{column.name} = {value}"
            named[row] += f", {word}" if named[row] else word
    return np.array(named, object)
