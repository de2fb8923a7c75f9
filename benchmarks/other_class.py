"""Of two classes, the map of the one that f does not name: its own, and the other's mirrored.

    python benchmarks/other_class.py --config=configs/drawn_reviews.py --workdir=RUN,RUN \\
        --config.data.eval_split=validation --config.eval.num_images=300

The probability of that class as features are inserted in the order of each map, beside LIME's and
a random one. `explain` takes the mirrored map; several folders of `--workdir` are seeds.
"""

import pathlib
import sys

from absl import app, flags
from ml_collections import config_flags

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

import eval as evaluating  # noqa: E402
from fex_jax import attributions, evaluation, metrics, predictors  # noqa: E402
from fex_jax.evaluation import tasks  # noqa: E402

_CONFIG = config_flags.DEFINE_config_file("config", None, "An experiment of two classes.")
_WORKDIR = flags.DEFINE_list("workdir", None, "Folders that train.py wrote, with FEX's default.")
_QUERIES = flags.DEFINE_integer("queries", 200, "LIME's, an input.")


def main(_: list[str]) -> None:
    config, size = _CONFIG.value, _CONFIG.value.eval.batch_size
    try:
        explainers = evaluating.load_explainers(_WORKDIR.value)
        predictor = explainers[0].predictor
        bind = predictors.from_checkpoint(predictor, config.predictor.fill, config.text.removal)
        predict = tasks.make_prediction(bind, predictor.params)
        task = evaluating.load_task(predictor, bind, predict, config)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    if len(predictor.labels) != 2:
        sys.exit(f"error: expected a classifier of two classes, got {len(predictor.labels)}")
    perturb = evaluation.make_perturbation(predictor, bind, metrics.FEX)
    other = task._replace(targets=task.second)

    def scores(method: evaluation.Method, task: tasks.Task) -> evaluation.Scores:
        return evaluation.attribute(method, predict, task, size, config.seed)

    def insertion(found: evaluation.Scores) -> float:
        return float(evaluation.statistics(found, other, perturb, size)["insertion"].mean())

    rows: dict[str, list[float]] = {"its own map": [], "the other's, mirrored": []}
    for explainer in explainers:
        method = evaluation.trained(explainer)
        named = scores(method, task)
        rows["its own map"].append(insertion(scores(method, other)))
        rows["the other's, mirrored"].append(insertion(named._replace(targets=-named.targets)))
    for name, options in (("lime", {"num_queries": _QUERIES.value}), ("random", {})):
        function = attributions.METHODS[name]
        method = evaluation.baseline(name, function, options, bind, predictor.params)
        rows[name] = [insertion(scores(method, other))]
    print(f"{config.data.name}, {task.size} {config.data.eval_split} inputs; insertion:")
    for name, values in rows.items():
        print(f"  {name:24}" + "  ".join(f"{value:.3f}" for value in values))


if __name__ == "__main__":
    flags.mark_flags_as_required(["config", "workdir"])
    app.run(main)
