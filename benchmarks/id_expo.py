"""What ID-ExpO changes: a classifier's accuracy, and how faithful its explanations are.

    python benchmarks/id_expo.py
    python benchmarks/id_expo.py --explainers=gradcam_norm1 --seeds=3
    python benchmarks/id_expo.py --data=adult --path=adult.data --strength=0.05 --seeds=3 \
        --explainers=lime,kernel_shap

For each explainer configs/idexpo_{digits,adult}.py trains the classifier twice, with λ₁ of
`--strength` and with λ₁ = 0: the same steps without the regulariser. Both are scored on the same
test inputs, of Adult on all. Writes docs/results/idexpo_{digits,adult}.json, and makes the
documents anew. Interrupted, the same command continues.
"""

import datetime
import json
import pathlib
import subprocess
import sys

import jax
import numpy as np
from absl import app, flags

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from configs import idexpo_adult, idexpo_digits  # noqa: E402
from fex_jax import (  # noqa: E402
    attributions,
    evaluation,
    explain,
    feeding,
    metrics,
    predictors,
    pretrained,
    table_classifier,
)
from fex_jax.evaluation import inputs, measure, tasks  # noqa: E402
from fex_jax.training import joint_tables  # noqa: E402

_DATA = flags.DEFINE_enum("data", "digits", ["digits", "adult"], "Whose config.")
_PATH = flags.DEFINE_string("path", "adult.data", "File of Adult.")
_EXPLAINERS = flags.DEFINE_list("explainers", ["gradcam_norm1", "fex"], "As in the config.")
_SEEDS = flags.DEFINE_integer("seeds", 1, "How many: 0, 1, 2, …")
_STRENGTH = flags.DEFINE_float("strength", 0.1, "λ₁.")
_IMAGES = flags.DEFINE_integer("num_images", 800, "Test scenes.")
_WORKDIR = flags.DEFINE_string("workdir", "runs/id_expo", "Folder of the runs.")
_NAMES = {
    "gradcam_norm1": "Grad-CAM",
    "gradcam_attention": "Grad-CAM, attention",
    "lime": "LIME",
    "kernel_shap": "KernelSHAP",
    "fex": "FEX",
}
_QUERIES = {"lime": {"num_queries": 200}, "kernel_shap": {"num_queries": 200}}  # where scored


def tune(explainer: str, strength: float, seed: int) -> pathlib.Path:
    """The folder of a run, which this trains where it has not finished."""
    of_table = _DATA.value == "adult"
    if of_table and not strength:
        explainer = "lime"  # of tables no explanation counts without λ₁: one run for all
    folder = ROOT / _WORKDIR.value / _DATA.value / f"{explainer}_{strength:g}_{seed}"
    if not (folder / "predictor").is_dir() or (folder / "checkpoints").is_dir():
        config = f"configs/idexpo_{_DATA.value}.py:{explainer}"
        command = [sys.executable, "train.py", f"--config={config}", f"--workdir={folder}"]
        command += [f"--config.id_expo.strength={strength}", f"--config.seed={seed}"]
        command += [f"--config.data.path={pathlib.Path(_PATH.value).resolve()}"] if of_table else []
        subprocess.run(command, check=True, cwd=ROOT)
    return folder


def score(predictor: pretrained.Checkpoint, method) -> dict[str, np.ndarray]:
    """Of each test scene: whether the prediction is in it, and the areas of a method's map."""
    config = idexpo_digits.get_config()
    bind = predictors.from_checkpoint(predictor, config.predictor.fill)
    predict = tasks.make_prediction(bind, predictor.params)
    source = feeding.open_split(predictor, config)
    reading = tasks.Reading(metrics.FEX, 128, _IMAGES.value, "word", 0, "refuse", "name")
    task = inputs.open_task(predictor, bind, predict, source, None, reading)
    task = task._replace(pairs=np.zeros(0, int))
    if not isinstance(method, evaluation.Method):
        method = evaluation.of_function(
            method, attributions.METHODS[method], _QUERIES.get(method, {}), bind, predictor.params
        )
    scores = evaluation.attribute(method, None, task, 128, seed=0)
    perturb = measure.make_perturbation(predictor, bind, metrics.FEX)
    found = measure.statistics(scores, task, perturb, 128, method.logits)
    right = (task.segmentation == 1 + task.targets[:, None, None]).any((1, 2))
    names = "insertion", "deletion", "positive_auc", "negative_auc"
    return {"accuracy": right.astype(float)} | {name: found[name] for name in names}


