"""Attributions of words against what people marked, and against what the classifier needs.

Shapes: B texts, N features, S steps. Words differ in number from text to text, so what is said of
words comes in lists of arrays.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fex_jax.metrics.perturbation import ranks

TOP = tuple(range(5, 81, 5))  # k of the paper's Figure 3
# ERASER's bins, percent of the features: DeYoung et al. 2020, section 4.2.
BINS = (1, 5, 10, 20, 50)


class TokenF1(NamedTuple):
    """Agreement of the top k words with the rationales, [S] for each k."""

    micro: np.ndarray  # words of all texts counted together
    macro: np.ndarray  # mean of the texts' own F1


class Erasure(NamedTuple):
    """How far removing, or keeping only, the top features lowers the probability of a class."""

    comprehensiveness: jax.Array  # [B, S] of removing them: higher is better
    sufficiency: jax.Array  # [B, S] of keeping only them: lower is better


def word_scores(scores: np.ndarray, spans: np.ndarray, text: str) -> np.ndarray:
    """Scores of `text.split()`: the largest of the features in a word, [n] → [words].

    Args:
      scores: [n] of a text's features.
      spans: [n, 2] where they begin and end in the string.
      text: the string, split at white space as rationales are.

    Returns:
      [words]; -inf for words that no feature touches: those beyond the model's window.
    """
    lengths = np.array([len(word) for word in text.split()], int)
    starts = np.empty(len(lengths), int)
    place = 0
    for i, word in enumerate(text.split()):
        starts[i] = place = text.index(word, place)
        place += len(word)
    values = np.full(len(lengths), -np.inf)
    for score, (start, stop) in zip(scores, spans, strict=True):
        first = np.searchsorted(starts + lengths, start, side="right")
        last = np.searchsorted(starts, stop)
        values[first:last] = np.maximum(values[first:last], score)
    return values


def token_counts(
    scores: Sequence[np.ndarray], rationales: Sequence[np.ndarray], top: Sequence[int] = TOP
) -> np.ndarray:
    """For each text and k: marked words among the k highest, words chosen, words marked; [B, S, 3].

    Equal scores are ranked by position. Texts of fewer than k words give all of them.

    Args:
      scores: of each text's words, [words].
      rationales: bool, of the same lengths.
      top: the k.

    Raises:
      ValueError: no texts, lengths that differ, or NaN.
    """
    counts = np.zeros((len(scores), len(top), 3))
    for i, (values, marked) in enumerate(_words(scores, rationales)):
        order = np.argsort(-values, kind="stable")
        found = np.append(0, np.cumsum(marked[order]))
        chosen = np.minimum(top, len(order))
        counts[i] = np.stack(np.broadcast_arrays(found[chosen], chosen, found[-1]), -1)
    return counts


def token_f1(counts: np.ndarray) -> TokenF1:
    """F1 = 2 P R / (P + R) of the k highest words against those that people marked.

    `counts` are those of `token_counts`. F1 is 0 where no word is marked, as in ERASER's scorer.
    """
    # 2 P R / (P + R) with P = hits / chosen, R = hits / marked.
    hits, chosen, marked = np.moveaxis(np.asarray(counts), -1, 0)  # [B, S] each
    return TokenF1(
        micro=2 * hits.sum(0) / np.maximum(chosen.sum(0) + marked.sum(0), 1),
        macro=(2 * hits / np.maximum(chosen + marked, 1)).mean(0),
    )


def token_average_precision(
    scores: Sequence[np.ndarray], rationales: Sequence[np.ndarray]
) -> np.ma.MaskedArray:
    """Average precision of each text's words, Σ_n (R_n − R_{n−1}) P_n over distinct scores: [B].

    ERASER's `average_precision`, not its `auprc`, which joins the points by straight lines. Texts
    of which no word is marked, or every one, are masked (NaN beneath): no order of their words is
    better than another, and as in ERASER's scorer they are left out of the mean.

    Raises:
      ValueError: as `token_counts`.
    """
    found = np.full(len(scores), np.nan)
    for i, (values, marked) in enumerate(_words(scores, rationales)):
        if marked.all() or not marked.any():
            continue
        order = np.argsort(-values, kind="stable")
        ordered = values[order]
        # Equal scores enter together: precision is read after the last of them.
        last = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))
        hits = np.cumsum(marked[order])[last]
        found[i] = np.sum(np.diff(hits, prepend=0) * hits / (last + 1)) / hits[-1]
    return np.ma.masked_invalid(found)


def _words(
    scores: Sequence[np.ndarray], rationales: Sequence[np.ndarray]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Scores and marks of each text's words, checked."""
    if len(scores) != len(rationales) or not len(scores):
        raise ValueError(f"{len(scores)} scored texts for {len(rationales)} rationales")
    for i, (values, marked) in enumerate(zip(scores, rationales, strict=True)):
        values, marked = np.asarray(values, np.float64), np.asarray(marked, bool)
        if values.ndim != 1 or values.shape != marked.shape:
            raise ValueError(
                f"text {i}: scores {values.shape} for a rationale {marked.shape}; both must have "
                "one entry for every word of text.split()"
            )
        if np.isnan(values).any():
            raise ValueError(f"text {i}: scores must be numbers, got NaN")
        yield values, marked


