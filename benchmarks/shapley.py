"""Shapley values of tables beside those of the shap package and of FastSHAP.

    python benchmarks/shapley.py --name=breast_cancer
    python benchmarks/shapley.py --name=adult --path=adult.data --million
    python benchmarks/shapley.py --name=nhanes --path=nhanes

`--rows "FastSHAP, surrogate"` makes some rows anew and leaves the others of the file.
Classifiers are 100 trees of depth 3 by scikit-learn; Adult's categories are numbers here, for shap
has no others. NHANES is that of configs/tables_nhanes.py. Exact values are TreeExplainer's,
interventional, of the same background; of a surrogate those of its own value function. What takes
seconds a row is asked about the first rows. Deletion and insertion, of these rows: all columns are
removed one after the other, and the area is that under the log-odds of the predicted class, or the
predicted value.
"""

import argparse
import functools
import json
import os
import pathlib
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd
import shap
from sklearn.ensemble import GradientBoostingClassifier

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from configs import tables_nhanes  # noqa: E402
from fex_jax import explain, settings, shapley  # noqa: E402
from fex_jax.attributions.kernel_shap import normalize  # noqa: E402
from fex_jax.data import table_sets, tables  # noqa: E402
from fex_jax.evaluation import tables as of_tables  # noqa: E402
from fex_jax.host import HostPredictor, black_box  # noqa: E402
from fex_jax.host.estimator import estimator  # noqa: E402
from fex_jax.host.model import plain_errors  # noqa: E402
from fex_jax.training import asking  # noqa: E402
from fex_jax.training.explainer import train  # noqa: E402
from fex_jax.updates import TrainState  # noqa: E402

EPOCHS = {"breast_cancer": 250.0, "adult": 15.0, "nhanes": 60.0}
ROWS, FEW = 300, 30
# Presets, and what becomes of removed columns.
OURS = {
    "fex-jax": ("shapley", "background"),
    "fex-jax, FastSHAP's loss": ("fastshap", "background"),
    "fex-jax, surrogate": ("shapley", "surrogate"),
    "fex-jax, contrast": ("contrast", "background"),
}
FASTSHAP = {
    "FastSHAP": ("shapley", "background"),
    "FastSHAP, surrogate": ("shapley", "surrogate"),
}
ROWS_OF = (
    "shap TreeExplainer",
    "shap KernelExplainer",
    "shap PermutationExplainer",
    *OURS,
    *FASTSHAP,
)
# As published for tables: rows of a batch, coalitions of each, numbers of a hidden layer.
BATCH, COALITIONS, HIDDEN = 32, 32, 128


class Data(NamedTuple):
    """A table, with numbers for categories, and what is explained on it."""

    train: pd.DataFrame
    test: pd.DataFrame
    model: Any
    f: HostPredictor
    answers: Callable[[pd.DataFrame], np.ndarray]  # what f says of rows, in its unit


def load(name: str, path: str) -> Data:
    frame, label = table_sets.load(name, path)
    for column in frame.select_dtypes("category"):
        frame[column] = frame[column].cat.codes
    # TreeExplainer keeps thresholds in single precision: of other numbers it takes wrong branches.
    frame = frame.astype(np.float32).astype(float)
    train, test = (table_sets.part(frame, split) for split in ("train", "test"))
    if name == "nhanes":
        model = tables_nhanes.fitted(train, table_sets.part(label, "train"))
        f = tables_nhanes.log_hazard(model)
        return Data(train, test, model, f, lambda rows: np.log(model.predict(rows)))
    model = GradientBoostingClassifier(random_state=0)
    model.fit(train, table_sets.part(label, "train"))
    f = estimator(model, digest=f"{name}, boosting")
    return Data(train, test, model, f, model.decision_function)


def timed(function: Callable, rows: pd.DataFrame, repeats: int = 3) -> tuple[Any, float]:
    """What it returns, and the median of its seconds a row."""
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        found = function(rows)
        seconds.append(time.perf_counter() - began)
    return found, statistics.median(seconds) / len(rows)


