"""What queries about one input add to its map, beside methods that have nothing but queries.

    python benchmarks/refinement.py --config=configs/digit_scenes.py --workdir=runs/demo

scores the explainer of `--workdir` as it is and refined by n queries, and RISE and KernelSHAP with
n queries, all on the same inputs. Writes refinement.md and .png to `--output`; interrupted, the
same command continues.
"""

import dataclasses
import pathlib
import sys

from absl import app, flags
from matplotlib.figure import Figure
from ml_collections import config_flags

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

import eval as evaluating  # noqa: E402
from fex_jax import (  # noqa: E402
    attributions,
    evaluation,
    explain,
    plotting,
    predictors,
    report,
)
from fex_jax.evaluation import tasks  # noqa: E402

_QUERIES = (10, 20, 50, 100, 200)
_PANELS = ("positive_auc", "negative_auc")

_CONFIG = config_flags.DEFINE_config_file("config", None, "An experiment of configs/.")
_WORKDIR = flags.DEFINE_string("workdir", None, "The folder that train.py wrote.")
_OUTPUT = flags.DEFINE_string("output", "runs/refinement", "Folder of the table and the plot.")


def main(_: list[str]) -> None:
    config, output = _CONFIG.value, pathlib.Path(_OUTPUT.value)
    explainer = explain.load(_WORKDIR.value)
    predictor = explainer.predictor
    bind = predictors.from_checkpoint(predictor, config.predictor.fill, config.text.removal)
    predict = tasks.make_prediction(bind, predictor.params)
    task = evaluating.load_task(predictor, bind, predict, config)
    trained = evaluation.trained(explainer)
    methods = {trained.name: [trained]}  # a line of the plot each
    for count in _QUERIES:
        refined = evaluation.refined(trained, count, bind, predictor.params)
        methods.setdefault(f"{trained.name}, refined", []).append(refined)
        for name in ("rise", "kernel_shap"):
            method = evaluation.baseline(
                name, attributions.METHODS[name], {"num_queries": count}, bind, predictor.params
            )
            method = dataclasses.replace(method, name=f"{name}+{count}")
            methods.setdefault(name, []).append(method)
    output.mkdir(parents=True, exist_ok=True)
    listed = [method for line in methods.values() for method in line]
    results = evaluating.evaluate(listed, {}, predictor, bind, predict, task, config, output)
    found = evaluating.summarise(results)["methods"]
    facts = {"Data": f"{config.data.name}, {task.size} {config.data.eval_split} inputs"}
    (output / "refinement.md").write_text(report.markdown({"methods": found}, facts))
    print(report.console(found, {}))

    figure = Figure(figsize=(9, 4), layout="constrained")
    for axes, metric in zip(figure.subplots(1, len(_PANELS)), _PANELS, strict=True):
        for index, (name, line) in enumerate(methods.items()):
            style = {"color": plotting.COLOURS[index], "label": name}
            values = [found[method.name][metric]["mean"] for method in line]
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
