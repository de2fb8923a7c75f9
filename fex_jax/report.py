"""Tables of results: what `eval.py` prints, writes as Markdown, and shows in the gallery."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from fex_jax import escape, metrics

# Metrics by their names in results.json: heading, and whether more is better.
COLUMNS = {
    "positive_auc": ("Positive AUC", False),
    "negative_auc": ("Negative AUC", True),
    "insertion": ("Insertion", True),
    "deletion": ("Deletion", False),
    "pixel_accuracy": ("Pixel acc.", True),
    "map": ("mAP", True),
    "miou": ("mIoU", True),
    "class_specific": ("Both maps right", True),
    "class_faithful": ("… where f agrees", True),
    "pointing": ("Pointing", True),
    "mass": ("Mass on own", True),
    "token_ap": ("Token AP", True),
    "token_f1_micro": ("Token F1, micro", True),
    "token_f1_macro": ("Token F1, macro", True),
    "insertion_f1_micro": ("Insertion F1, micro", True),
    "insertion_f1_macro": ("Insertion F1, macro", True),
    "comprehensiveness": ("Comprehensiveness", True),
    "sufficiency": ("Sufficiency", False),
}
COST = {
    "predictions": "Price, measured",
    "seconds_per_1000": "Seconds / 1000",
    "peak_bytes": "Peak MiB a batch",
}
PRICE = (
    "Price: the time of an explanation divided by the time of one prediction of the classifier, "
    "both warm, on the same batch, in turns."
)


def insertion_f1(classes: np.ndarray) -> metrics.TokenF1:
    """F1 for each k, [S], of f's classes beside the true ones [n, S, 2]."""
    classes = classes.astype(int)
    return metrics.insertion_f1(classes[..., 0], classes[:, 0, 1])


# What is counted over all inputs before it is divided: statistics → metrics with their functions.
# Of F1 at several k, the mean.
_POOLED = {
    "segmentation": {
        "pixel_accuracy": metrics.pixel_accuracy,
        "map": metrics.mean_average_precision,
        "miou": metrics.mean_iou,
    },
    "token_counts": {
        "token_f1_micro": lambda counts: metrics.token_f1(counts).micro.mean(),
        "token_f1_macro": lambda counts: metrics.token_f1(counts).macro.mean(),
    },
    "insertion_classes": {
        "insertion_f1_micro": lambda classes: insertion_f1(classes).micro.mean(),
        "insertion_f1_macro": lambda classes: insertion_f1(classes).macro.mean(),
    },
}

# mean, low, high; "seeds" where there are several, or "spread", their standard deviation.
Interval = dict[str, float]

# What two runs must share for their rows to stand in one table.
_TASK = "protocol", "num_inputs", "num_pairs", "accuracy"


def summarise(values: Mapping[str, np.ndarray]) -> dict[str, Interval]:
    """Mean and 95 % bootstrap interval over inputs of every metric that `values` hold."""
    intervals = {n: metrics.bootstrap_interval(values[n]) for n in COLUMNS if n in values}
    for statistic, reductions in _POOLED.items():
        for name, reduce in reductions.items() if statistic in values else ():
            intervals[name] = metrics.bootstrap_interval(values[statistic], reduce)
    return {
        name: dict(zip(("mean", "low", "high"), map(float, intervals[name]), strict=True))
        for name in COLUMNS
        if name in intervals
    }


def empty_map(runs: Sequence[Mapping[str, np.ndarray]]) -> dict[str, float]:
    """What a map that says nothing scores on the same images, if `runs` hold segmentations.

    Its pixel accuracy is the share of pixels that show no object: much, where objects are small.
    """
    for values in runs:
        if "segmentation" in values:
            empty = metrics.of_empty_map(values["segmentation"])
            return {name: float(f(empty)) for name, f in _POOLED["segmentation"].items()}
    return {}


