"""XAI-Units: do methods find what each column of a function of known attributions is worth?

    python benchmarks/xai_units.py --seeds=3

Five functions of rows of numbers, each one behaviour of a model (Lee et al. 2025, arXiv
2506.01059), with weights drawn anew for every seed. Every method that takes a function of numbers
explains the same rows, and so do fex-jax's explainers of tables, which learn from others. Writes
docs/results/xai_units.json and makes the documents anew.
"""

import contextlib
import functools
import io
import json
import pathlib
import subprocess
import sys
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags, logging

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import fex_jax  # noqa: E402
from fex_jax import attributions, predictors  # noqa: E402
from scripts.docs import label  # noqa: E402

_SEEDS = flags.DEFINE_integer("seeds", 3, "How many: 0, 1, 2, …")
COLUMNS, ROWS, LEARNED = 10, 64, 4_000
METHODS = [
    name
    for name in attributions.METHODS
    if name
    not in attributions.TRANSFORMERS_ONLY
    | attributions.CONVOLUTIONS_ONLY
    | attributions.IMAGES_ONLY
    | attributions.NOT_IN_ALL
]
OPTIONS = dict.fromkeys(("rise", "lime", "kernel_shap"), {"num_queries": 500})
EXPLAINERS = {"fex-jax, contrast": "contrast", "fex-jax, Shapley values": "shapley"}


class Unit(NamedTuple):
    """A function of rows, and what their columns are worth."""

    rows: np.ndarray  # [B, D] to explain and, behind them, to learn from
    worth: np.ndarray  # [B, D]
    function: Callable[[Any], jax.Array]  # [B, D] -> [B, K]: values or, of classes, logits
    baseline: np.ndarray  # [D] what a removed column is
    output: Literal["value", "softmax"] = "value"

    def answers(self, rows: Any) -> jax.Array:
        """Values, or probabilities of classes."""
        found = self.function(rows)
        return jax.nn.softmax(found) if self.output == "softmax" else found


def weighted(rng: np.random.Generator) -> Unit:
    """y = Σ w_i x_i."""
    x, w = _drawn(rng)
    return Unit(x, w * x, lambda x: (x @ w)[:, None], np.zeros(COLUMNS))


def conflicting(rng: np.random.Generator) -> Unit:
    """y = Σ w_i x_i (1 − c_i): c_i = 1 cancels x_i, and bears the opposite of its worth."""
    x, w = _drawn(rng)
    c = rng.integers(0, 2, x.shape)

    def function(rows: Any) -> jax.Array:
        return ((1 - rows[:, COLUMNS:]) * rows[:, :COLUMNS] @ w)[:, None]

    worth = np.concatenate([w * x, -w * x * c], 1)
    return Unit(np.concatenate([x, c], 1), worth, function, np.zeros(2 * COLUMNS))


def interacting(rng: np.random.Generator) -> Unit:
    """y = Σ w_i c_i + (a_i, or b_i where c_i = 1) x_i: a switch is worth its own term alone."""
    x, w = _drawn(rng)
    half = COLUMNS // 2
    x[:, :half] = rng.integers(0, 2, (len(x), half))
    other = rng.uniform(-1, 1, half)

    def terms(rows: Any) -> Any:
        switch, moved = rows[:, :half], rows[:, half:]
        return switch * w[:half], moved * (w[half:] * (1 - switch) + other * switch)

    def function(rows: Any) -> jax.Array:
        return sum(part.sum(1, keepdims=True) for part in terms(rows))

    return Unit(x, np.concatenate(terms(x), 1), function, np.zeros(COLUMNS))


def pertinent_negatives(rng: np.random.Generator) -> Unit:
    """Half of the columns count where they are 0: y = Σ w_i (x_i + 10 (1 − x_i)), else w_i x_i."""
    x, w = _drawn(rng)
    half = COLUMNS // 2
    x[:, :half] = rng.integers(0, 2, (len(x), half))
    absent = np.arange(COLUMNS) < half

    def terms(rows: Any) -> Any:
        return w * (rows + 10 * absent * (1 - rows))

    return Unit(x, terms(x) - w * absent, lambda x: terms(x).sum(1, keepdims=True), 1.0 * absent)


