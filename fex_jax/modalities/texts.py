"""Explaining texts: strings of any length in, words with scores out.

A text longer than the model's window is read in overlapping windows; windows are explained in
batches of one of a few lengths.
"""

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from typing import TYPE_CHECKING, Literal

import jax
import numpy as np
from scipy.special import expit

from fex_jax import checks, modalities, tokens
from fex_jax.host.strings import Strings
from fex_jax.targets import PREDICTED, Target, class_numbers
from fex_jax.text_explanation import TextExplanation, TextExplanations
from fex_jax.token_batch import TokenBatch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fex_jax.explain import Explainer
    from fex_jax.pretrained import TextCheckpoint

Reads = Strings
BATCH_SIZE = 32  # windows of texts
THING = "text"
SUFFIXES = frozenset({".txt"})
COLUMNS = "text", "sentence", "review", "content", "document"
CELL, BY_PATH = "a text", False
WORDS, TOGETHER = True, 16  # so that batches are of texts of about one length
_OVERLAP = 64  # tokens that two windows of a long text share
_WARM = 1024  # tokens of the longest batch that is compiled before it comes


def explain(
    explainer: "Explainer",
    texts: "str | Sequence[str | tuple[str, str]]",
    targets: "Target | Sequence[Target] | None" = None,
    *,
    refine: int | Literal["auto"] = 0,
    with_prediction: bool = True,
    batch_size: int = BATCH_SIZE,
    progress: bool = True,
) -> TextExplanations:
    """Explains any number of texts of any length.

    Of a text that is read in several windows, its probabilities, its faithfulness and the score of
    a word in several of them (of FEX: the logit of λ) are means over them.

    Args:
      explainer: of a predictor of texts.
      texts: one string or many; of a classifier of pairs, a list of pairs of strings.
      targets: the class to explain, for all or for each text, as a number or a label; by
        default the predicted one.
      refine: queries to the predictor about each window, that improve its scores: an even
        number; 0 for the explainer's own; "auto" as of images. See `fex_jax.refine`.
      with_prediction: False, beside `targets`: leave f(x) out where the scores do not need it.
      batch_size: windows of one of a few lengths at a time; fewer are padded to a power of two,
        see `modalities.padded`.
      progress: show a bar, if it takes more than three seconds.

    Raises:
      ValueError: names the first text or class that cannot be used, and why.
    """
    listed = as_list(texts)
    options = {"refine": refine, "batch_size": batch_size, "with_prediction": with_prediction}
    modalities.check_options(options, {}, targets)
    predictor = explainer.predictor
    split = predictor.tokenizer(listed, explainer.unit)
    size = predictor.config.max_length
    parts = [_windows(text, size, i) for i, text in enumerate(split)]
    ends = np.cumsum([0, *map(len, parts)])  # windows ends[i] to ends[i + 1] are of text i
    windows = [part for group in parts for _, part in group]
    counts = np.array([len(window.ids) + 2 for window in windows])
    groups = list(batches(counts, size, batch_size))

    def collate(rows: np.ndarray, length: int) -> TokenBatch:
        return tokens.collate([windows[row] for row in rows], length, predictor.tokenizer)

    text_of = np.repeat(np.arange(len(listed)), np.diff(ends))  # each window's
    answers = np.zeros((len(windows), len(predictor.labels)), np.float32)
    scores = np.zeros((len(windows), size), np.float32)
    faithfulness = np.full((len(windows), 1), np.nan, np.float32)
    asked = np.full((len(windows), 1), PREDICTED, np.int32)
    if targets is not None:
        asked = class_numbers(targets, len(listed), predictor.labels, "texts")[text_of][:, None]
    answered = targets is None and len(windows) > len(listed)
    if answered:  # windows say together which class their text is explained for
        for rows, kept, length in modalities.bar(groups, progress, "predictions"):
            answers[rows[:kept]] = np.asarray(explainer.answers(collate(rows, length)))[:kept]
        asked = _means(answers, ends).argmax(-1).astype(np.int32)[text_of][:, None]
    for rows, kept, length in modalities.bar(groups, progress):
        batch, mine = collate(rows, length), rows[:kept]
        found, chosen, said, faithful = explainer.explain(
            batch,
            asked[rows],
            refine=refine,
            with_prediction=with_prediction,
            answers=answers[rows] if answered else None,
        )
        asked[mine] = chosen[:kept]
        if said is not None:
            answers[mine] = said[:kept]
        if faithful is not None:
            faithfulness[mine] = faithful[:kept]
        scores[mine, :length] = found[:kept, 0]
    classes, probabilities = asked[ends[:-1], 0], _means(answers, ends)
    trusted = _means(faithfulness, ends)[:, 0]

    explanations = TextExplanations()
    for i, text in enumerate(split):
        total, count = np.zeros((2, len(text.spans)))
        for (first, part), values in zip(parts[i], scores[ends[i] : ends[i + 1]], strict=True):
            features = slice(first, first + len(part.spans))
            total[features] += values[: len(part.spans)]
            count[features] += 1
        mean = total / count
        mean = expit(mean) if explainer.logits else mean
        explanations.append(
            TextExplanation(
                text.string,
                text.spans,
                mean,
                int(classes[i]),
                probabilities[i] if with_prediction else None,
                predictor.labels,
                len(parts[i]),
                additive=not explainer.logits,
                second=text.second,
                faithfulness=None if np.isnan(trusted[i]) else float(trusted[i]),
            )
        )
    return explanations


