"""Fills the tables of docs/results: FEX and FastSHAP under several seeds, and every baseline.

    python benchmarks/tables.py --name=digit_scenes --workdir=runs/tables

trains both explainers of `configs/<name>.py`, FEX and `:fastshap`, under each seed and scores them
with `eval.py --methods=all`. Further flags go to train.py and eval.py:
`--config.data.limit=6400`. Interrupted, the same command continues. Writes
`docs/results/<name>.md`, `.json` and the plots; what is written by hand above the page's command
stays.
"""

import json
import pathlib
import shlex
import shutil
import subprocess
import sys

from absl import app, flags

ROOT = pathlib.Path(__file__).resolve().parent.parent

_COMMAND = "    python benchmarks/tables.py"
_NAME = flags.DEFINE_string("name", "digit_scenes", "A file of configs/ without its suffix.")
_WORKDIR = flags.DEFINE_string("workdir", "runs/tables", "Folder of the runs of all seeds.")
_SEEDS = flags.DEFINE_integer("seeds", 3, "How many: 0, 1, 2, …")
_METHODS = flags.DEFINE_string("methods", "all", "As in eval.py.")
_REFINE = flags.DEFINE_integer("refine", 0, "As in eval.py.")


def run(script: str, *arguments: str) -> None:
    subprocess.run([sys.executable, str(ROOT / script), *arguments], check=True, cwd=ROOT)


def main(arguments: list[str]) -> None:
    name, workdir, passed = _NAME.value, pathlib.Path(_WORKDIR.value), arguments[1:]
    folders = []
    for method, preset in (("fex", ""), ("fastshap", ":fastshap")):
        for seed in range(_SEEDS.value):
            folders.append(str(workdir / f"{name}_{method}{seed}"))
            run(
                "train.py",
                f"--config=configs/{name}.py{preset}",
                f"--workdir={folders[-1]}",
                f"--config.seed={seed}",
                *(
                    a
                    for a in passed
                    if not a.startswith(("--config.eval", "--config.attributions"))
                ),
            )
    run(
        "eval.py",
        f"--config=configs/{name}.py",
        f"--workdir={folders[0]}",
        f"--trained={','.join(folders[1:])}",
        f"--methods={_METHODS.value}",
        f"--refine={_REFINE.value}",
        *passed,
    )
    found = pathlib.Path(folders[0]) / "eval"
    output = ROOT / "docs" / "results"
    output.mkdir(parents=True, exist_ok=True)
    command = [*_COMMAND.split(), f"--name={name}", f"--seeds={_SEEDS.value}"]
    command += [f"--methods={_METHODS.value}"] if _METHODS.value != "all" else []
    command += [f"--refine={_REFINE.value}"] if _REFINE.value else []
    # Where data and weights lie on one machine means nothing on another.
    public = [a for a in passed if ".path=" not in a]
    results = json.loads((found / "results.json").read_text())
    results["command"] = shlex.join([*command, *public])
    results["seeds"] = list(range(_SEEDS.value))
    results["config"]["data"]["path"] = ""
    (output / f"{name}.json").write_text(json.dumps(results, indent=2) + "\n")
    text = (found / "results.md").read_text()
    kinds = [k for k in ("curves", "maps", "top_words") if (found / f"{k}.png").is_file()]
    images = ", ".join(f"[{kind}]({name}_{kind}.png)" for kind in kinds)
    spread = "Mean ± half of the 95 % bootstrap interval over inputs"
    if _SEEDS.value > 1:
        spread += f"; of trained methods, ± the standard deviation over {_SEEDS.value} seeds"
    page = output / f"{name}.md"
    above = page.read_text().partition(_COMMAND)[0] if page.is_file() else f"# {name}\n\n"
    page.write_text(
        f"{above}    {results['command']}\n\n{spread}. "
        "Predictions are timed in turns with the method; seconds are those of one machine, which "
        "may have been busy.\n\n"
        f"{text}\nPictures: {images}\n"
    )
    for kind in kinds:
        shutil.copy(found / f"{kind}.png", output / f"{name}_{kind}.png")
    print(f"wrote {page}")


if __name__ == "__main__":
    # What is not a flag of this script goes on to the two it runs.
    app.run(main, flags_parser=lambda given: flags.FLAGS(given, known_only=True))