def uncertain(rng: np.random.Generator) -> Unit:
    """A softmax over x_k + what half of the columns add to every class: these are worth nothing."""
    x, _ = _drawn(rng)
    common = np.arange(COLUMNS) < COLUMNS // 2

    def function(rows: Any) -> jax.Array:
        return jnp.asarray(rows * ~common + (rows * common).sum(1, keepdims=True))

    return Unit(x, np.where(common, 0, np.nan)[None], function, np.zeros(COLUMNS), "softmax")


def _drawn(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    return rng.normal(size=(ROWS + LEARNED, COLUMNS)), rng.uniform(-1, 1, COLUMNS)


UNITS = {
    "weighted": weighted,
    "conflicting": conflicting,
    "interacting": interacting,
    "pertinent negatives": pertinent_negatives,
    "uncertain": uncertain,
}


def by_methods(unit: Unit, targets: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Attributions [B, D] of the classes, by every method."""
    model = predictors.Model(
        predict=unit.answers,
        mask=lambda x, masks: jnp.where(masks.astype(bool), x, unit.baseline.astype(x.dtype)),
        grid=(unit.rows.shape[1],),
        output=unit.output,
        embed=lambda x: x,
        logits=lambda x, _: unit.function(x),
        pool=lambda values, _: values,
    )
    x = unit.rows[:ROWS].astype(np.float32)
    keys = jax.random.split(jax.random.key(seed), ROWS)
    found = {}
    for name in METHODS:
        if name == "agi" and unit.output == "value":
            continue  # it goes to what other classes look like, and there are none
        method = functools.partial(attributions.METHODS[name], **OPTIONS.get(name, {}))
        found[label(name)] = np.asarray(method(model, x, targets, keys))
    return found


def by_explainers(unit: Unit, targets: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """The same by explainers that learned from other rows."""
    ask = jax.jit(unit.answers)
    f = fex_jax.host(
        lambda x: np.asarray(ask(x.astype(np.float32))),
        labels=[f"class {i}" for i in range(unit.function(unit.rows[:1]).shape[1])],
        input=(unit.rows.shape[1],),
        output=unit.output,
        digest=f"{unit.function.__qualname__} {seed}",
    )
    given = {"unit": "probability"} if unit.output == "softmax" else {}
    found = {}
    for name, preset in EXPLAINERS.items():
        with contextlib.redirect_stdout(io.StringIO()):
            explainer = fex_jax.fit(
                f,
                unit.rows[ROWS:],
                preset=preset,
                background=unit.baseline[None],
                seed=seed,
                **given,
            )
        found[name] = explainer(unit.rows[:ROWS], targets).attributions.to_numpy()
    return found


def score(found: np.ndarray, unit: Unit) -> float:
    """Correlation with what columns are worth, of each row; or the share of what others get.

    Of rows in which one of both is the same everywhere it is 0.
    """
    if np.isnan(unit.worth).any():  # only what is worth nothing is known
        sizes = np.abs(found)
        return float((sizes[:, np.isnan(unit.worth[0])].sum(1) / sizes.sum(1).clip(1e-12)).mean())
    x, y = (each - each.mean(1, keepdims=True) for each in (found, unit.worth[: len(found)]))
    sizes = np.sqrt((x**2).sum(1) * (y**2).sum(1))
    return float(np.where(sizes > 1e-9, (x * y).sum(1) / sizes.clip(1e-9), 0).mean())


def main(_: list[str]) -> None:
    logging.set_verbosity(logging.WARNING)  # Orbax reports every file
    scores: dict[str, dict[str, list[float]]] = {}
    for name, draw in UNITS.items():
        for seed in range(_SEEDS.value):
            unit = draw(np.random.default_rng(seed))
            targets = np.asarray(unit.function(unit.rows[:ROWS])).argmax(-1).astype(np.int32)
            found = by_explainers(unit, targets, seed) | by_methods(unit, targets, seed)
            for method, each in found.items():
                scores.setdefault(method, {}).setdefault(name, []).append(score(each, unit))
            print(name, seed, {m: round(of[name][-1], 3) for m, of in scores.items()}, flush=True)
    rows = {
        method: {
            unit: f"{np.mean(values):.3f} ± {np.std(values, ddof=1):.3f}"
            for unit, values in of.items()
        }
        for method, of in scores.items()
    }
    made = {"seeds": _SEEDS.value, "rows": rows}
    path = ROOT / "docs" / "results" / "xai_units.json"
    path.write_text(json.dumps(made, indent=2, ensure_ascii=False) + "\n")
    subprocess.run([sys.executable, str(ROOT / "scripts" / "docs.py")], check=True)


if __name__ == "__main__":
    app.run(main)
