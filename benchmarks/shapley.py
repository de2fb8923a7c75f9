"""Shapley values of tables beside those of the shap package: error to exact values, time a row.

    python benchmarks/shapley.py --name=breast_cancer
    python benchmarks/shapley.py --name=adult --path=adult.data --million

Classifiers are 100 trees of depth 3 by scikit-learn; Adult's categories are numbers here, for shap
has no others. Exact values are TreeExplainer's, interventional, of the same background. What takes
seconds a row is asked about the first rows. Rows of choices have one seed but for the first.
"""

import argparse
import json
import os
import pathlib
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator

import numpy as np
import pandas as pd
import shap
from sklearn.ensemble import GradientBoostingClassifier

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from fex_jax import explain, settings  # noqa: E402
from fex_jax.data import table_sets, tables  # noqa: E402
from fex_jax.evaluation.tables import compare  # noqa: E402
from fex_jax.host.estimator import estimator  # noqa: E402
from fex_jax.training.explainer import train  # noqa: E402

EPOCHS = {"breast_cancer": 250.0, "adult": 15.0}
ROWS, FEW = 300, 10
CHOICES = {
    "fex-jax": {},
    "without control variate": {"objective.control": False},
    "FastSHAP's loss": {"objective.control": False, "data.augment": False},
}


def load(name: str, path: str) -> tuple[pd.DataFrame, pd.Series]:
    """A data set, with numbers for categories."""
    frame, label = table_sets.load(name, path)
    for column in frame.select_dtypes("category"):
        frame[column] = frame[column].cat.codes
    return frame.astype(float), label


def timed(function, rows: pd.DataFrame, repeats: int = 3):
    """What it returns, and the median of its seconds a row."""
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        found = function(rows)
        seconds.append(time.perf_counter() - began)
    return found, statistics.median(seconds) / len(rows)


def fit(name: str, f, source: tables.Source, seed: int, changes: dict) -> tuple:
    """An explainer, and the seconds of CPUs and queries that it took."""
    config = settings.default("shapley")
    config.data.name, config.seed, config.epochs = name, seed, EPOCHS[name]
    config.update_from_flattened_dict(changes)
    with tempfile.TemporaryDirectory() as folder:
        began = time.process_time()
        train(config, pathlib.Path(folder), f, source)
        seconds = time.process_time() - began
        found = explain.load(folder, f)
    queries = int(config.epochs * source.size) * (1 + config.objective.num_masks)
    return found, seconds, queries


def row(found, exact: np.ndarray, seconds: float, **more: float | int | str) -> dict:
    """What the table says of values [B, N]."""
    values = found[: len(exact)]
    worth = compare(values, exact[: len(values)], np.zeros(values.shape), "")
    return {
        "correlation": worth.correlation,
        "error / range": worth.error,
        "ms a row": 1e3 * seconds,
        **more,
    }


def run(name: str, path: str, seeds: int, choices: int, million: bool) -> Iterator[dict[str, dict]]:
    """The rows so far, whenever there is one more."""
    frame, label = load(name, path)
    model = GradientBoostingClassifier(random_state=0)
    model.fit(table_sets.part(frame, "train"), table_sets.part(label, "train"))
    f = estimator(model, digest=f"{name}, boosting")
    source, test = (
        tables.open_table(table_sets.part(frame, "train")),
        table_sets.part(frame, "test"),
    )
    rows, background = test[:ROWS], source.columns.decode(source.values[:100])
    tree = shap.TreeExplainer(model, background, feature_perturbation="interventional")
    exact, seconds = timed(tree.shap_values, rows)
    size = len(frame.columns)
    found = {"shap TreeExplainer": row(exact, exact, seconds, **{"queries a row": "none"})}

    def score(values):
        return model.decision_function(pd.DataFrame(values, columns=frame.columns))

    kernel = shap.KernelExplainer(score, background)
    values, seconds = timed(lambda x: kernel.shap_values(x, silent=True), rows[:FEW], 1)
    queries = min(2 * size + 2048, 2**size - 2) * 100
    found["shap KernelExplainer"] = row(values, exact, seconds, **{"queries a row": queries})
    permutation = shap.PermutationExplainer(score, background.to_numpy())
    values, seconds = timed(lambda x: permutation(x.to_numpy(), silent=True).values, rows[:FEW], 1)
    found["shap PermutationExplainer"] = row(values, exact, seconds, **{"queries a row": 500 * 100})
    yield found
    for choice, changes in list(CHOICES.items())[:choices]:
        runs = []
        for seed in range(seeds if not changes else 1):
            explainer, fitted, queries = fit(name, f, source, seed, changes)
            explainer(test)  # compiles
            given, seconds = timed(lambda x, e=explainer: e(x), test)
            values = given.attributions.to_numpy()[:ROWS]
            runs.append(row(values, exact, seconds, **{"fit, CPU s": fitted}))
        means = {key: statistics.fmean(one[key] for one in runs) for key in runs[0]}
        found[choice] = means | {"queries a row": 1, "queries of the fit": queries}
        if len(runs) > 1:
            correlations = [one["correlation"] for one in runs]
            found[choice]["correlation, deviation over seeds"] = statistics.stdev(correlations)
        found[choice]["seeds"] = len(runs)
        if million and not changes:
            many = pd.concat([test] * (1 + 10**6 // len(test)))[: 10**6]
            began = time.perf_counter()
            explainer(many, batch_size=16384)
            found[choice]["seconds, a million rows"] = time.perf_counter() - began
        yield found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--name", choices=EPOCHS, default="breast_cancer")
    parser.add_argument("--path", default="", help="of adult.data")
    parser.add_argument("--seeds", type=int, default=3, help="of the first choice")
    parser.add_argument("--choices", type=int, default=len(CHOICES), help="the first so many")
    parser.add_argument("--million", action="store_true", help="explain a million rows, too")
    parser.add_argument("--output", type=pathlib.Path, default="docs/results")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    command = f"python benchmarks/shapley.py --name={given.name} --seeds={given.seeds}"
    command += f" --choices={given.choices}"
    command += " --path=adult.data" if given.path else ""
    command += " --million" if given.million else ""
    path = given.output / f"shapley_{given.name}.json"
    for rows in run(given.name, given.path, given.seeds, given.choices, given.million):
        found = {"command": command, "cores": os.cpu_count(), "rows": rows}
        path.write_text(json.dumps(found, indent=2) + "\n")
        print(f"wrote {path}")


if __name__ == "__main__":
    main()
