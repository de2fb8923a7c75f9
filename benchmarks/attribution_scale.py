"""How a map localises on each scale: λ = σ(z − mean z + b) for several b, and z itself.

    python benchmarks/attribution_scale.py --config=configs/digit_scenes.py --workdir=runs/demo \\
        --config.data.eval_split=validation

Several folders of `--workdir`, comma-separated, are seeds of one explainer. The order of features
is the same on every scale, and with it what perturbation curves measure; pixel accuracy, mIoU and
"both maps right" compare values, and mAP those of patches that were interpolated to pixels.
"""

import pathlib
import sys

import jax
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
    except (ValueError, FileNotFoundError) as error:
        sys.exit(f"error: {error}")
    if any(explainer.budget is None for explainer in explainers):
        sys.exit("error: expected runs of FEX's default: no b was drawn for an explainer given")
    predictor = explainers[0].predictor
    bind = predictors.from_checkpoint(predictor, config.predictor.fill)
    predict = tasks.make_prediction(bind, predictor.params)
    task = evaluating.load_task(predictor, predict, config)
    scales = {f"λ, b = {shift}": (shift, True) for shift in _SHIFTS} | {"z": (0, False)}
    found: dict[str, list] = {name: [] for name in scales}
    for explainer in explainers:
        scores = evaluation.attribute(
            evaluation.trained(explainer), predict, task, size, config.seed
        )
        for name, (shift, logits) in scales.items():
            move = shift - explainer.budget
            targets, pairs = jax.tree.map(lambda x, move=move: x + move, scores[:2])
            shifted = evaluation.Scores(targets, pairs, scores.cost)
            statistics = evaluation.statistics(shifted, task, lambda *_: {}, size, logits)
            found[name].append(report.summarise(statistics))
    print(report.console({name: report.over_seeds(runs) for name, runs in found.items()}, {}))
    print(
        f"{config.data.name}, {task.size} {config.data.eval_split} scenes, {len(task.pairs)} pairs"
    )


if __name__ == "__main__":
    flags.mark_flags_as_required(["config", "workdir"])
    app.run(main)
