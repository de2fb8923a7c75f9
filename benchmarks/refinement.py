"""What queries about one input add to its map, beside methods that have nothing but queries.

    python benchmarks/refinement.py --config=configs/digit_scenes.py --workdir=runs/demo

scores the explainer of `--workdir` as it is and refined by n queries, and RISE and KernelSHAP with
n queries, all on the same inputs. Writes refinement.md and .png to `--output`; interrupted, the
same command continues.
"""

import functools
import pathlib
import sys

from absl import app, flags
from matplotlib.figure import Figure
from ml_collections import config_flags

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from fex_jax import (  # noqa: E402
    attributions,
    evaluation,
    explain,
    plotting,
    report,
)

_QUERIES = (10, 20, 50, 100, 200)
_PANELS = ("positive_auc", "negative_auc")

_CONFIG = config_flags.DEFINE_config_file("config", None, "An experiment of configs/.")
_WORKDIR = flags.DEFINE_string("workdir", None, "The folder that train.py wrote.")
_OUTPUT = flags.DEFINE_string("output", "runs/refinement", "Folder of the table and the plot.")


def with_queries(name: str, count: int) -> functools.partial:
    """A method at so many queries, named "rise+100"."""
    method = functools.partial(attributions.METHODS[name], num_queries=count)
    method.__name__ = f"{name}+{count}"
    return method


def main(_: list[str]) -> None:
    config, output = _CONFIG.value, pathlib.Path(_OUTPUT.value)
    explainer = explain.load(_WORKDIR.value)
    _, _, task = evaluation.load_task(explainer, config)
    trained = explainer.name
    lines = {trained: [trained]}  # of the plot, a row of the table a point
    found = {}
    for count in _QUERIES:
        table = evaluation.evaluate(
            [explainer, *(with_queries(name, count) for name in ("rise", "kernel_shap"))],
            explainer.predictor,
            task,
            workdir=output,
            protocol=config.eval.protocol,
            batch_size=config.eval.batch_size,
            seed=config.seed,
            refine=count,
        )
        found |= table.methods
        for name in (trained, "rise", "kernel_shap"):
            line = f"{name}, refined" if name == trained else name
            lines.setdefault(line, []).append(f"{name}+{count}")
    facts = {"Data": f"{config.data.name}, {task.size} {config.data.eval_split} inputs"}
    (output / "refinement.md").write_text(report.markdown({"methods": found}, facts))
    print(report.console(found, {}))

    figure = Figure(figsize=(9, 4), layout="constrained")
    for axes, metric in zip(figure.subplots(1, len(_PANELS)), _PANELS, strict=True):
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
    figure.axes[0].legend(frameon=False)
    figure.savefig(output / "refinement.png", dpi=160)
    print(f"wrote {output}/refinement.md and refinement.png")


if __name__ == "__main__":
    flags.mark_flags_as_required(["config", "workdir"])
    app.run(main)
