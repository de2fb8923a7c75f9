"""Whether an explainer knows which of its maps are faithful, and what that saves in queries.

    python benchmarks/faithfulness.py --config=configs/digit_scenes.py --workdir=runs/demo

Of every test input the predicted faithfulness is compared with the areas of a perturbation test
of the same map, by Spearman's rank correlation; beside it f(x), which knows nothing of the map.
Then `refine="auto"` stands beside fixed numbers of queries about every map. Several runs of other
seeds go to `--workdir` with commas between, and rows are means over them. Writes
docs/results/<name>_faithfulness.json and <name>_auto.json, name that of the config's file, and
makes the documents anew. Interrupted, the same command continues.
"""

import datetime
import json
import pathlib
import subprocess
import sys

import numpy as np
from absl import app, flags
from ml_collections import config_flags
from scipy.stats import spearmanr

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from fex_jax import evaluation, faithfulness, metrics, report  # noqa: E402
from fex_jax.evaluation import measure, tasks  # noqa: E402
from fex_jax.targets import PREDICTED  # noqa: E402
from fex_jax.training import identity  # noqa: E402

_CONFIG = config_flags.DEFINE_config_file("config", None, "An experiment of configs/.")
_WORKDIRS = flags.DEFINE_list("workdir", None, "Folders that train.py wrote, of several seeds.")

# What a map is worth, by areas of which more is better.
WORTH = {
    "insertion − deletion": lambda areas: areas["insertion"] - areas["deletion"],
    "insertion": lambda areas: areas["insertion"],
    "deletion, less of it": lambda areas: -areas["deletion"],
    "negative AUC": lambda areas: areas["negative_auc"],
    "positive AUC, less of it": lambda areas: -areas["positive_auc"],
}
METRICS = ("positive_auc", "negative_auc", "insertion", "deletion")
CHOICES = {
    "the explainer's own map": 0,
    "refine=40": 40,
    'refine="auto"': "auto",
    "refine=100": faithfulness.QUERIES,
}


def of_choice(folder: pathlib.Path, explainer, task, perturb, refine, size: int) -> dict:
    """Areas of every input's map, its predicted faithfulness and f(x); kept in `folder`."""
    file = folder / f"{identity.digest(explainer.params)[:16]}_{task.size}_{refine}.npz"
    if not file.is_file():

        def explained(rows: tuple) -> tuple:
            maps, _, answers, values = explainer.explain(*rows, refine=refine)
            if values is None:
                raise ValueError(f"{explainer.name} predicts no faithfulness: train it again")
            return maps[:, 0], values[:, 0], answers.max(-1)

        asked = np.full((task.size, 1), PREDICTED, np.int32)
        rows, title = (task.inputs, asked), f"refine={refine}"
        maps, values, certain = tasks.in_batches(explained, rows, size, title)
        rows = task.inputs, maps, task.targets, task.reference
        areas = tasks.in_batches(lambda rows: perturb(*rows), rows, size, "perturbed")
        found = {metric: areas[metric] for metric in METRICS}
        folder.mkdir(parents=True, exist_ok=True)
        np.savez(file, predicted=values, certain=certain, **found)
    return dict(np.load(file))


def of_run(workdir: str, config) -> tuple[dict, dict]:
    """Of one explainer: rank correlations with their intervals, and what each choice is worth."""
    with evaluation.opened([workdir], config) as (explainer,):
        bind, _, task = evaluation.load_task(explainer, config)
        protocol = metrics.PROTOCOLS[config.eval.protocol]
        perturb = measure.make_perturbation(explainer.predictor, bind, protocol)
        folder, size = pathlib.Path(workdir) / "faithfulness", config.eval.batch_size
        given = folder, explainer, task, perturb
        of = {name: of_choice(*given, refine, size) for name, refine in CHOICES.items()}
        own = of["the explainer's own map"]
        low = float((own["predicted"] < explainer.params["heads"]["faith_level"]).mean())
    quality = {}
    for name, refine in CHOICES.items():
        row = {"queries a map": float(low * faithfulness.QUERIES if refine == "auto" else refine)}
        row |= {report.heading(metric): float(of[name][metric].mean()) for metric in METRICS}
        gain = (of[name]["insertion"] - own["insertion"]) - (of[name]["deletion"] - own["deletion"])
        mean, below, above = metrics.bootstrap_interval(gain)
        row["gain in insertion − deletion"] = float(mean)
        quality[name] = row | {"gain, ±": float(above - below) / 2}
    predicted = {"predicted": own["predicted"], "f(x)": own["certain"]}
    return correlations(own, predicted), quality


def correlations(areas: dict[str, np.ndarray], predicted: dict[str, np.ndarray]) -> dict:
    """Spearman's ρ of each prediction with each worth, and half of its 95 % interval."""
    found = {}
    for name, worth in WORTH.items():
        found[name] = {}
        for label, values in predicted.items():
            pairs = np.stack([values, worth(areas)], 1)
            rho, low, high = metrics.bootstrap_interval(pairs, lambda x: spearmanr(*x.T)[0])
            found[name] |= {label: float(rho), f"{label}, ±": float(high - low) / 2}
    return found


def mean(tables: list[dict]) -> dict:
    """Tables of one form, cell by cell, with as many digits as say something."""
    return {
        row: {
            column: round(float(np.mean([of[row][column] for of in tables])), 4)
            for column in tables[0][row]
        }
        for row in tables[0]
    }


def main(_: list[str]) -> None:
    config = _CONFIG.value
    found = [of_run(workdir, config) for workdir in _WORKDIRS.value]
    given = next(a for a in sys.argv if "--config=" in a).partition("=")[2]
    name = pathlib.Path(given.split(":")[0]).stem
    for suffix, tables in zip(("faithfulness", "auto"), zip(*found, strict=True), strict=True):
        made = {
            "date": datetime.date.today().isoformat(),
            "inputs": config.eval.num_images,
            "seeds": len(found),
            "rows": mean(list(tables)),
        }
        path = ROOT / "docs" / "results" / f"{name}_{suffix}.json"
        path.write_text(json.dumps(made, indent=2, ensure_ascii=False) + "\n")
        print(json.dumps(made["rows"], indent=1, ensure_ascii=False))
    subprocess.run([sys.executable, str(ROOT / "scripts" / "docs.py")], check=True)


if __name__ == "__main__":
    flags.mark_flags_as_required(["config", "workdir"])
    app.run(main)