def read(explainer: "Explainer", content: str | bytes) -> str:
    """A text that can be explained; an error calls it "text 0"."""
    try:
        text = content.decode("utf-8-sig") if isinstance(content, bytes) else content
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not UTF-8: {error}") from None
    (split,) = explainer.predictor.tokenizer([text], explainer.unit)
    _windows(split, explainer.predictor.config.max_length, 0)
    return text


def ranked(
    explainer: "Explainer",
    texts: "Sequence[str]",
    classes: np.ndarray,
    refine: int,
    batch_size: int,
) -> list[list[modalities.Map]]:
    """Scores of texts and `classes` [k]: numbers, or all `PREDICTED` for the most probable k."""
    options = {"refine": refine, "batch_size": batch_size, "progress": False}
    ask = functools.partial(explainer, texts, **options)
    if classes[0] != PREDICTED:
        columns = [ask(int(y)) for y in classes]
    else:
        columns = most_probable(ask, len(classes))
    return [
        [
            modalities.Map(x.target, float(x.probabilities[x.target]), x.scores, list(x.words))
            for x in row
        ]
        for row in zip(*columns, strict=True)
    ]


def most_probable(ask: Callable[..., TextExplanations], count: int) -> list[TextExplanations]:
    """ask(targets) for the predicted class of each text, then the next, `count` in all."""
    columns = [ask(None)]
    ranking = [np.argsort(-one.probabilities, kind="stable") for one in columns[0]]
    for rank in range(1, count):
        columns.append(ask([int(row[rank]) for row in ranking]))
    return columns


def features(explainer: "Explainer") -> str:
    """What scores tell of."""
    return "words"


def arrays(explainer: "Explainer", length: int | None) -> modalities.Arrays:
    """Tokens of texts of up to `length`, or of what the network reads at a time.

    Raises:
      ValueError: a longer one.
    """
    predictor = explainer.predictor
    most = predictor.config.max_length
    length = most if length is None else length
    checks.require({"length": length}, {"length": checks.integer(3, most)}, "export")
    tokenizer = predictor.tokenizer
    kinds = {"ids": np.int32, "attention": np.bool_, "features": np.int32}
    return modalities.Arrays(
        {name: ((length,), kind) for name, kind in kinds.items()},
        (length,),
        TokenBatch,
        {
            "ids": f"int32 [B, {length}]: CLS, the text's tokens, SEP, padding",
            "attention": f"bool [B, {length}]: false at padding",
            "features": f"int32 [B, {length}]: the number of a token's {explainer.unit} in the "
            "text; -1 at CLS, SEP and padding",
            "unit": explainer.unit,
            "length": length,
            "cls_id": tokenizer.cls_id,
            "sep_id": tokenizer.sep_id,
            "pad_id": tokenizer.pad_id,
            "tokenizer.json": tokenizer.backend.to_str(),
        },
    )


