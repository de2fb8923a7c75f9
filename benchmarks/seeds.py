"""Trains and scores one experiment under several seeds: mean and spread of every metric.

    python benchmarks/seeds.py --config=configs/digit_scenes.py --workdir=runs/seeds

Further flags go to train.py and eval.py: `--config.data.limit=6400`. Interrupted, the same command
continues. Writes `<workdir>/results.json` and prints a Markdown table.
"""

import json
import pathlib
import statistics
import subprocess
import sys

from absl import app, flags
from ml_collections import config_flags

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from eval import COLUMNS  # noqa: E402

_SEEDS = flags.DEFINE_integer("seeds", 3, "How many: 0, 1, 2, …")


def run_seed(seed: int, workdir: pathlib.Path, arguments: list[str]) -> dict:
    """results.json of one seed; trains and evaluates unless that is done."""
    results = workdir / "eval" / "results.json"
    if not results.exists():
        for script in ("train.py", "eval.py"):
            command = [sys.executable, str(ROOT / script), *arguments]
            subprocess.run(
                [*command, f"--workdir={workdir}", f"--config.seed={seed}"], check=True, cwd=ROOT
            )
    return json.loads(results.read_text())


def summary(runs: list[dict], method: str, metric: str) -> str:
    """Mean over seeds ± their standard deviation."""
    values = [run["methods"][method][metric]["mean"] for run in runs]
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.3f} ± {spread:.3f}"


def main(_: list[str]) -> None:
    workdir = pathlib.Path(flags.FLAGS.workdir)
    own = ("--workdir", "--seeds")
    arguments = [argument for argument in sys.argv[1:] if not argument.startswith(own)]
    runs = [run_seed(i, workdir / f"seed{i}", arguments) for i in range(_SEEDS.value)]
    (workdir / "results.json").write_text(json.dumps(runs, indent=2) + "\n")
    columns = {m: heading for m, heading in COLUMNS.items() if m in runs[0]["methods"]["fex"]}
    print("| |" + "|".join(columns.values()) + "|")
    print("|---|" + "---|" * len(columns))
    for method in runs[0]["methods"]:
        print(f"| {method} |" + "|".join(summary(runs, method, m) for m in columns) + "|")
    if "class_specific" in runs[0]:
        fractions = [run["class_specific"]["fraction"] for run in runs]
        print(f"two-object scenes with both maps right: {', '.join(f'{f:.1%}' for f in fractions)}")


if __name__ == "__main__":
    config_flags.DEFINE_config_file("config", None, "An experiment of configs/.")
    flags.DEFINE_string("workdir", None, "Folder for the runs of all seeds.")
    flags.mark_flags_as_required(["config", "workdir"])
    app.run(main)