def configured(name: str, seed: int, preset: str, removal: str) -> Any:
    """All ask as often: the fewer masks, the more epochs."""
    config = settings.of_tables(preset)
    masks = settings.of_tables().objective.num_masks
    epochs = EPOCHS[name] * (1 + masks) / (1 + config.objective.num_masks)
    config.data.name, config.seed, config.epochs = name, seed, epochs
    config.removal.kind = removal
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
    mean, spread = np.nanmean(scaled, 0), np.nanstd(scaled, 0) + 1e-6
    gaps = np.flatnonzero(np.isnan(scaled).any(0))
    last = len(f.labels) - 1
    sizes = scaled.shape[1] + len(gaps), HIDDEN, HIDDEN, len(reads.features)

    def network(params: list, inputs: Any, targets: jax.Array) -> jax.Array:
        x = (inputs.rows.values - mean) / spread
        x = jnp.concatenate([jnp.nan_to_num(x), jnp.isnan(x)[:, gaps]], 1)  # a gap is the mean
        for weights, bias in params[:-1]:
            x = jax.nn.relu(x @ weights + bias)
        x = x @ params[-1][0] + params[-1][1]
        # Of two classes one's values are the other's with the opposite sign.
        return jnp.where(targets == last, 1.0, -1.0)[..., None] * x[:, None]

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
        phi = network(params, inputs, jnp.full((len(batch.values), 1), last))[:, 0]
        return normalize(phi, model.predict(inputs)[:, last], model.features(inputs))

    state = TrainState(params, optimizer.init(params), jnp.zeros((), int))
    stream = table_sets.train_stream(source, BATCH, config.seed)
    with plain_errors():
        for number, rows in zip(range(steps), stream, strict=False):
            state = step(state, reads.batch(rows), jax.random.fold_in(keys[3], number))
        jax.block_until_ready(state.params)
    scale = reads.scale[last]
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
    scale = box.reads.scale[-1]
    worth = of_tables.compare(given, true[:, -1] * scale, (noise[:, -1] * scale) ** 2, "")
    return {"v(S)": "conditional", "correlation": worth.correlation, "error / range": worth.error}


def row(given: np.ndarray, exact: np.ndarray, seconds: float) -> dict:
    """What the table says of values [B, N]."""
    worth = of_tables.compare(given, exact[: len(given)], np.zeros(given.shape), "")
    return {
        "v(S)": "marginal",
        "correlation": worth.correlation,
        "error / range": worth.error,
        "ms a row": 1e3 * seconds,
    }


def removing(box: Any, values: np.ndarray) -> Callable[[np.ndarray], dict]:
    """Deletion and insertion of columns, the features of rows by values of the last class."""
    reads, last = box.reads, len(box.labels) - 1
    model, inputs = box.bind({}, reads.batch(values))
    targets = (np.asarray(model.predict(inputs)) * reads.scale + reads.base).argmax(-1)
    measured = of_tables.removing(box, values, targets)

    def measure(given: np.ndarray) -> dict:
        signs = np.where(targets == last, 1.0, -1.0)[:, None]
        found = measured(signs * given[: len(targets)], quantity="")
        return {"deletion": found.deletion, "insertion": found.insertion}

    return measure


def joined(runs: list[dict]) -> dict:
    """Means over seeds, and how far these are apart."""
    found = {
        key: value if isinstance(value, str) else statistics.fmean(one[key] for one in runs)
        for key, value in runs[0].items()
    }
    if len(runs) > 1 and "correlation" in found:
        spread = statistics.stdev(one["correlation"] for one in runs)
        found["correlation, deviation over seeds"] = spread
    return found | {"seeds": len(runs)}


