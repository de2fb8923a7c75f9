"""What amortised explainers make of more queries in training, and how best to spend them.

    python benchmarks/learning_curves.py --seeds=3

First, digit scenes with ten masks about each: more scenes, for explainers of the league at its
terms. Second, FEX at one number of queries: many scenes with few masks, or few with many. All are
scored on validation scenes. Writes docs/results/learning_curves.json and .png, and makes the
documents anew. Interrupted, the same command continues.
"""

import datetime
import json
import pathlib
import subprocess
import sys

import numpy as np
from absl import app, flags
from matplotlib.figure import Figure

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks import ablations, league  # noqa: E402
from fex_jax import plotting, report  # noqa: E402

SCENES = 960, 2_880, 9_600
MASKS = 10
WHOLE_AND_BLANK = {"FEX": 1, "FastSHAP": 2, "Stochastic Amortization": 2}  # beside the masks
# Masks → scenes: what FEX can buy for the queries of 9,600 scenes with ten masks each.
SPLITS = {4: 21_120, 10: 9_600, 20: 5_029, 42: 2_456}
_METRICS = "positive_auc", "negative_auc", "insertion", "class_specific"


def runs() -> list[tuple[str, int, int]]:
    """Explainer, scenes, masks a scene of every row."""
    curves = [(name, scenes, MASKS) for name in WHOLE_AND_BLANK for scenes in SCENES]
    return curves + [("FEX", scenes, masks) for masks, scenes in SPLITS.items() if masks != MASKS]


def queries(name: str, scenes: int, masks: int) -> int:
    return scenes * (masks + WHOLE_AND_BLANK[name])


def measure(name: str, scenes: int, masks: int, seeds: int) -> list[dict[str, report.Interval]]:
    choice = f"{league.RIVALS[name]} --config.data.limit={scenes}"
    if masks != MASKS:
        choice += f" --config.objective.num_masks={masks}"
    return [ablations.measure(choice, seed) for seed in range(seeds)]


def draw(found: dict[tuple[str, int, int], list[dict[str, report.Interval]]]) -> Figure:
    """Two panels, more scenes and FEX's splits; a dot a seed, a line through their means."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    more, splits = figure.subplots(1, 2, sharey=True)

    def line(axes, keys: list, at: list[int], index: int, label: str) -> None:
        seeds = [[run["positive_auc"]["mean"] for run in found[key]] for key in keys]
        style = {"color": plotting.COLOURS[index], "marker": plotting.MARKERS[index]}
        axes.plot(at, [np.mean(of) for of in seeds], label=label, **style)
        for x, of in zip(at, seeds, strict=True):
            axes.scatter([x] * len(of), of, s=12, alpha=0.5, **style)

    for index, name in enumerate(WHOLE_AND_BLANK):
        keys = [(name, scenes, MASKS) for scenes in SCENES]
        line(more, keys, [queries(*key) for key in keys], index, name)
    line(splits, [("FEX", s, m) for m, s in SPLITS.items()], list(SPLITS), 0, "FEX")
    more.set(xlabel="Queries in training", ylabel=report.heading("positive_auc"), xscale="log")
    more.legend(frameon=False)
    splits.set(xlabel="Masks a scene, at equal queries", xscale="log")
    splits.set_xticks(list(SPLITS), labels=list(SPLITS))
    splits.minorticks_off()
    for axes in (more, splits):
        axes.grid(color="0.9")
    return figure


def main(_: list[str]) -> None:
    seeds = flags.FLAGS.seeds
    found = {run: measure(*run, seeds) for run in runs()}
    rows = [
        {"Explainer": name, "Scenes": f"{scenes:,}", "Masks a scene": masks}
        | {"Queries": f"{queries(name, scenes, masks):,}"}
        | {
            report.heading(metric): report.cell(report.over_seeds(of_seeds)[metric])
            for metric in _METRICS
        }
        for (name, scenes, masks), of_seeds in found.items()
    ]
    made = {"date": datetime.date.today().isoformat(), "seeds": seeds, "rows": rows}
    path = ROOT / "docs" / "results" / "learning_curves"
    path.with_suffix(".json").write_text(json.dumps(made, indent=2, ensure_ascii=False) + "\n")
    draw(found).savefig(path.with_suffix(".png"), dpi=160)
    subprocess.run([sys.executable, str(ROOT / "scripts" / "docs.py")], check=True, cwd=ROOT)


if __name__ == "__main__":
    flags.FLAGS.set_default("workdir", "runs/learning_curves")
    flags.FLAGS.set_default("common", "")
    app.run(main)