def by_top(results: Mapping[str, Sequence[tuple]]) -> dict[str, dict[str, np.ndarray]]:
    """Heading → method → F1 for each k, [S], means over seeds; of runs (scores, statistics)."""
    panels: dict[str, dict[str, np.ndarray]] = {}
    for statistic, title, f1 in (
        ("token_counts", "Token F1", metrics.token_f1),
        ("insertion_classes", "Insertion F1", insertion_f1),
    ):
        for name, runs in results.items():
            found = [f1(values[statistic]) for _, values in runs if statistic in values]
            for kind in metrics.TokenF1._fields if found else ():
                mean = np.mean([getattr(part, kind) for part in found], 0)
                panels.setdefault(f"{title}, {kind}", {})[name] = mean
    return panels


def over_seeds(runs: Sequence[dict[str, Interval]]) -> dict[str, Interval]:
    """Several explainers of one method: means of the means and of the ends of their intervals."""
    if len(runs) == 1:
        return runs[0]
    return {
        name: {
            **{end: float(np.mean([run[name][end] for run in runs])) for end in runs[0][name]},
            "seeds": [run[name]["mean"] for run in runs],  # type: ignore[dict-item]
        }
        for name in runs[0]
    }


def cell(interval: Interval) -> str:
    """ "mean ± standard deviation over seeds", or "± half of the interval" of a single run."""
    if "spread" in interval:
        spread = interval["spread"]
    elif "seeds" in interval:
        spread = float(np.std(interval["seeds"], ddof=1))
    else:
        spread = (interval["high"] - interval["low"]) / 2
    return f"{interval['mean']:.3f} ± {spread:.3f}"


def quality(methods: Mapping[str, dict[str, Interval]]) -> dict[str, dict[str, str]]:
    """Method → heading with an arrow → mean ± spread; the columns that any method has."""
    names = [name for name in COLUMNS if any(name in m for m in methods.values())]
    return {
        method: {heading(name): cell(values[name]) for name in names if name in values}
        for method, values in methods.items()
    }


def heading(name: str) -> str:
    """A metric's heading with an arrow that points to better values."""
    title, more = COLUMNS[name]
    return f"{title} {'↑' if more else '↓'}"


def best(methods: Mapping[str, dict[str, Interval]]) -> dict[str, set[str]]:
    """Metric → the methods whose mean, as it is printed, is the best; none if most lack it."""
    found = {}
    for name, (_, more) in COLUMNS.items():
        means = {m: round(v[name]["mean"], 3) for m, v in methods.items() if name in v}
        if means and 2 * len(means) < len(methods):
            found[name] = set()
        elif means:
            top = max(means.values()) if more else min(means.values())
            found[name] = {method for method, mean in means.items() if mean == top}
    return found


def merge(
    published: Mapping, new: Mapping, methods: Sequence[str], made: Mapping[str, str]
) -> dict:
    """Published results.json with the rows of `methods` replaced, and how these were made.

    Raises:
      ValueError: the two were not measured on the same task, or a row is missing.
    """
    for field in _TASK:
        if published[field] != new[field]:
            raise ValueError(
                f"{field} is {new[field]} here and {published[field]} in the published results: "
                "rows of one table need the same classifier, data and protocol"
            )
    if missing := [name for name in methods if name not in new["methods"]]:
        raise ValueError(f"no row {missing[0]!r} was made; --methods names what to replace")
    merged = dict(published)
    for part in ("methods", "efficiency"):
        rows = {name: new[part][name] for name in methods if name in new[part]}
        merged[part] = published.get(part, {}) | rows
    merged["made"] = published.get("made", {}) | dict.fromkeys(methods, made)
    merged["empty_map"] = new.get("empty_map") or published.get("empty_map", {})
    return merged


def markdown(results: Mapping, facts: Mapping[str, str]) -> str:
    """results.json for people: facts, quality with the best in bold, efficiency."""
    lines = [f"- {name}: {escape.markdown(text)}" for name, text in facts.items()]
    lines += ["", *table(results)]
    if results.get("efficiency") and _cost(results["efficiency"]) == "price":
        lines += ["", PRICE, ""]
        lines += rows_table(
            "Method",
            list(COST.values()),
            {method: cost_cells(cost) for method, cost in results["efficiency"].items()},
        )
    return "\n".join(lines) + "\n"


