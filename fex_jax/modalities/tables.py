"""Explaining tables: data frames in, a data frame of attributions of the same rows out."""

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import expit

from fex_jax import checks
from fex_jax.answers import alpha
from fex_jax.data import frames
from fex_jax.host.rows import Rows
from fex_jax.modalities import OPTIONS, bar
from fex_jax.table_explanation import TableExplanation
from fex_jax.targets import Target, class_numbers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fex_jax.explain import Explainer

Reads = Rows
BATCH_SIZE = 4096
THING = "table"
_NUMBERS = 2**22  # in a batch, at most


def explain(
    explainer: "Explainer",
    table: Any,
    targets: "Target | Sequence[Target] | np.ndarray | None" = None,
    *,
    batch_size: int = BATCH_SIZE,
    progress: bool = True,
) -> TableExplanation:
    """Explains the rows of a table; f is asked about each row once.

    Args:
      explainer: of a predictor of tables.
      table: see `fex_jax.data.frames.as_frame`. Columns are found by name, in any order; others
        than the explainer knows are not read. Columns of arrays are found by their place.
      targets: the class to explain, for all or for each row, as a number or a label; by default of
        two classes the second, of more the predicted one. λ is of the predicted one.
      batch_size: rows at a time; every batch is padded to it, so that XLA compiles once.
      progress: show a bar, if it takes more than three seconds.

    Raises:
      ValueError: names the first column, row or class that cannot be used, and why.
      HostError: f failed, or is not at hand.
    """
    checks.require({"batch_size": batch_size}, OPTIONS, "explain")
    reads, labels = explainer.predictor.reads, explainer.predictor.labels
    frame = frames.as_frame(table, reads.columns.names)
    values = reads.columns.encode(frame)
    size = max(1, min(batch_size, _NUMBERS // len(reads.columns), len(values)))
    given = None if targets is None else class_numbers(targets, len(values), labels, "rows")
    chosen = np.zeros(len(values), np.int32)
    found = np.zeros((len(values), len(reads.features)))
    predictions = np.zeros((len(values), len(labels)))
    starts = range(0, len(values), size)
    for start in bar(starts, progress):
        rows = np.arange(start, min(start + size, len(values)))
        batch = reads.batch(values[np.resize(rows, size)])
        answers = np.asarray(explainer.answers(batch))
        said = reads.said(answers[: len(rows)])
        classes = default_classes(reads, said) if given is None else given[rows]
        # Of two classes one's values are the other's with the opposite sign: one map serves both.
        mapped = np.ones_like(classes) if reads.pair and not reads.plain else classes
        scores = explainer.attribute(batch, np.resize(mapped, size)[:, None], answers)
        if explainer.logits:
            scores = (_kept if reads.plain else _effects)(explainer, batch, scores)
        sign = np.where(classes == mapped, 1.0, -1.0) * reads.scale[mapped]
        found[rows] = np.asarray(scores)[: len(rows), 0] * sign[:, None]
        chosen[rows], predictions[rows] = classes, said
    given = found, chosen, predictions, labels, quantity(explainer)
    return TableExplanation.of(frame, reads, *given, adds_up=not explainer.logits)


def quantity(explainer: "Explainer") -> str:
    """What attributions are, in words."""
    what = explainer.predictor.reads.quantity
    if not explainer.logits:
        return f"Shapley values of {what}"
    if explainer.predictor.reads.plain:
        return (
            f"FEX's λ of {what}; each is the probability that a mask keeps the column, where masks "
            "seek much of it in few columns, and they do not add up to the prediction"
        )
    return (
        f"FEX's contrasts of {what}; each is what the presence of a column adds, less the mean "
        "over the row's columns, and they do not add up to the prediction"
    )


def _kept(explainer: "Explainer", batch: Any, maps: Any) -> np.ndarray:
    """λ of maps' logits, [B, 1, N], 0 of what is no feature of a row."""
    return np.where(_valid(explainer, batch), expit(np.asarray(maps, np.float64)), 0)


def _effects(explainer: "Explainer", batch: Any, maps: Any) -> np.ndarray:
    """FEX's maps in units of f's answers: α / 2 (z_i − mean z), [B, 1, N].

    h(m⊙x) is in the mean so much higher where a mask keeps i; α / 2 is `contrast.slope`.
    """
    if explainer.temperature is None:
        raise ValueError("explainer.json has no temperature, the unit of maps: train it again")
    valid = _valid(explainer, batch)
    count = np.maximum(valid.sum(-1, keepdims=True), 1)
    maps = np.where(valid, maps, 0)
    worth = np.asarray(alpha(explainer.temperature / 2, count))
    return np.where(valid, worth * (maps - maps.sum(-1, keepdims=True) / count), 0)


def _valid(explainer: "Explainer", batch: Any) -> np.ndarray:
    """Features that are not those of all background rows, bool [B, 1, N]."""
    model, inputs = explainer.bind(explainer.predictor.params, batch)
    return np.asarray(model.features(inputs))[:, None]


def features(explainer: "Explainer") -> str:
    """What an explanation tells of."""
    return f"{len(explainer.predictor.reads.features)} columns"


def default_classes(reads: Any, said: np.ndarray) -> np.ndarray:
    """Of two classes the second, of more, and of λ, the predicted one: [B] of answers [B, K]."""
    second = reads.pair and not reads.plain
    return np.ones(len(said), np.int32) if second else said.argmax(-1).astype(np.int32)
