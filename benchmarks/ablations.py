"""What choices of an objective do, on validation inputs: one training a choice and seed.

    python benchmarks/ablations.py digit_scenes "digit_scenes --config.objective.num_passes=3" \\
        "fastshap_digit_scenes --config.objective.num_passes=3" --seeds=3

Each argument is a choice: a file of configs/ without its suffix, and flags for it; `--common` holds
flags for all. Writes a table, a row a choice, to `<workdir>/<--table>.md` and prints it.
Interrupted, the same command continues.
"""

import json
import pathlib
import shlex
import subprocess
import sys

from absl import app, flags

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from fex_jax import report  # noqa: E402

_WORKDIR = flags.DEFINE_string("workdir", "runs/ablations", "Folder of the runs.")
_TABLE = flags.DEFINE_string("table", "ablations", "Name of the table.")
_SEEDS = flags.DEFINE_integer("seeds", 1, "How many: 0, 1, 2, …")
_IMAGES = flags.DEFINE_integer("num_images", 400, "Validation inputs.")
_COMMON = flags.DEFINE_string("common", "--config.data.limit=9600", "Flags of every choice.")


def measure(choice: str, seed: int) -> dict[str, report.Interval]:
    """Trains and scores one explainer: the metrics of results.json."""
    config, *given = shlex.split(f"{choice} {_COMMON.value} --config.seed={seed}")
    name = "_".join([config, *given]).replace("--config.", "").replace("/", "-")
    folder = ROOT / _WORKDIR.value / name
    results = folder / "eval" / "results.json"
    if not results.is_file():
        shared = [f"--config=configs/{config}.py", f"--workdir={folder}", *given]
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
    choices = arguments[1:]
    if not choices:
        sys.exit(f"error: nothing to compare\n\n{__doc__}")
    methods = {
        choice: report.over_seeds([measure(choice, seed) for seed in range(_SEEDS.value)])
        for choice in choices
    }
    facts = {"All": _COMMON.value, "Scored on": f"{_IMAGES.value} validation inputs"}
    text = report.markdown({"methods": methods}, facts)
    (ROOT / _WORKDIR.value / f"{_TABLE.value}.md").write_text(text)
    print(text)


if __name__ == "__main__":
    app.run(main)
