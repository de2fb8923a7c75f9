"""True Shapley values of a table's rows: exact, TreeSHAP's or sampled.

Shapes: B rows, N features, K answers.
"""

import time

import jax
import numpy as np
from tqdm import tqdm

from fex_jax import explain, shapley
from fex_jax.evaluation import tree_shap
from fex_jax.host import Bank
from fex_jax.host.model import plain_errors
from fex_jax.host.rows import Rows

_LEAST = 4  # rows, however long they take
_KEPT = 8  # rows, where answers are kept
_ORDERS, _FEW = 500, 8  # pairs of them, where features are too many to ask about all coalitions
_QUESTIONS = 2**23  # of a row and its features, about


def of_rows(
    explainer: explain.Explainer,
    values: np.ndarray,
    targets: np.ndarray,
    seconds: float,
    queries: int = shapley.MOST_ASKED,
) -> tuple[np.ndarray, np.ndarray, bool]:
    """Of as many rows as there is time for, and variances, [B, N], and whether they are TreeSHAP's.

    Of too many features none.
    """
    size = len(explainer.predictor.reads.features)
    trees = tree_shap.open_trees(explainer.predictor) if size > shapley.MOST_EXACT else None
    most = None
    if isinstance(explainer.predictor.f, Bank):
        most, values = queries // _KEPT, values[:_KEPT]
    orders = _orders(explainer.predictor.reads, most)
    true, began = [(np.zeros((0, size)),) * 2], time.monotonic()
    bar = tqdm(range(len(values)), "true Shapley values", unit="row", leave=False)
    for row in bar:
        if most is None and row >= _LEAST and time.monotonic() - began > seconds:
            break
        one = values[row : row + 1]
        known = trees(one) if trees else None
        if known is None:
            trees = None
            if 0 < orders < _FEW:
                break
        both = of_row(explainer, one, row, orders) if known is None else (known, 0 * known)
        true.append((both[0][:, targets[row]], both[1][:, targets[row]]))
    bar.close()
    found, noise = map(np.concatenate, zip(*true, strict=True))
    return found, noise, trees is not None


def of_row(
    explainer: explain.Explainer, values: np.ndarray, seed: int = 0, orders: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """True Shapley values of rows [B, D], in the explainer's unit, and variances, [B, K, N].

    They are sampled in so many `orders`, of 0 exact.
    """
    reads = explainer.predictor.reads
    orders = _orders(reads) if orders is None else orders
    with jax.enable_x64(False), plain_errors():
        model, inputs = explainer.bind(explainer.predictor.params, reads.batch(values))
        if not orders:
            found = shapley.exact(model, inputs)
            errors = np.zeros_like(found)
        else:
            found, errors = shapley.sampled(model, inputs, jax.random.key(seed), orders)
    scale = reads.scale[:, None]
    return found * scale, (errors * scale) ** 2


def _orders(reads: Rows, most: int | None = None) -> int:
    """Pairs of random orders that sample a row's true values by so many queries; 0: exact ones."""
    size = len(reads.features)
    exact = 0 if reads.surrogate else len(reads.background) * 2**size
    if size <= shapley.MOST_EXACT and (most is None or exact <= most):
        return 0
    found = min(_ORDERS, _QUESTIONS // (size + 1) ** 2)
    return max(found if most is None else min(found, most // (2 * (size + 1))), 1)