def score_rows(folder: pathlib.Path, explainer: str) -> dict[str, np.ndarray]:
    """Of each test row what `score` finds of a scene."""
    config = idexpo_adult.get_config()
    config.data.path = _PATH.value
    source, _, classes = joint_tables.open_split(config, config.data.eval_split)
    f, params = table_classifier.read(folder)
    rows, model = f.steps(f.steps.scaled(source.values)), f.model(params)
    found = model.predict(rows).argmax(-1)
    method = attributions.METHODS[explainer]
    scores = method(model, rows, found, jax.random.key(0), **_QUERIES[explainer])
    curves = metrics.perturbation_curves(model.predict, model.mask, rows, scores, found, found)
    areas = {name: np.asarray(area) for name, area in metrics.areas(curves, metrics.FEX).items()}
    return {"accuracy": np.asarray(found == classes, float)} | areas


def of_run(explainer: str, folder: pathlib.Path) -> dict[str, np.ndarray]:
    if _DATA.value == "adult":
        return score_rows(folder / "predictor", explainer)
    predictor = pretrained.load(str(folder / "predictor"))
    method = evaluation.trained(explain.load(folder)) if explainer == "fex" else explainer
    return score(predictor, method)


def cells(found: list[dict[str, np.ndarray]], plain: list[dict[str, np.ndarray]] | None) -> dict:
    """Means over scenes and seeds, and of differences from `plain` half of their 95 % interval."""
    row: dict[str, float | str] = {}
    for name in found[0]:
        values = np.mean([of[name] for of in found], 0)
        row[name.replace("_", " ")] = round(float(values.mean()), 3)
        if plain is not None and name in ("accuracy", "insertion", "deletion"):
            pairs = values - np.mean([of[name] for of in plain], 0)
            mean, low, high = metrics.bootstrap_interval(pairs)
            row[f"{name}, difference"] = f"{float(mean):+.3f} ± {float(high - low) / 2:.3f}"
    return row


def main(_: list[str]) -> None:
    rows, seeds = {}, range(_SEEDS.value)
    for explainer in _EXPLAINERS.value:
        name = _NAMES.get(explainer, explainer)
        of_table = _DATA.value == "adult"
        if explainer != "fex" and not of_table:
            before = score(pretrained.load(str(ROOT / "models/digits_vit")), explainer)
            rows[f"{name}: the classifier as it was"] = cells([before], None)
        plain, tuned = (
            [of_run(explainer, tune(explainer, strength, seed)) for seed in seeds]
            for strength in (0.0, _STRENGTH.value)
        )
        how = "trained" if of_table else "fine-tuned"
        rows[f"{name}: {how} without the regulariser"] = cells(plain, None)
        rows[f"{name}: ID-ExpO"] = cells(tuned, plain)
    made = {
        "date": datetime.date.today().isoformat(),
        "inputs": len(plain[0]["accuracy"]),
        "seeds": len(seeds),
        "strength": _STRENGTH.value,
        "rows": rows,
    }
    output = ROOT / "docs" / "results" / f"idexpo_{_DATA.value}.json"
    output.write_text(json.dumps(made, indent=2, ensure_ascii=False) + "\n")
    print(json.dumps(rows, indent=1, ensure_ascii=False))
    subprocess.run([sys.executable, str(ROOT / "scripts" / "docs.py")], check=True)


if __name__ == "__main__":
    app.run(main)
