"""What choices of an objective do, on validation inputs: a training for each choice and seed.

    python benchmarks/ablations.py --seeds=3
    python benchmarks/ablations.py default "one pass" "digit_scenes --config.data.augment=True"

Arguments are names of `CHOICES`, or a file of configs/ without its suffix and flags for it; none
means all of `CHOICES`. Flags of all choices go to `--common`. Writes results and a picture to
docs/results under the name `--table`, and makes the documents anew. Interrupted, the same command
continues; choices may be measured by several commands at once, and collected by one more.
"""

import json
import pathlib
import shlex
import subprocess
import sys

import numpy as np
from absl import app, flags

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from fex_jax import plotting, report  # noqa: E402

CHOICES = {
    "default": "digit_scenes",
    "published objective": "digit_scenes:authors",
    "one class an answer": "digit_scenes --config.objective.num_targets=1",
    "FastSHAP": "digit_scenes:fastshap",
    "FastSHAP, ten classes": "digit_scenes:fastshap --config.objective.num_targets=10",
    "one pass": "digit_scenes --config.objective.num_passes=1",
    "six passes": "digit_scenes --config.objective.num_passes=6",
    "α = 0.2": "digit_scenes --config.objective.temperature=0.2",
    "α = 1.2": "digit_scenes --config.objective.temperature=1.2",
    "λ_kl = 0": "digit_scenes --config.objective.kl_coef=0.0",
    "λ_kl = 0.5": "digit_scenes --config.objective.kl_coef=0.5",
    "s = 4": "digit_scenes --config.objective.num_masks=4",
    "s = 20": "digit_scenes --config.objective.num_masks=20",
    "4,800 scenes": "digit_scenes --config.data.limit=4800",
    "19,200 scenes": "digit_scenes --config.data.limit=19200",
    "argmax targets": "digit_scenes --config.objective.targets=argmax",
    "patch's token": "digit_scenes --config.map_head=token",
    "U-Net": "digit_scenes --config.policy=unet",
    "learning rate / 4": "digit_scenes --config.optimizer.learning_rate=2.5e-4",
    "learning rate × 4": "digit_scenes --config.optimizer.learning_rate=4e-3",
}
_DRAWN = "positive_auc", "negative_auc", "pixel_accuracy", "map", "miou", "class_specific"
_WORKDIR = flags.DEFINE_string("workdir", "runs/ablations", "Folder of the runs.")
_TABLE = flags.DEFINE_string("table", "ablations", "Name of the table.")
_SEEDS = flags.DEFINE_integer("seeds", 1, "How many: 0, 1, 2, …")
_IMAGES = flags.DEFINE_integer("num_images", 400, "Validation inputs.")
_COMMON = flags.DEFINE_string("common", "--config.data.limit=9600", "Flags a choice may overrule.")


def measure(choice: str, seed: int) -> dict[str, report.Interval]:
    """Trains and scores one explainer: the metrics of results.json."""
    config, *own = shlex.split(choice)
    file, _, preset = config.partition(":")
    given = [*shlex.split(_COMMON.value), *own, f"--config.seed={seed}"]
    name = "_".join([config, *given]).replace("--config.", "").replace("/", "-")
    folder = ROOT / _WORKDIR.value / name
    results = folder / "eval" / "results.json"
    if not results.is_file():
        described = f"configs/{file}.py" + (f":{preset}" if preset else "")
        shared = [f"--config={described}", f"--workdir={folder}", *given]
        scored = [
            "--methods=",
            "--config.data.eval_split=validation",
            f"--config.eval.num_images={_IMAGES.value}",
        ]
        for script, flags_of_it in (("train.py", []), ("eval.py", scored)):
            command = [sys.executable, str(ROOT / script), *shared, *flags_of_it]
            subprocess.run(command, check=True, cwd=ROOT)
    (metrics,) = json.loads(results.read_text())["methods"].values()
    return metrics


def main(arguments: list[str]) -> None:
    names = arguments[1:] or list(CHOICES)
    runs = {
        name: [measure(CHOICES.get(name, name), seed) for seed in range(_SEEDS.value)]
        for name in names
    }
    command = [
        "python",
        f"benchmarks/{pathlib.Path(sys.argv[0]).name}",
        *arguments[1:],
        f"--seeds={_SEEDS.value}",
    ]
    if _COMMON.value != _COMMON.default:
        command.append(f"--common={_COMMON.value}")
    facts = {
        "Each": f"seeds {', '.join(map(str, range(_SEEDS.value)))}; {_COMMON.value}",
        "Scored on": f"{_IMAGES.value} validation inputs",
    }
    spread = "standard deviation over seeds"
    if _SEEDS.value == 1:
        spread = "half of the 95 % interval over inputs"
    methods = {name: report.over_seeds(of_seeds) for name, of_seeds in runs.items()}
    results = {
        "command": shlex.join(command),
        "note": f"Mean ± {spread}. A choice differs from the default in what its name says.",
        "facts": facts,
        "choices": {name: CHOICES[name] for name in names if name in CHOICES},
        "methods": methods,
    }
    path = ROOT / "docs" / "results" / f"{_TABLE.value}.json"
    path.write_text(json.dumps(results, indent=2, ensure_ascii=False) + "\n")
    panels = {
        heading: {
            name: np.array([metrics[metric]["mean"] for metrics in of_seeds])
            for name, of_seeds in runs.items()
        }
        for metric, (heading, _) in report.COLUMNS.items()
        if metric in _DRAWN
    }
    plotting.dots(path.with_name(f"{_TABLE.value}_seeds.png"), panels)
    subprocess.run([sys.executable, str(ROOT / "scripts" / "docs.py")], check=True, cwd=ROOT)
    print(report.markdown(results, facts))


if __name__ == "__main__":
    app.run(main)
