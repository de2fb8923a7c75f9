"""How a map localises on each scale: λ = σ(z − mean z + b) for several b, softmax z, and z itself.

    python benchmarks/attribution_scale.py --config=configs/digit_scenes.py --workdir=runs/demo \\
        --config.data.eval_split=validation

Several folders of `--workdir`, comma-separated, are seeds of one explainer. The order of features
is the same on every scale, and with it what perturbation curves measure; pixel accuracy, mIoU and
"both maps right" compare values, and mAP those of patches that were interpolated to pixels. Last,
in how many scenes with two objects the difference of their maps is larger on its own.
"""

import pathlib
import sys

import jax
import numpy as np
from absl import app, flags
from ml_collections import config_flags

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

import eval as evaluating  # noqa: E402
from fex_jax import evaluation, predictors, report, tasks  # noqa: E402

_SHIFTS = (-4, -3, -2, -1, 0)  # b
_CONFIG = config_flags.DEFINE_config_file("config", None, "Scenes of configs/.")
_WORKDIR = flags.DEFINE_list("workdir", None, "Folders that train.py wrote, with FEX's default.")


def main(_: list[str]) -> None:
    config, size = _CONFIG.value, _CONFIG.value.eval.batch_size
    try:
        explainers = evaluating.load_explainers(_WORKDIR.value)
        predictor = explainers[0].predictor
        bind = predictors.from_checkpoint(predictor, config.predictor.fill)
        predict = tasks.make_prediction(bind, predictor.params)
        task = evaluating.load_task(predictor, predict, config)
    except (ValueError, FileNotFoundError) as error:
        sys.exit(f"error: {error}")
    if any(explainer.budget is None for explainer in explainers):
        sys.exit("error: expected runs of FEX's default: no b was drawn for an explainer given")
    if not len(task.pairs):
        sys.exit(f"error: {config.data.name} shows no two objects that are f's first two guesses")
    scales = {
        "softmax z": jax.nn.softmax,
        **{f"λ, b = {b}": lambda z, b=b: jax.nn.sigmoid(z + b) for b in _SHIFTS},
        "z": lambda z: z,
    }
    found: dict[str, list] = {name: [] for name in scales}
    told_apart = []
    for explainer in explainers:
        scores = evaluation.attribute(
            evaluation.trained(explainer), predict, task, size, config.seed
        )
        z = jax.tree.map(lambda x, budget=explainer.budget: x - budget, scores[:2])
        for name, scale in scales.items():
            maps = evaluation.Scores(*jax.tree.map(scale, z), scores.cost)
            statistics = evaluation.statistics(maps, task, lambda *_: {}, size)
            found[name].append(report.summarise(statistics))
        lam = jax.nn.sigmoid(scores.pairs)  # at the budget that explanations have
        difference = lam[:, :1] - lam[:, 1:]
        pairs = np.concatenate([difference, -difference], 1)
        statistics = evaluation.statistics(scores._replace(pairs=pairs), task, lambda *_: {}, size)
        told_apart.append(report.summarise(statistics))
    print(report.console({name: report.over_seeds(runs) for name, runs in found.items()}, {}))
    share = report.cell(report.over_seeds(told_apart)["class_specific"])
    print(f"{config.data.name}, {task.size} {config.data.eval_split} scenes")
    print(f"λ_A − λ_B larger on A: {share} of {len(task.pairs)} with two objects")


if __name__ == "__main__":
    flags.mark_flags_as_required(["config", "workdir"])
    app.run(main)