def table(
    results: Mapping,
    methods: Sequence[str] = (),
    columns: Sequence[str] = (),
    names: Callable[[str], str] = str,
) -> list[str]:
    """Lines of a Markdown table of results.json, the best of each column in bold.

    Args:
      results: its "methods", "efficiency" and, where images have masks, "empty_map".
      methods: the rows, in this order, "empty_map" among them or not; all if empty.
      columns: keys of `COLUMNS`, "price" or, of a black box, "queries"; if empty, all but a price.
      names: a method's name for people.

    Raises:
      ValueError: a row or a column that `results` do not hold.
    """
    intervals, empty = results["methods"], results.get("empty_map", {})
    costs = results.get("efficiency", {})
    cost = _cost(costs)
    methods = methods or [*intervals, *(["empty_map"] if empty else [])]
    known = [*intervals, "empty_map"]
    if unknown := [name for name in methods if name not in known]:
        raise ValueError(f"no row {unknown[0]!r}; there are {', '.join(known)}")
    methods = [name for name in methods if name in intervals or empty]
    shown = {name: intervals[name] for name in methods if name in intervals}
    there = [cost, *(n for n in COLUMNS if any(n in m for m in intervals.values()))]
    columns = columns or there[cost == "price" :]
    if unknown := [name for name in columns if name not in there]:
        raise ValueError(f"no column {unknown[0]!r}; there are {', '.join(there)}")
    winners = best(shown)

    def content(method: str, column: str) -> str:
        if column == cost:
            return cost_cells(costs[method])[0] if method in costs else "–"
        if method == "empty_map":
            return f"{empty[column]:.3f}" if column in empty else "–"
        if column not in shown[method]:
            return "–"
        return ("**{}**" if method in winners[column] else "{}").format(cell(shown[method][column]))

    return rows_table(
        "Method",
        [cost.capitalize() if name == cost else heading(name) for name in columns],
        {
            "an empty map" if method == "empty_map" else names(method): [
                content(method, column) for column in columns
            ]
            for method in methods
        },
    )


def console(methods: Mapping[str, dict[str, Interval]], costs: Mapping[str, dict]) -> str:
    """The quality table for a terminal, with the price of an explanation, or its queries."""
    rows = quality(methods)
    headings = list(dict.fromkeys(name for row in rows.values() for name in row))
    lines = [["method", *headings, _cost(costs)]]
    for name, row in rows.items():
        price = cost_cells(costs[name])[0] if name in costs else "–"
        lines.append([escape.terminal(name), *(row.get(h, "–") for h in headings), price])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    )


def _cost(costs: Mapping[str, Mapping[str, float]]) -> str:
    """What an explanation costs: "price", or of a black box "queries"."""
    return "queries" if any("queries" in cost for cost in costs.values()) else "price"


def cost_cells(cost: Mapping[str, float]) -> list[str]:
    """Cells of the efficiency table, in the order of `COST`; of a black box its queries."""
    if "queries" in cost:
        return [f"{cost['queries']:.3g}"]
    return [
        f"{cost['predictions']:.2f}×"
        if cost["predictions"] < 10
        else f"{cost['predictions']:.0f}×",
        f"{cost['seconds_per_1000']:.2f}",
        f"{cost['peak_bytes'] / 2**20:.0f}",
    ]


def rows_table(
    first: str,
    headings: Sequence[str],
    rows: Mapping[str, Sequence[str]] | Sequence[tuple[str, Sequence[str]]],
) -> list[str]:
    """Lines of a Markdown table: a name and its cells a row."""
    pairs = rows.items() if isinstance(rows, Mapping) else rows
    return [
        f"| {first} | {' | '.join(headings)} |",
        "|---|" + "---|" * len(headings),
        *(f"| {escape.markdown(name)} | {' | '.join(cells)} |" for name, cells in pairs),
    ]
