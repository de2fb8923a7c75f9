"""What queries about one input add to its map, beside methods that have nothing but queries.

    python benchmarks/refinement.py --config=configs/digit_scenes.py --workdir=runs/demo

scores the explainer of `--workdir` as it is and refined by n queries, and RISE, LIME and KernelSHAP
with n queries, all on the same inputs; the explainer's numbers are means over the runs of
`--trained`, too. Writes `docs/results/<name>_refinement.json` and .png, name that of the config's
file, and makes the documents anew; interrupted, the same command continues.
"""

import datetime
import functools
import json
import pathlib
import subprocess
import sys

from absl import app, flags
from matplotlib.figure import Figure
from ml_collections import config_flags

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from fex_jax import (  # noqa: E402
    attributions,
    evaluation,
    plotting,
    report,
)

_QUERIES = (10, 50, 100, 200, 500)
_RIVALS = ("rise", "lime", "kernel_shap")
_PANELS = ("positive_auc", "negative_auc", "insertion", "deletion")

_CONFIG = config_flags.DEFINE_config_file("config", None, "An experiment of configs/.")
_WORKDIR = flags.DEFINE_string("workdir", None, "The folder that train.py wrote.")
_TRAINED = flags.DEFINE_list("trained", [], "Folders of other seeds.")


def with_queries(name: str, count: int) -> functools.partial:
    """A method at so many queries, named "rise+100"."""
    method = functools.partial(attributions.METHODS[name], num_queries=count)
    method.__name__ = f"{name}+{count}"
    return method


def measure(config, workdir: pathlib.Path) -> tuple[dict, dict[str, list[str]], int]:
    """Results by rows, the lines of the plot as names of rows, and how many inputs there are."""
    with evaluation.opened([workdir, *_TRAINED.value], config) as explainers:
        first = explainers[0]
        _, _, task = evaluation.load_task(first, config)
        trained = first.name
        lines, found = {trained: [trained]}, {}
        for count in _QUERIES:
            rivals = [with_queries(name, count) for name in _RIVALS]
            table = evaluation.evaluate(
                [*explainers, *rivals],
                first.predictor,
                task,
                workdir=workdir / "refinement",
                protocol=config.eval.protocol,
                batch_size=config.eval.batch_size,
                seed=config.seed,
                refine=count,
            )
            found |= table.methods
            for name in (trained, *_RIVALS):
                line = f"{name}, refined" if name == trained else name
                lines.setdefault(line, []).append(f"{name}+{count}")
    return found, lines, task.size


def draw(found: dict, lines: dict[str, list[str]]) -> Figure:
    """A panel a metric: a line a method, queries an input to the right."""
    figure = Figure(figsize=(9, 7.5), layout="constrained")
    for axes, metric in zip(figure.subplots(2, 2).flat, _PANELS, strict=True):
        for index, (label, line) in enumerate(lines.items()):
            style = {"color": plotting.COLOURS[index], "label": label}
            values = [found[name][metric]["mean"] for name in line]
            if len(line) == 1:
                axes.axhline(*values, linestyle="--", **style)
            else:
                axes.plot(_QUERIES, values, marker=plotting.MARKERS[index], **style)
        axes.set(title=report.heading(metric), xlabel="Queries an input", xscale="log")
        axes.set_xticks(_QUERIES, labels=_QUERIES)
        axes.minorticks_off()
        axes.grid(color="0.9")
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels), frameon=False)
    return figure


def main(_: list[str]) -> None:
    config, workdir = _CONFIG.value, pathlib.Path(_WORKDIR.value)
    found, lines, size = measure(config, workdir)
    given = next(a for a in sys.argv if "--config=" in a).partition("=")[2]
    path = ROOT / "docs" / "results" / f"{pathlib.Path(given.split(':')[0]).stem}_refinement"
    rows = {
        name: {report.heading(metric): report.cell(of[metric]) for metric in _PANELS}
        for name, of in found.items()
    }
    made = {"date": datetime.date.today().isoformat(), "inputs": size}
    made |= {"seeds": 1 + len(_TRAINED.value), "rows": rows}
    path.with_suffix(".json").write_text(json.dumps(made, indent=2, ensure_ascii=False) + "\n")
    draw(found, lines).savefig(path.with_suffix(".png"), dpi=160)
    print(report.console(found, {}))
    subprocess.run([sys.executable, str(ROOT / "scripts" / "docs.py")], check=True)


if __name__ == "__main__":
    flags.mark_flags_as_required(["config", "workdir"])
    app.run(main)
