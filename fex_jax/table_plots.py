"""Pictures of attributions of tables: their mean sizes, all of them, and those of one row."""

from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from fex_jax import errors, escape
from fex_jax.plotting import COLOURS

if TYPE_CHECKING:
    from fex_jax.table_explanation import TableExplanation

_MORE, _LESS, _GREY = COLOURS[1], COLOURS[0], COLOURS[7]
_BINS = 60  # of a beeswarm's axis, in which dots make room for each other
_HIGHEST = 0.4  # of a swarm, in rows

Where = str | Path | IO[bytes]


def bar(path: Where, explanation: "TableExplanation", most: int = 12) -> None:
    """Draws the mean |φ_i| over rows of the `most` features where it is largest, as a PNG."""
    names, values = _largest(explanation, most)
    figure, axes = _axes(len(names))
    sizes = np.abs(values).mean(0)
    axes.barh(range(len(names)), sizes, color=_LESS, height=0.7)
    for place, size in enumerate(sizes):
        axes.annotate(f"{size:.3g}", (size, place), (4, 0), textcoords="offset points",
                      va="center", fontsize=8)  # fmt: skip
    axes.set_xlim(0, max(1.15 * sizes.max(initial=0), 1e-12))
    _finish(figure, axes, names, f"Mean |attribution| of {len(explanation)} rows", path)


def beeswarm(path: Where, explanation: "TableExplanation", most: int = 12) -> None:
    """Draws a dot for each row in a line for each feature, at φ_i, as a PNG.

    Its colour is the rank of the row's value among the feature's; categories are grey.
    """
    errors.require("matplotlib")
    import matplotlib

    names, values = _largest(explanation, most)
    figure, axes = _axes(len(names))
    colours = matplotlib.colormaps["plasma"].resampled(256)
    edges = np.linspace(values.min(initial=0), values.max(initial=0) + 1e-12, _BINS)
    axes.axvline(0, color="0.8", linewidth=1)
    for place, (name, own) in enumerate(zip(names, values.T, strict=True)):
        bins = np.digitize(own, edges)
        heights = np.zeros(len(own))
        counts = np.bincount(bins)
        for number in np.flatnonzero(counts):
            rows = np.flatnonzero(bins == number)
            heights[rows] = np.arange(len(rows)) - (len(rows) - 1) / 2
        heights *= _HIGHEST * 2 / max(counts.max(initial=0), 12)
        ranks = _ranks(explanation.data, name)
        colour = _GREY if ranks is None else colours(ranks)
        axes.scatter(own, place + heights, c=colour, s=7, linewidths=0, rasterized=True)
    scale = matplotlib.cm.ScalarMappable(cmap=colours)
    legend = figure.colorbar(scale, ax=axes, ticks=[0, 1], aspect=40, pad=0.02)
    legend.ax.set_yticklabels(["low", "high"])
    legend.set_label("value of the feature; grey: a category", labelpad=-12)
    legend.outline.set_visible(False)
    _finish(figure, axes, names, "Attribution", path)


def waterfall(path: Where, explanation: "TableExplanation", row: int, most: int = 9) -> None:
    """Draws how the attributions of a row lead from the base value to the prediction, as a PNG.

    Raises:
      IndexError: no such row.
    """
    if not 0 <= row < len(explanation):
        raise IndexError(f"row {row} of {len(explanation)}; expected 0 to {len(explanation) - 1}")
    one = explanation.attributions.iloc[row]
    order = np.argsort(-np.abs(one.to_numpy()), kind="stable")
    steps = [one.iloc[i] for i in order[:most]]
    names = [f"{one.index[i]} = {_value(explanation.data.iloc[row, i])}" for i in order[:most]]
    if len(order) > most:
        steps.append(one.iloc[order[most:]].sum())
        names.append(f"{len(order) - most} other features")
    base = float(explanation.base_values[row])
    ends = base + np.cumsum(steps[::-1])  # drawn from the smallest to the largest
    begins = np.concatenate([[base], ends[:-1]])
    figure, axes = _axes(len(names))
    width = np.ptp([base, *ends]) or 1.0
    for place, (begin, end) in enumerate(zip(begins[::-1], ends[::-1], strict=True)):
        axes.barh(place, end - begin, left=begin, height=0.7, color=_MORE if end > begin else _LESS)
        right = end >= begin
        axes.annotate(f"{end - begin:+.3g}", (max(begin, end) if right else min(begin, end), place),
                      (4 if right else -4, 0), textcoords="offset points", va="center",
                      ha="left" if right else "right", fontsize=8)  # fmt: skip
        axes.plot([begin, begin], [place, min(place + 1, len(names))], color="0.7", linewidth=0.8)
    axes.set_xlim(min(base, *ends) - 0.15 * width, max(base, *ends) + 0.15 * width)
    label = explanation.labels[explanation.targets[row]]
    prediction = float(explanation.predictions[row])
    of = f"{label}: {base:.4g} in the mean of the background, {prediction:.4g} of this row"
    _finish(figure, axes, names, of, path)


def _largest(explanation: "TableExplanation", most: int) -> tuple[list[Any], np.ndarray]:
    """Names and values [B, ≤ most] of the features with the largest mean |φ|, largest first."""
    values = explanation.attributions.to_numpy()
    order = np.argsort(-np.abs(values).mean(0) if len(values) else np.arange(values.shape[1]),
                       kind="stable")[:most]  # fmt: skip
    return [explanation.attributions.columns[i] for i in order], values[:, order]


def _ranks(data: Any, name: Any) -> np.ndarray | None:
    """Ranks of numbers in 0..1, of missing ones ½; None: they are no numbers."""
    column = data[name]
    if column.dtype.kind not in "iuf" and str(column.dtype) not in ("Int64", "Float64"):
        return None
    return column.rank(pct=True).fillna(0.5).to_numpy(float)


def _value(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float | np.floating) else str(value)


def _axes(rows: int) -> tuple[Any, Any]:
    errors.require("matplotlib")
    from matplotlib.figure import Figure  # without pyplot: no global state, no display

    figure = Figure(figsize=(7.5, 1.1 + 0.34 * rows), layout="constrained")
    return figure, figure.subplots()


def _finish(figure: Any, axes: Any, names: list[Any], xlabel: str, path: Where) -> None:
    axes.set_yticks(range(len(names)), [escape.plot(str(name)) for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlabel(escape.plot(xlabel))
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color="0.92")
    axes.set_axisbelow(True)
    figure.savefig(path, format="png", dpi=130)
