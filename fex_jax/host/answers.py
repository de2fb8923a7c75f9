"""What a black box said, checked before anything learns from it."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fex_jax.errors import HostError
from fex_jax.outputs import Output

_ENOUGH = 8  # numbers: so many logits do not all happen to lie in 0..1


class SomeRows(HostError):
    """Rows of an answer that cannot be used; `rows`, int [n], are those that can."""

    def __init__(self, message: str, rows: np.ndarray, answers: np.ndarray) -> None:
        super().__init__(message)
        self.rows, self.answers = rows, answers


def brief(error: BaseException) -> str:
    """An exception on one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:400]


def same(answers: np.ndarray, others: np.ndarray) -> bool:
    """Whether answers differ by rounding alone: by less than .01, absolutely or relatively."""
    return bool(np.allclose(answers, others, 0.01, 0.01))


def check(
    answer: Any,
    rows: int,
    labels: Sequence[str],
    output: Output,
    logits: bool,
    tolerance: float,
    name: str,
) -> np.ndarray:
    """One call's answer as float32 [rows, classes], or a sentence that says what is wrong with it.

    A single column, [rows] or [rows, 1], where two classes are wanted of a softmax is the second
    class's: its probability p becomes (1 − p, p), its logit z (σ(−z), σ(z)).

    Args:
      answer: what the call returned, anything that numpy makes an array of, or by label.
      rows: inputs that were asked about.
      labels: of the K classes.
      output: "softmax": rows are probabilities that sum to 1; "sigmoid": each is one; "value": any.
      logits: softmax or sigmoid is still to be taken.
      tolerance: by how much a softmax row's sum may differ from 1.
      name: the black box, in messages.

    Raises:
      HostError: says what came and what was wanted.
      SomeRows: of some rows that are not finite; it has the others, which may have been paid for.
    """
    answer, classes = _by_label(answer, labels, name), len(labels)
    try:
        masked = np.ma.is_masked(answer)  # whose values beneath the mask are none
        values = answer.astype(np.float64).filled(np.nan) if masked else np.asarray(answer)
    except (ValueError, TypeError, OverflowError, RuntimeError) as error:
        raise HostError(
            f"{name} answered {type(answer).__name__}, which is no array of numbers ({error}); "
            f"wanted {_wanted(rows, classes)}"
        ) from error
    if values.dtype.kind not in "fiu":
        raise HostError(
            f"{name} answered values of type {values.dtype}; wanted numbers, "
            f"{_wanted(rows, classes)}"
        )
    single = values.shape in ((rows,), (rows, 1))
    two_of_one = single and classes == 2 and output == "softmax"
    if not two_of_one and values.shape != (rows, classes) and not (single and classes == 1):
        raise HostError(
            f"{name} answered an array of shape {values.shape} to {rows} inputs; "
            f"wanted {_wanted(rows, classes)}"
        )
    with np.errstate(over="ignore"):
        values = values.reshape(rows, 1 if single else classes).astype(np.float32)
    finite = np.isfinite(values).all(-1)
    if not finite.all():
        row, column = np.argwhere(~np.isfinite(values))[0]
        message = (
            f"{name} answered {values[row, column]} for class {column} of input {row}; "
            "wanted finite numbers"
        )
        if not finite.any():
            raise HostError(message)
        good = np.flatnonzero(finite)
        given = values[good], len(good), labels, output, logits, tolerance, name
        raise SomeRows(message, good, check(*given))
    if two_of_one:
        values = np.concatenate([-values if logits else 1 - values, values], -1)
        if logits:
            return _sigmoid(values)
    if output == "value":
        return values
    if logits:
        return _softmax(values) if output == "softmax" else _sigmoid(values)
    return _probabilities(values, output, tolerance, name)


