"""Fills docs/results: FEX and FastSHAP under several seeds, and every other method.

    python benchmarks/tables.py --name=digit_scenes --workdir=runs/tables

trains both explainers of `configs/<name>.py` and its preset `:fastshap` under each seed and
scores them with `eval.py --methods=all`. Further flags go to train.py and eval.py:
`--config.data.limit=6400`. Interrupted, the same command continues. Writes
`docs/results/<name>.json` and the plots, and makes the documents anew (`scripts/docs.py`).

    python benchmarks/tables.py --name=digit_scenes --merge --methods=kernel_shap,attlrp \\
        --explainer=models/digits_fex --config.eval.num_images=400

trains nothing: it scores these methods anew about the classifier that `--explainer` explains, on
the same inputs, puts their rows into the file that is there, and the page says when and how they
were made. Plots stay as they are.
"""

import datetime
import json
import pathlib
import shlex
import shutil
import subprocess
import sys

from absl import app, flags

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from fex_jax import report  # noqa: E402

RESULTS = ROOT / "docs" / "results"

_NAME = flags.DEFINE_string("name", "digit_scenes", "A file of configs/ without its suffix.")
_WORKDIR = flags.DEFINE_string("workdir", "runs/tables", "Folder of the runs of all seeds.")
_SEEDS = flags.DEFINE_integer("seeds", 3, "How many: 0, 1, 2, …")
_METHODS = flags.DEFINE_string("methods", "all", "As in eval.py.")
_REFINE = flags.DEFINE_integer("refine", 0, "As in eval.py.")
_MERGE = flags.DEFINE_bool("merge", False, "Only replace the rows of --methods.")
_EXPLAINER = flags.DEFINE_string(
    "explainer",
    None,
    "With --merge: any explainer of the classifier, a few batches of training do; or seed 0's.",
)


def run(script: str, *arguments: str) -> None:
    subprocess.run([sys.executable, str(ROOT / script), *arguments], check=True, cwd=ROOT)


def train_all(name: str, workdir: pathlib.Path, passed: list[str]) -> list[str]:
    """Folders of the explainers, FEX's seeds first; those that are trained stay as they are."""
    own = [a for a in passed if not a.startswith(("--config.eval", "--config.attributions"))]
    folders = []
    for method, preset in (("fex", ""), ("fastshap", ":fastshap")):
        for seed in range(_SEEDS.value):
            folders.append(str(workdir / f"{name}_{method}{seed}"))
            run(
                "train.py",
                f"--config=configs/{name}.py{preset}",
                f"--workdir={folders[-1]}",
                f"--config.seed={seed}",
                *own,
            )
    return folders


def main(arguments: list[str]) -> None:
    name, workdir, passed = _NAME.value, pathlib.Path(_WORKDIR.value), arguments[1:]
    path = RESULTS / f"{name}.json"
    if _MERGE.value and not path.is_file():
        sys.exit(f"error: --merge needs {path.relative_to(ROOT)}: make it without --merge first")
    if _MERGE.value and _METHODS.value == "all":
        sys.exit("error: --merge needs the rows to replace: --methods=kernel_shap,attlrp")
    if _MERGE.value:
        folders = [_EXPLAINER.value or str(workdir / f"{name}_fex0")]
    else:
        folders = train_all(name, workdir, passed)
    run(
        "eval.py",
        f"--config=configs/{name}.py",
        f"--workdir={folders[0]}",
        f"--trained={','.join(folders[1:])}",
        f"--methods={_METHODS.value}",
        f"--refine={_REFINE.value}",
        *passed,
    )
    found = ROOT / folders[0] / "eval"
    results = json.loads((found / "results.json").read_text())
    command = ["python", "benchmarks/tables.py", f"--name={name}"]
    command += ["--merge"] if _MERGE.value else [f"--seeds={_SEEDS.value}"]
    command += [f"--methods={_METHODS.value}"] if _METHODS.value != "all" else []
    command += [f"--refine={_REFINE.value}"] if _REFINE.value else []
    # Where data and weights lie on one machine means nothing on another.
    command += [a for a in passed if ".path=" not in a and "predictor.labels=" not in a]
    command = shlex.join(command)
    date = datetime.date.today().isoformat()
    if _MERGE.value:
        made = {"date": date, "command": command, "versions": results["facts"]["Versions"]}
        try:
            published = json.loads(path.read_text())
            results = report.merge(published, results, _METHODS.value.split(","), made)
        except ValueError as error:
            sys.exit(f"error: {error}")
    else:
        spread = "Mean ± half of the 95 % bootstrap interval over inputs"
        if _SEEDS.value > 1:
            spread += f"; of trained methods, ± the standard deviation over {_SEEDS.value} seeds"
        results |= {"command": command, "note": f"{spread}.", "seeds": list(range(_SEEDS.value))}
        results["facts"]["Date"] = date
        results["facts"]["Predictor"] = results["facts"]["Predictor"].removeprefix(f"{workdir}/")
        for part in ("data", "predictor", "policy_backbone"):
            results["config"][part]["path"] = ""
        results["config"]["predictor"]["labels"] = ""
        for kind in ("curves", "maps", "top_words"):
            if (found / f"{kind}.png").is_file():
                shutil.copy(found / f"{kind}.png", RESULTS / f"{name}_{kind}.png")
    RESULTS.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=2, ensure_ascii=False) + "\n")
    page = RESULTS / f"{name}.md"
    if not page.is_file():
        page.write_text(f"# {name}\n\n<!-- results: {name} -->\n<!-- end -->\n")
    run("scripts/docs.py")
    print(f"wrote {path} and {page}")


if __name__ == "__main__":
    # What is not a flag of this script goes on to the two it runs.
    app.run(main, flags_parser=lambda given: flags.FLAGS(given, known_only=True))