def insertion_predictions(
    predict: Callable[[Any], jax.Array],
    mask: Callable[[Any, jax.Array], Any],
    inputs: Any,
    scores: jax.Array,
    valid: jax.Array | None = None,
    top: Sequence[int] = TOP,
) -> jax.Array:
    """The class f predicts from the k highest features alone, [B, S] int for each k.

    Args:
      predict: inputs -> probabilities [B, K].
      mask: (inputs, m [B, N] bool, True = kept) -> inputs.
      inputs: an array [B, ...] or a pytree of them.
      scores: [B, N].
      valid: [B, N] False at padding; all valid if None.
      top: the k; inputs of fewer features are left whole.
    """
    rank = ranks(scores, valid)
    classes = jax.lax.map(
        lambda k: predict(mask(inputs, rank < k)).argmax(-1), jnp.asarray(top)
    )  # [S, B]
    return classes.T


def insertion_f1(predicted: np.ndarray, true_classes: np.ndarray) -> TokenF1:
    """Classification F1 at each step: predicted [B, S] against the true classes [B].

    Micro is the accuracy, macro the mean of 2 TP / (2 TP + FP + FN) over the classes that are
    there or predicted at that step: scikit-learn's `f1_score(average="macro")`.
    """
    predicted, true_classes = np.asarray(predicted), np.asarray(true_classes)
    if predicted.ndim != 2 or true_classes.shape != predicted.shape[:1] or not len(true_classes):
        raise ValueError(
            f"predicted must be [B, S] and true_classes [B], got {predicted.shape} and "
            f"{true_classes.shape}"
        )
    classes = np.union1d(predicted, true_classes)[:, None, None]
    guess = predicted == classes  # [K, B, S]
    truth = true_classes[:, None] == classes  # [K, B, 1]
    hits = (guess & truth).sum(1)  # [K, S]
    total = guess.sum(1) + truth.sum(1)  # [K, S], 0 for a class that does not occur at a step
    f1 = 2 * hits / np.maximum(total, 1)
    return TokenF1(
        micro=(predicted == true_classes[:, None]).mean(0), macro=f1.sum(0) / (total > 0).sum(0)
    )


def erasure(
    predict: Callable[[Any], jax.Array],
    mask: Callable[[Any, jax.Array], Any],
    inputs: Any,
    scores: jax.Array,
    targets: jax.Array,
    valid: jax.Array | None = None,
    percent: Sequence[float] = BINS,
) -> Erasure:
    """Comprehensiveness f_y(x) − f_y(x∖r) and sufficiency f_y(x) − f_y(r), DeYoung et al. 2020.

    r are the top features: of n, ⌈percent · n / 100⌉. The mean over the S percents is what ERASER's
    scorer calls AOPC; that of the paper also counts the empty r, of which comprehensiveness is 0
    and sufficiency f_y(x) − f_y(∅), and divides by S + 1. ERASER's plain metrics are of one r for
    each text, as long as people's rationales are on average, which none of the percents is.

    Args:
      predict: inputs -> probabilities [B, K].
      mask: (inputs, m [B, N] bool, True = kept) -> inputs.
      inputs: an array [B, ...] or a pytree of them.
      scores: [B, N].
      targets: [B] the class y, in ERASER the predicted one.
      valid: [B, N] False at padding; all valid if None.
      percent: sizes of r.
    """
    rank = ranks(scores, valid)
    size = scores.shape[-1] if valid is None else valid.sum(-1, keepdims=True, dtype=float)

    def probability(inputs: Any) -> jax.Array:
        return jnp.take_along_axis(predict(inputs), targets[:, None], -1)[:, 0]

    def step(share: jax.Array) -> tuple[jax.Array, jax.Array]:
        # The margin keeps float rounding from turning 10 % of 50 into 6.
        top = rank < jnp.ceil(share * size / 100 - 1e-4).astype(int)
        return probability(mask(inputs, ~top)), probability(mask(inputs, top))

    without, alone = jax.lax.map(step, jnp.asarray(percent, jnp.float32))  # [S, B]
    whole = probability(inputs)
    return Erasure((whole - without).T, (whole - alone).T)
