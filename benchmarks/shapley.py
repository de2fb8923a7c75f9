"""Shapley values of tables beside those of the shap package and of FastSHAP.

    python benchmarks/shapley.py --name=breast_cancer
    python benchmarks/shapley.py --name=adult --path=adult.data --million
    python benchmarks/shapley.py --name=nhanes --path=nhanes --seeds=1 --norivals

Classifiers are 100 trees of depth 3 by scikit-learn; Adult's categories are numbers here, for shap
has no others. NHANES is that of configs/tables_nhanes.py. Exact values are TreeExplainer's,
interventional, of the same background; of a surrogate those of its own value function. What takes
seconds a row is asked about the first rows. Deletion and insertion, of these rows: all columns are
removed one after the other, and the area is that under the log-odds of the predicted class.
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
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd
import shap
from sklearn.ensemble import GradientBoostingClassifier

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from configs import tables_nhanes  # noqa: E402
from fex_jax import explain, metrics, settings, shapley  # noqa: E402
from fex_jax.attributions.kernel_shap import normalize  # noqa: E402
from fex_jax.data import table_sets, tables  # noqa: E402
from fex_jax.evaluation.tables import compare  # noqa: E402
from fex_jax.host import HostPredictor, black_box  # noqa: E402
from fex_jax.host.estimator import estimator  # noqa: E402
from fex_jax.host.model import plain_errors  # noqa: E402
from fex_jax.training import asking  # noqa: E402
from fex_jax.training.explainer import train  # noqa: E402
from fex_jax.updates import TrainState  # noqa: E402

EPOCHS = {"breast_cancer": 250.0, "adult": 15.0, "nhanes": 60.0}
ROWS, FEW = 300, 30
OURS = {
    "fex-jax": {},
    "fex-jax, FastSHAP's loss": {"objective.control": False, "data.augment": False},
}
# As published for tables: rows of a batch, coalitions of each, numbers of a hidden layer.
BATCH, COALITIONS, HIDDEN = 32, 32, 128


def load(name: str, path: str) -> tuple[pd.DataFrame, Any, HostPredictor, Callable | None]:
    """A data set, with numbers for categories, its model, f, and its answers of arrays."""
    frame, label = table_sets.load(name, path)
    if name == "nhanes":
        model, f = tables_nhanes.fitted(path), tables_nhanes.regression(path=path)
        # TreeExplainer misreads gaps: its values of rows with some do not add up.
        return frame.dropna(), model, f, None
    for column in frame.select_dtypes("category"):
        frame[column] = frame[column].cat.codes
    frame = frame.astype(float)
    model = GradientBoostingClassifier(random_state=0)
    model.fit(table_sets.part(frame, "train"), table_sets.part(label, "train"))

    def score(values: np.ndarray) -> np.ndarray:
        return model.decision_function(pd.DataFrame(values, columns=frame.columns))

    return frame, model, estimator(model, digest=f"{name}, boosting"), score


def timed(function: Callable, rows: pd.DataFrame, repeats: int = 3) -> tuple[Any, float]:
    """What it returns, and the median of its seconds a row."""
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        found = function(rows)
        seconds.append(time.perf_counter() - began)
    return found, statistics.median(seconds) / len(rows)


def configured(name: str, seed: int, changes: dict) -> Any:
    config = settings.default("shapley")
    config.data.name, config.seed, config.epochs = name, seed, EPOCHS[name]
    config.update_from_flattened_dict(changes)
    return config


def fit(config: Any, f, source: tables.Source) -> explain.Explainer:
    with tempfile.TemporaryDirectory() as folder:
        train(config, pathlib.Path(folder), f, source)
        return explain.load(folder, f)


def fastshap(config: Any, f, source: tables.Source, queries: int, rate: float = 2e-3):
    """FastSHAP's network and batches: explain(values [B, D]) → φ of the last class, and its box.

    f is asked so many times; of a surrogate as many answers are its own.
    """
    _, _, reads = black_box.kind_of(f).policy(config, f, source)
    with tempfile.TemporaryDirectory() as folder:
        given = f, reads, config, pathlib.Path(folder), source, 0, None
        with asking.settled(*given) as box:
            reads = box.reads
    objective = shapley.Objective(num_masks=COALITIONS, control=False, num_updates=1)
    scaled = reads.steps.scaled(source.values)
    mean, spread = scaled.mean(0), scaled.std(0) + 1e-6
    sizes = scaled.shape[1], HIDDEN, HIDDEN, len(reads.features)

    def network(params: list, inputs: Any, targets: jax.Array) -> jax.Array:
        x = (inputs.rows.values - mean) / spread
        for weights, bias in params[:-1]:
            x = jax.nn.relu(x @ weights + bias)
        x = x @ params[-1][0] + params[-1][1]
        # Of two classes one's values are the other's with the opposite sign.
        return jnp.where(targets == 1, 1.0, -1.0)[..., None] * x[:, None]

    steps = queries // (BATCH * (1 + COALITIONS))
    optimizer = optax.adam(optax.warmup_cosine_decay_schedule(0, rate, steps // 20, steps))
    keys = jax.random.split(jax.random.key(config.seed), 4)
    params = [
        (jax.random.normal(key, (i, o)) * gain / np.sqrt(i), jnp.zeros(o))
        for key, i, o, gain in zip(keys, sizes[:-1], sizes[1:], (1.4, 1.4, 0.1), strict=False)
    ]

    @jax.jit
    def step(state: TrainState, batch: Any, key: jax.Array) -> TrainState:
        model, inputs = box.bind({}, batch)
        return shapley.train_step(state, model, inputs, key, network, optimizer, objective)[0]

    @jax.jit
    def values_of(params: list, batch: Any) -> jax.Array:
        model, inputs = box.bind({}, batch)
        phi = network(params, inputs, jnp.ones((len(batch.values), 1), int))[:, 0]
        return normalize(phi, model.predict(inputs)[:, 1], model.features(inputs))

    state = TrainState(params, optimizer.init(params), jnp.zeros((), int))
    stream = table_sets.train_stream(source, BATCH, config.seed)
    with plain_errors():
        for number, rows in zip(range(steps), stream, strict=False):
            state = step(state, reads.batch(rows), jax.random.fold_in(keys[3], number))
        jax.block_until_ready(state.params)
    scale = reads.scale[1]
    return lambda values: np.asarray(values_of(state.params, reads.batch(values))) * scale, box


def own_values(box: Any, values: np.ndarray, given: np.ndarray) -> dict:
    """Correlation and error to the Shapley values of what a box says itself."""
    with plain_errors():
        model, inputs = box.bind({}, box.reads.batch(values))
        if model.num_features <= shapley.MOST_EXACT:
            true = shapley.exact(model, inputs)
            noise = np.zeros_like(true)
        else:
            true, noise = shapley.sampled(model, inputs, jax.random.key(0), 500)
    scale = box.reads.scale[1]
    worth = compare(given, true[:, 1] * scale, (noise[:, 1] * scale) ** 2, "")
    return {"correlation": worth.correlation, "error / range": worth.error}


def row(given: np.ndarray, exact: np.ndarray, seconds: float) -> dict:
    """What the table says of values [B, N]."""
    worth = compare(given, exact[: len(given)], np.zeros(given.shape), "")
    return {
        "v(S)": "marginal",
        "correlation": worth.correlation,
        "error / range": worth.error,
        "ms a row": 1e3 * seconds,
    }


def removing(box: Any, values: np.ndarray) -> Callable[[np.ndarray], dict]:
    """Deletion and insertion of columns, the features of rows by values of the last class."""
    model, inputs = box.bind({}, box.reads.batch(values))
    scale, base = box.reads.scale, box.reads.base

    @jax.jit
    def areas(scores: jax.Array, targets: jax.Array) -> dict:
        def predict(masked: Any) -> jax.Array:
            return model.predict(masked) * scale + base

        asked = predict, model.mask, inputs, scores, targets, targets
        return metrics.areas(metrics.perturbation_curves(*asked), metrics.FEX)

    targets = (np.asarray(model.predict(inputs)) * scale + base).argmax(-1)

    def measure(given: np.ndarray) -> dict:
        signs = np.where(targets == len(scale) - 1, 1.0, -1.0)[:, None]
        found = areas(jnp.asarray(signs * given[: len(targets)], jnp.float32), targets)
        return {name: float(found[name].mean()) for name in ("deletion", "insertion")}

    return measure


def joined(runs: list[dict]) -> dict:
    """Means over seeds, and how far these are apart."""
    found = {
        key: value if isinstance(value, str) else statistics.fmean(one[key] for one in runs)
        for key, value in runs[0].items()
    }
    if len(runs) > 1:
        spread = statistics.stdev(one["correlation"] for one in runs)
        found["correlation, deviation over seeds"] = spread
    return found | {"seeds": len(runs)}


def run(
    name: str, path: str, seeds: int, million: bool, rivals: bool = True
) -> Iterator[dict[str, dict]]:
    """The rows so far, whenever there is one more."""
    frame, model, f, score = load(name, path)
    source = tables.open_table(table_sets.part(frame, "train"))
    test = table_sets.part(frame, "test")
    rows, background = test[:ROWS], source.columns.decode(source.values[:100])
    values = source.columns.encode(rows)
    tree = shap.TreeExplainer(model, background, feature_perturbation="interventional")
    exact, seconds = timed(tree.shap_values, rows)
    size = len(frame.columns)
    _, _, reads = black_box.kind_of(f).policy(configured(name, 0, {}), f, source)
    remove = removing(black_box.of(f, reads=reads), values[:FEW])

    def by_kernel(x: pd.DataFrame) -> np.ndarray:
        return shap.KernelExplainer(score, background).shap_values(x, silent=True)

    def by_permutation(x: pd.DataFrame) -> np.ndarray:
        explainer = shap.PermutationExplainer(score, background.to_numpy(), seed=seed)
        return explainer(x.to_numpy(), silent=True).values

    found = {"shap TreeExplainer": row(exact, exact, seconds) | remove(exact) | {"seeds": 1}}
    found["shap TreeExplainer"]["queries a row"] = "none"
    yield found
    kernel_queries = min(2 * size + 2048, 2**size - 2) * 100
    sampling = {
        "shap KernelExplainer": (by_kernel, kernel_queries),
        "shap PermutationExplainer": (by_permutation, 500 * 100),
    }
    for rival, (function, queries) in sampling.items() if rivals else ():
        runs = []
        for seed in range(seeds):
            np.random.seed(seed)
            given, seconds = timed(function, rows[:FEW], 1)
            runs.append(row(given, exact, seconds) | remove(given))
        found[rival] = joined(runs) | {"queries a row": queries}
        yield found
    for choice, changes in list(OURS.items())[: None if rivals else 1]:
        runs = []
        for seed in range(seeds):
            config, began = configured(name, seed, changes), time.process_time()
            explainer = fit(config, f, source)
            fitted = {"fit, CPU s": time.process_time() - began}
            explainer(test)  # compiles
            given, seconds = timed(explainer, test)
            given = given.attributions.to_numpy()[:ROWS]
            runs.append(row(given, exact, seconds) | remove(given) | fitted)
        asked = int(config.epochs * source.size) * (1 + config.objective.num_masks)
        found[choice] = joined(runs) | {"queries a row": 1, "queries of the fit": asked}
        if million and not changes:
            many = pd.concat([test] * (1 + 10**6 // len(test)))[: 10**6]
            began = time.perf_counter()
            explainer(many, batch_size=16384)
            found[choice]["seconds, a million rows"] = time.perf_counter() - began
        yield found
    kinds = {"FastSHAP": "background", "FastSHAP, surrogate": "surrogate"}
    for choice, kind in kinds.items() if rivals else ():
        runs = []
        for seed in range(seeds):
            config, began = configured(name, seed, {"removal.kind": kind}), time.process_time()
            function, box = fastshap(config, f, source, asked)
            fitted = {"fit, CPU s": time.process_time() - began}
            many = source.columns.encode(test)
            function(many)
            given, seconds = timed(function, many)
            one = row(given[:ROWS], exact, seconds) | remove(given) | fitted
            if kind == "surrogate":
                one |= {"v(S)": "conditional", **own_values(box, values[:FEW], given[:FEW])}
            runs.append(one)
        surrogate = {"queries of the fit": source.size} if kind == "surrogate" else {}
        found[choice] = joined(runs) | {"queries a row": 1, "queries of the fit": asked} | surrogate
        yield found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--name", choices=EPOCHS, default="breast_cancer")
    parser.add_argument("--path", default="", help="of adult.data, or of the folder of NHANES")
    parser.add_argument("--seeds", type=int, default=3, help="of all that draw")
    parser.add_argument("--million", action="store_true", help="explain a million rows, too")
    parser.add_argument("--norivals", action="store_true", help="but TreeExplainer")
    parser.add_argument("--output", type=pathlib.Path, default="docs/results")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    command = f"python benchmarks/shapley.py --name={given.name}"
    command += f" --seeds={given.seeds}" if given.seeds != 3 else ""
    command += (
        {"adult": " --path=adult.data", "nhanes": " --path=nhanes"}[given.name]
        if given.path
        else ""
    )
    command += " --million" if given.million else ""
    command += " --norivals" if given.norivals else ""
    path = given.output / f"shapley_{given.name}.json"
    options = given.name, given.path, given.seeds, given.million, not given.norivals
    for rows in run(*options):
        found = {"command": command, "cores": os.cpu_count(), "rows": rows}
        path.write_text(json.dumps(found, indent=2) + "\n")
        print(f"wrote {path}: {', '.join(rows)}", flush=True)


if __name__ == "__main__":
    main()
