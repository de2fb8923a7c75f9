"""KernelSHAP's error at equal queries, beside shap's KernelExplainer and shapiq's KernelSHAP.

    python benchmarks/kernel_shap_error.py

Games whose Shapley values are known: a weight for each of N features and 3N interactions of two to
five of them. Every estimator may ask K coalitions beside none and all. The error is the mean of
|φ̂ − φ| over the mean of |φ|; medians over games. Writes docs/results/kernel_shap_error.json, from
which `make docs` fills the page; what it already holds is not computed again. Needs shap and
shapiq: pip install both.
"""

import contextlib
import json
import logging
import pathlib
import sys
import warnings
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from fex_jax.attributions import kernel_shap  # noqa: E402
from fex_jax.predictors import Model  # noqa: E402

Game = Callable[[np.ndarray], np.ndarray]  # masks [M, N] → v [M]

_GAMES = {9: 600, 16: 100, 64: 8, 256: 8}  # of each number of features
_QUERIES = (0.5, 1, 2, 3, 4, 8, 16)  # times N
_OUTPUT = ROOT / "docs" / "results" / "kernel_shap_error"


def additive_with_interactions(size: int, seed: int) -> tuple[Game, np.ndarray]:
    """v(S) = Σ_{i∈S} a_i + Σ_{T⊆S} c_T, and φ_i = a_i + Σ_{T∋i} c_T / |T|."""
    rng = np.random.default_rng([size, seed])
    own, count = rng.normal(size=size), 3 * size
    lengths, worths = rng.integers(2, 6, count), 0.5 * rng.normal(size=count)
    members = np.zeros((count, size))
    for row, length in zip(members, lengths, strict=True):
        row[rng.choice(size, length, replace=False)] = 1

    def worth(masks: np.ndarray) -> np.ndarray:
        masks = np.asarray(masks, np.float64)
        return masks @ own + (masks @ members.T > lengths - 0.5) @ worths

    return worth, own + (worths / lengths) @ members


def as_model(games: list[Game], size: int) -> tuple[Model, dict[str, np.ndarray]]:
    """The games as a classifier of one class, asked on the host, and as its inputs."""

    def ask(which: np.ndarray, kept: np.ndarray) -> np.ndarray:
        found = np.zeros((len(which), 1), np.float32)
        for number, worth in enumerate(games):
            found[which == number, 0] = worth(kept[which == number])
        return found

    def predict(inputs: dict[str, jax.Array]) -> jax.Array:
        shape = jax.ShapeDtypeStruct((len(inputs["game"]), 1), jnp.float32)
        return jax.pure_callback(
            lambda *args: ask(*map(np.asarray, args)), shape, inputs["game"], inputs["kept"]
        )

    def mask(inputs: dict[str, jax.Array], masks: jax.Array) -> dict[str, jax.Array]:
        return inputs | {"kept": jnp.where(masks, inputs["kept"], 0)}

    kept = np.ones((len(games), size), np.float32)
    return Model(predict, mask, (size,)), {"game": np.arange(len(games)), "kept": kept}


def estimate(games: list[Game], size: int, queries: int) -> np.ndarray:
    """Ours [games, N]."""
    model, inputs = as_model(games, size)
    keys = jax.random.split(jax.random.key(0), len(games))
    targets = np.zeros(len(games), int)
    return np.asarray(kernel_shap(model, inputs, targets, keys, num_queries=queries))


def shap_estimate(worth: Game, size: int, queries: int, seed: int, **options) -> np.ndarray:
    """shap's KernelExplainer, without its choice of ten features unless `options` say so."""
    import shap

    logging.getLogger("shap").setLevel(logging.ERROR)
    np.random.seed(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        explainer = shap.KernelExplainer(worth, np.zeros((1, size)))
        options = {"l1_reg": False} | options
        return explainer.shap_values(np.ones((1, size)), nsamples=queries, silent=True, **options)[
            0
        ]


def shapiq_estimate(worth: Game, size: int, queries: int, seed: int, **options) -> np.ndarray:
    """shapiq's KernelSHAP, whose budget counts none and all."""
    import shapiq

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        estimator = shapiq.KernelSHAP(n=size, random_state=seed, **options)
        found = estimator.approximate(budget=queries + 2, game=worth)
    return np.array([found[(i,)] for i in range(size)])


def main() -> None:
    results = _OUTPUT.with_suffix(".json")
    rows = json.loads(results.read_text()) if results.is_file() else []
    for size in _GAMES:
        for queries in sorted({int(size * times) // 2 * 2 for times in _QUERIES}):
            done = any((row["N"], row["K"]) == (size, queries) for row in rows)
            if queries <= 2**size - 2 and not done:
                found = _errors(size, queries)
                ratio = found["ours"] / min(v for name, v in found.items() if name != "ours")
                known = {"N": size, "K": queries, "games": _GAMES[size]}
                rows.append(known | found | {"ratio": ratio})
                results.write_text(json.dumps(rows, indent=1) + "\n")
                print(json.dumps(rows[-1]), flush=True)


def _errors(size: int, queries: int) -> dict[str, float]:
    ten = {"l1_reg": "num_features(10)"}
    rivals = {
        "shap": lambda v, seed: shap_estimate(v, size, queries, seed, **ten),
        "shap, l1_reg=False": lambda v, seed: shap_estimate(v, size, queries, seed),
        "shapiq": lambda v, seed: shapiq_estimate(v, size, queries, seed),
        "shapiq, pairing_trick": lambda v, seed: shapiq_estimate(
            v, size, queries, seed, pairing_trick=True
        ),
    }
    drawn = [additive_with_interactions(size, seed) for seed in range(_GAMES[size])]
    games, exact = zip(*drawn, strict=True)
    found = {"ours": estimate(list(games), size, queries)}
    for name, rival in rivals.items():
        found[name] = np.full((len(games), size), np.inf)
        for seed, worth in enumerate(games):
            with contextlib.suppress(np.linalg.LinAlgError):  # of a singular system
                found[name][seed] = rival(worth, seed)
    return {
        name: float(np.median(np.abs(phi - exact).mean(1) / np.abs(exact).mean(1)))
        for name, phi in found.items()
    }


if __name__ == "__main__":
    main()