def run(
    data: Data, name: str, seeds: int, million: bool, wanted: Sequence[str]
) -> Iterator[tuple[str, dict]]:
    """The wanted rows, one after the other, with their names."""
    source, test, f = tables.open_table(data.train), data.test, data.f
    rows, background = test[:ROWS], source.columns.decode(source.values[:100])
    values, size = source.columns.encode(rows), len(test.columns)
    tree = shap.TreeExplainer(data.model, background, feature_perturbation="interventional")
    exact, seconds = timed(tree.shap_values, rows)
    config = configured(name, 0, *OURS["fex-jax"])
    passes = int(config.epochs * source.size)
    asked = passes * (1 + config.objective.num_masks)
    reads = black_box.kind_of(f).policy(config, f, source)[2]
    reads = reads.with_answers(black_box.of(f).ask, source)
    remove = removing(black_box.of(f, reads=reads), values[:FEW])

    def score(x: np.ndarray) -> np.ndarray:
        return data.answers(pd.DataFrame(x, columns=test.columns))

    def by_kernel(x: pd.DataFrame, seed: int) -> np.ndarray:
        np.random.seed(seed)
        return shap.KernelExplainer(score, background).shap_values(x, silent=True)

    def by_permutation(x: pd.DataFrame, seed: int) -> np.ndarray:
        explainer = shap.PermutationExplainer(score, background.to_numpy(), seed=seed)
        return explainer(x.to_numpy(), silent=True).values

    if "shap TreeExplainer" in wanted:
        one = row(exact, exact, seconds) | remove(exact)
        yield "shap TreeExplainer", one | {"seeds": 1, "queries a row": "none"}
    sampling = {
        "shap KernelExplainer": (by_kernel, min(2 * size + 2048, 2**size - 2) * 100),
        "shap PermutationExplainer": (by_permutation, 500 * 100),
    }
    for rival in [one for one in sampling if one in wanted]:
        runs, (function, queries) = [], sampling[rival]
        for seed in range(seeds):
            given, seconds = timed(functools.partial(function, seed=seed), rows[:FEW], 1)
            runs.append(row(given, exact, seconds) | remove(given))
        yield rival, joined(runs) | {"queries a row": queries}
    for choice in [one for one in OURS if one in wanted]:
        runs, surrogate = [], choice == "fex-jax, surrogate"
        for seed in range(seeds):
            config, began = configured(name, seed, *OURS[choice]), time.process_time()
            explainer = fit(config, f, source)
            fitted = {"fit, CPU s": time.process_time() - began}
            explainer(test)  # compiles
            given, seconds = timed(explainer, test)
            given = given.attributions.to_numpy()[:ROWS]
            one = row(given, exact, seconds) | remove(given) | fitted
            if choice == "fex-jax, contrast":  # no Shapley values
                del one["correlation"], one["error / range"]
            own = own_values(explainer.predictor, values[:FEW], given[:FEW]) if surrogate else {}
            runs.append(one | own)
        queries = source.size + passes if surrogate else asked
        found = joined(runs) | {"queries a row": 1, "queries of the fit": queries}
        if million and choice == "fex-jax":
            many = pd.concat([test] * (1 + 10**6 // len(test)))[: 10**6]
            began = time.perf_counter()
            explainer(many, batch_size=16384)
            found["seconds, a million rows"] = time.perf_counter() - began
        yield choice, found
    for choice in [one for one in FASTSHAP if one in wanted]:
        runs, surrogate = [], choice == "FastSHAP, surrogate"
        for seed in range(seeds):
            config, began = configured(name, seed, *FASTSHAP[choice]), time.process_time()
            function, box = fastshap(config, f, source, asked)
            fitted = {"fit, CPU s": time.process_time() - began}
            many = source.columns.encode(test)
            function(many)
            given, seconds = timed(function, many)
            one = row(given[:ROWS], exact, seconds) | remove(given) | fitted
            own = own_values(box, values[:FEW], given[:FEW]) if surrogate else {}
            runs.append(one | own)
        queries = source.size if surrogate else asked
        yield choice, joined(runs) | {"queries a row": 1, "queries of the fit": queries}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--name", choices=EPOCHS, default="breast_cancer")
    parser.add_argument("--path", default="", help="of adult.data, or of the folder of NHANES")
    parser.add_argument("--seeds", type=int, default=3, help="of all that draw")
    parser.add_argument("--million", action="store_true", help="explain a million rows, too")
    parser.add_argument("--rows", nargs="+", choices=ROWS_OF, default=ROWS_OF)
    parser.add_argument("--output", type=pathlib.Path, default="docs/results")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    # Of all rows, wherever the data lie.
    command = f"python benchmarks/shapley.py --name={given.name}"
    command += {"adult": " --path=adult.data", "nhanes": " --path=nhanes"}.get(given.name, "")
    command += f" --seeds={given.seeds}" if given.seeds != 3 else ""
    command += " --million" if given.million else ""
    path, found = given.output / f"shapley_{given.name}.json", {}
    if tuple(given.rows) != ROWS_OF and path.is_file():
        before = json.loads(path.read_text())
        found, command = before["rows"], before["command"]
    data = load(given.name, given.path)
    for name, one in run(data, given.name, given.seeds, given.million, given.rows):
        found[name] = one
        content = {name: found[name] for name in ROWS_OF if name in found}
        whole = {"command": command, "cores": os.cpu_count(), "rows": content}
        path.write_text(json.dumps(whole, indent=2) + "\n")
        print(f"wrote {path}: {name}", flush=True)


if __name__ == "__main__":
    main()
