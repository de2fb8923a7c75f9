"""Shapley values of tree models by the package shap, where it is installed: the truth at any N.

Shapes: B rows, D columns, N = D features, K answers.
"""

from collections.abc import Callable

import numpy as np

from fex_jax.host import Bank
from fex_jax.host.black_box import BlackBox

_ROUNDING = 1e-3  # of what f says, in its standard deviations


def open_trees(box: BlackBox) -> Callable[[np.ndarray], np.ndarray | None] | None:
    """values(rows [B, D]) → true Shapley values [B, K, N] in the box's unit, or None.

    TreeSHAP's, interventional, against the box's background (Lundberg et al., Nature Machine
    Intelligence 2020). f must be a method of a model that shap.TreeExplainer takes, as
    `host.estimator` makes it, of columns of numbers that are a feature each. Of rows whose values
    do not add up to what f says there are none: its trees add up to something else than the unit.
    """
    reads, f = box.reads, box.f.predictor if isinstance(box.f, Bank) else box.f
    model = getattr(f.call, "__self__", None) if f is not None else None
    numbers = all(column.categories is None for column in reads.columns)
    if model is None or reads.surrogate or not numbers or len(reads.features) < len(reads.columns):
        return None
    try:
        import shap

        # What the trees add up to: probabilities of margins are rescaled there, not exact.
        trees = shap.TreeExplainer(
            model, reads.background, model_output="raw", feature_perturbation="interventional"
        )
    except Exception:  # there is no shap, or of many kinds: it does not take this model
        return None
    order = [members[0] for _, members in reads.features]

    def values(rows: np.ndarray) -> np.ndarray | None:
        try:
            given = trees(rows, check_additivity=False).values  # [B, D], or [B, D, K]
        except Exception:  # as above
            return None
        found = np.moveaxis(given.reshape(*rows.shape, -1), 1, 2)[..., order]
        if reads.pair and found.shape[1] == 1:  # the second one's
            found = np.concatenate([-found, found], 1)
        change = reads.ask_all(box.ask, rows) - reads.base
        if found.shape[1] != change.shape[1]:
            return None
        gaps = np.abs(found.sum(-1) - change) / reads.scale
        return found if (gaps < _ROUNDING).all() else None

    return values
