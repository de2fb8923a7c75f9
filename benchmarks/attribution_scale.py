"""How a map localises on each scale: λ = σ(z − mean z + b) for several b, softmax z, z, max(z, 0).

    python benchmarks/attribution_scale.py --config=configs/digit_scenes.py --workdir=runs/demo \\
        --config.data.eval_split=validation

Several folders of `--workdir`, comma-separated, are seeds of one explainer. The order of features
is the same on every scale, and with it what perturbation curves measure; pixel accuracy, mIoU and
"both maps right" compare values, and mAP those of patches that were interpolated to pixels. Last,
of scenes with two objects: how often one map is right, and the difference of the two.
"""

import dataclasses
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from ml_collections import config_flags

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from fex_jax import evaluation, metrics, report  # noqa: E402
from fex_jax.evaluation import tasks  # noqa: E402

_SHIFTS = (-4, -3, -2, -1, 0)  # b
_CONFIG = config_flags.DEFINE_config_file("config", None, "Scenes of configs/.")
_WORKDIR = flags.DEFINE_list("workdir", None, "Folders that train.py wrote, with FEX's default.")
_CONTRASTIVE = flags.DEFINE_boolean("contrastive", True, "False: each class's map alone.")


def main(_: list[str]) -> None:
    config, size = _CONFIG.value, _CONFIG.value.eval.batch_size
    try:
        explainers = [
            dataclasses.replace(explainer, contrastive=explainer.contrastive and _CONTRASTIVE.value)
            for explainer in evaluation.load_explainers(_WORKDIR.value)
        ]
        _, predict, task = evaluation.load_task(explainers[0], config)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    if any(explainer.budget is None for explainer in explainers):
        sys.exit("error: expected runs of FEX's default: no b was drawn for an explainer given")
    if not len(task.pairs):
        sys.exit(f"error: {config.data.name} shows no two objects that are f's first two guesses")
    scales = {
        "softmax z": jax.nn.softmax,
        **{f"λ, b = {b}": lambda z, b=b: jax.nn.sigmoid(z + b) for b in _SHIFTS},
        "z": lambda z: z,
        "max(z, 0)": lambda z: jnp.maximum(z, 0),
    }
    found: dict[str, list] = {name: [] for name in scales}
    one_right: dict[str, list] = {name: [] for name in [*scales, "λ_A − λ_B"]}
    for explainer in explainers:
        scores = evaluation.attribute(
            evaluation.trained(explainer), predict, task, size, config.seed
        )
        z = jax.tree.map(lambda x, budget=explainer.budget: x - budget, scores[:2])
        for name, scale in scales.items():
            maps = evaluation.Scores(*jax.tree.map(scale, z), scores.cost)
            statistics = evaluation.statistics(maps, task, lambda *_: {}, size)
            found[name].append(report.summarise(statistics))
            one_right[name].append(_one_right(maps.pairs, task))
        lam = jax.nn.sigmoid(scores.pairs)  # at the budget that explanations have
        one_right["λ_A − λ_B"].append(_one_right(lam - lam[:, ::-1], task))
    print(report.console({name: report.over_seeds(runs) for name, runs in found.items()}, {}))
    print(f"{config.data.name}, {task.size} {config.data.eval_split} scenes")
    print(
        f"{len(task.pairs)} show f's first two guesses as objects; in {task.agreed.sum()} f finds "
        "each class on its own object. How often one map is larger on its own:"
    )
    for name, runs in one_right.items():
        spread = f" ± {np.std(runs, ddof=1):.3f}" if len(runs) > 1 else ""
        print(f"  {name:10} {np.mean(runs):.3f}{spread}")


def _one_right(pairs: jax.Array, task: tasks.Task) -> float:
    """How often a map of `pairs` [P, 2, N] has a higher mean on its own object."""
    first, second = (pairs[:, i].reshape(-1, *task.grid) for i in (0, 1))
    own, other = (
        tasks.object_masks(task.segmentation[task.pairs], classes[task.pairs])
        for classes in (task.targets, task.second)
    )
    # The other class's map is replaced by the negative, so that one map decides.
    return float(
        np.mean(
            [
                metrics.class_specificity(first, -first, own, other),
                metrics.class_specificity(-second, second, own, other),
            ]
        )
    )


if __name__ == "__main__":
    flags.mark_flags_as_required(["config", "workdir"])
    app.run(main)