def _by_label(answer: Any, labels: Sequence[str], name: str) -> Any:
    """Answers in the order of the labels, where they have names: a table's columns, {label: p} for
    each input, or what APIs make of it, [{"label": label, "score": p}, …]."""
    named = getattr(answer, "column_names", getattr(answer, "columns", ()))  # Arrow's; others'
    names, by_row = [str(column) for column in named], False
    if isinstance(answer, list | tuple) and len(answer):
        rows = [_named(row) for row in answer]
        if by_row := None not in rows:
            names = list(rows[0])
            if any(row.keys() != rows[0].keys() for row in rows):
                raise HostError(f"{name} answered other labels to one input than to another")
            answer = [[row[key] for key in names] for row in rows]
    if not names or names == [str(i) for i in range(len(names))]:
        return answer
    from fex_jax.targets import match_classes  # imports JAX, which an array does not need

    places = match_classes(labels, names) if len(names) == len(labels) else None
    if places is None:
        # A column "score" may be the second of two classes'; one that bears the first's name, not.
        if len(names) == 1 and not by_row and match_classes(labels[:1], names) is None:
            return answer
        raise HostError(
            f"{name} answered {', '.join(names)[:200]} by name; wanted the labels, "
            f"{', '.join(labels)[:200]}: name them alike, or answer an array in their order"
        )
    return np.asarray(answer)[:, places]


def _named(row: Any) -> dict[str, Any] | None:
    """{label: p} of an input; None: its answer has no names."""
    if isinstance(row, Mapping):
        return {str(label): p for label, p in row.items()}
    pairs = isinstance(row, list) and row and all(isinstance(x, Mapping) for x in row)
    if pairs and all(x.keys() == {"label", "score"} for x in row):
        return {str(x["label"]): x["score"] for x in row}
    return None


class AssumedLogits:
    """Passes on what a network answers where nobody said what it is: logits, if they may be.

    A softmax of probabilities is nearly flat, and nothing would say so. One number outside 0..1
    settles it: these are no probabilities. Numbers too few to tell are passed on with a warning.
    """

    def __init__(self, name: str) -> None:
        self._name, self._seen, self._settled, self._warned = name, 0, False, False

    def __call__(self, answer: np.ndarray) -> np.ndarray:
        """The answer, [B, K] or [B].

        Raises:
          HostError: every row is of numbers that sum to 1 to rounding, or the first `_ENOUGH`
            numbers of all calls lie in 0..1.
        """
        values = np.asarray(answer)
        if self._settled or values.dtype.kind != "f" or not values.size:
            return values
        if not (values.min() >= 0 and values.max() <= 1 + 2e-3):
            self._settled = bool(np.isfinite(values).all())
            return values
        self._seen += values.size
        words = "from 0 to 1, one an input, as probabilities of the second of two classes are"
        output = "softmax"
        if values.ndim == 2 and values.shape[1] > 1:
            rounding = min(16 * np.finfo(values.dtype).eps, 2e-3)  # of float16, 2 ε
            sums = values.sum(-1, dtype=np.float64)
            if np.abs(sums - 1).max() <= rounding:
                raise HostError(self._say("that sum to 1, as probabilities do", output))
            words = "from 0 to 1 that do not sum to 1, as independent labels' probabilities do"
            output = "sigmoid"
        if self._seen >= _ENOUGH:
            raise HostError(self._say(words, output))
        if not self._warned:
            self._warned = True
            warnings.warn(self._say(words, output, "are"), stacklevel=2)
        return values

    def _say(self, words: str, output: str, taken: str = "would be") -> str:
        return (
            f"{self._name} answers numbers {words}, and they {taken} taken for logits: open it "
            f"with output={output!r}, as by fex_jax.host.open(name, output={output!r}), or with "
            "output='logits' or 'value' if they are that"
        )


def _probabilities(values: np.ndarray, output: Output, tolerance: float, name: str) -> np.ndarray:
    slack = min(tolerance, 0.01) if output == "softmax" else 1e-6  # of one value, not of a sum
    lowest, highest = values.min(initial=0), values.max(initial=0)
    if lowest < -slack or highest > 1 + slack:
        outside = lowest if lowest < -slack else highest
        raise HostError(
            f"{name} answered {outside:.6g}; wanted probabilities in 0..1: output='logits' takes "
            "their softmax, 'sigmoid_logits' their sigmoid, and 'value' takes any number"
        )
    sums = values.sum(-1, dtype=np.float64)
    wrong = np.abs(sums - 1) > tolerance
    if output == "softmax" and wrong.any():
        raise HostError(
            f"{name} answered probabilities that sum to {sums[wrong][0]:.6g}; wanted 1 within "
            f"{tolerance:.3g}: set output='logits' or 'sigmoid' if they are that, or tolerance if "
            "they are rounded"
        )
    return values.clip(0, 1)


def _wanted(rows: int, classes: int) -> str:
    return f"one row of {classes} for each input, ({rows}, {classes}): a number for each label"


def _softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    return (np.tanh(logits / 2) + 1) / 2  # exact at both ends, and overflows at neither
