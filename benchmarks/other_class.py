"""Of two classes, the map of the one that f does not name: its own, and the other's mirrored.

    python benchmarks/other_class.py --config=configs/drawn_reviews.py --workdir=RUN,RUN \\
        --config.data.eval_split=validation --config.eval.num_images=300

The probability of that class as features are inserted in the order of each map, beside LIME's and
a random one. `explain` takes the mirrored map; several folders of `--workdir` are seeds.
"""

import pathlib
import sys

import jax
from absl import app, flags
from ml_collections import config_flags

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from fex_jax import attributions, evaluation, metrics  # noqa: E402
from fex_jax.evaluation import tasks  # noqa: E402

_CONFIG = config_flags.DEFINE_config_file("config", None, "An experiment of two classes.")
_WORKDIR = flags.DEFINE_list("workdir", None, "Folders that train.py wrote, with FEX's default.")
_QUERIES = flags.DEFINE_integer("queries", 200, "LIME's, an input.")


def main(_: list[str]) -> None:
    config, size = _CONFIG.value, _CONFIG.value.eval.batch_size
    try:
        explainers = evaluation.load_explainers(_WORKDIR.value)
        predictor = explainers[0].predictor
        bind, predict, task = evaluation.load_task(explainers[0], config)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    if len(predictor.labels) != 2:
        sys.exit(f"error: expected a classifier of two classes, got {len(predictor.labels)}")
    perturb = evaluation.make_perturbation(predictor, bind, metrics.FEX)
    other = task._replace(targets=task.second)

    def scores(method: evaluation.Method) -> evaluation.Scores:
        return evaluation.attribute(method, predict, other, size, config.seed)

    def insertion(found: evaluation.Scores) -> float:
        return float(evaluation.statistics(found, other, perturb, size)["insertion"].mean())

    rows: dict[str, list[float]] = {"its own map": [], "the other's, mirrored": []}
    for explainer in explainers:
        maps, asked = jax.jit(explainer.maps), (task.inputs, task.second[:, None])
        own = tasks.in_batches(
            lambda batch, maps=maps, params=explainer.params: maps(params, *batch)[:, 0],
            asked,
            size,
            "its own map",
        )
        rows["its own map"].append(insertion(evaluation.Scores(own, None, {})))
        rows["the other's, mirrored"].append(insertion(scores(evaluation.trained(explainer))))
    for name, options in (("lime", {"num_queries": _QUERIES.value}), ("random", {})):
        function = attributions.METHODS[name]
        method = evaluation.of_function(name, function, options, bind, predictor.params)
        rows[name] = [insertion(scores(method))]
    print(f"{config.data.name}, {task.size} {config.data.eval_split} inputs; insertion:")
    for name, values in rows.items():
        print(f"  {name:24}" + "  ".join(f"{value:.3f}" for value in values))


if __name__ == "__main__":
    flags.mark_flags_as_required(["config", "workdir"])
    app.run(main)