def lines(texts: "Sequence[str]", found: TextExplanations) -> "Iterator[str]":
    """Each text, its strongest words marked."""
    return map(str, found)


def examples(explainer: "Explainer", size: int) -> list[TokenBatch]:
    """A batch of each shape that explaining `size` texts can need: of each length to 1024."""
    predictor = explainer.predictor
    most = predictor.config.max_length
    (text,) = predictor.tokenizer(["a"], explainer.unit)
    lengths = sorted(
        {tokens.bucket(n, most) for n in (*tokens.BUCKETS, most) if n <= min(most, _WARM)}
    )
    return [tokens.collate([text] * size, length, predictor.tokenizer) for length in lengths]


def as_list(texts: "str | Iterable[str | tuple[str, str]]") -> list[str | tuple[str, str]]:
    """One entry a text or a pair; the tokenizer looks at each."""
    if isinstance(texts, str):
        return [texts]
    # A list of a data frame is one of its columns' names, and a set has no order.
    other = isinstance(texts, bytes | bytearray | Mapping | Set) or hasattr(texts, "columns")
    try:
        listed = None if other else list(texts)
    except TypeError:
        listed = None
    if listed is None:
        raise ValueError(
            f"{type(texts).__name__} is no text: expected one string or a list of strings, such as "
            "a column of a data frame"
        )
    if not listed:
        raise ValueError("there are no texts to explain: the batch is empty")
    return listed


def _means(answers: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Of each text's windows: [windows, K] → [texts, K]."""
    return np.stack([answers[a:b].mean(0) for a, b in zip(ends, ends[1:], strict=False)])


def _windows(text: tokens.Text, size: int, index: int) -> list[tuple[int, tokens.Text]]:
    try:
        return tokens.windows(text, size, min(_OVERLAP, size // 4))
    except ValueError as error:
        raise ValueError(f"text {index}: {error}") from None


def batches(
    counts: np.ndarray, max_length: int, batch_size: int
) -> Iterator[tuple[np.ndarray, int, int]]:
    """Rows of one bucket at a time: of texts of `counts` tokens, CLS and SEP included.

    Yields:
      Rows, repeated where they are fewer than `modalities.padded` says; how many of them are no
      repetitions; and the length of the batch.
    """
    lengths = np.array([tokens.bucket(int(count), max_length) for count in counts])
    for length in np.unique(lengths):
        members = np.flatnonzero(lengths == length)
        size = modalities.padded(len(members), batch_size)
        for start in range(0, len(members), size):
            rows = members[start : start + size]
            yield np.resize(rows, size), len(rows), int(length)


def groups(
    predictor: "TextCheckpoint", inputs: TokenBatch, rows: np.ndarray, batch_size: int
) -> Iterator[tuple[np.ndarray, int, TokenBatch]]:
    """Texts of a batch, its `rows`, in the batches of a few lengths that `explain` makes.

    Yields:
      Places in `rows`, how many of them are no repetitions, and the batch of these texts.
    """
    counts = inputs.attention[rows].sum(-1)
    for places, kept, length in batches(counts, predictor.config.max_length, batch_size):
        batch = jax.tree.map(lambda x, places=places: x[rows[places]], inputs)
        yield places, kept, at_length(batch, length, predictor.tokenizer.pad_id)


def at_length(batch: TokenBatch, length: int, pad_id: int) -> TokenBatch:
    """The same texts with less or more padding: [B, T] → [B, `length`], which holds them all."""

    def resize(array: np.ndarray, padding: int) -> np.ndarray:
        missing = max(0, length - array.shape[-1])
        return np.pad(array, ((0, 0), (0, missing)), constant_values=padding)[:, :length]

    raw = batch.raw
    if raw is not None:
        missing = max(0, length - raw.spans.shape[1])
        spans = np.pad(raw.spans, ((0, 0), (0, missing), (0, 0)), constant_values=-1)
        raw = raw._replace(spans=spans[:, :length])
    ids, attention, features = map(resize, batch[:3], (pad_id, False, -1))
    types = None if batch.types is None else resize(batch.types, 0)
    return TokenBatch(ids, attention, features, raw, types)
