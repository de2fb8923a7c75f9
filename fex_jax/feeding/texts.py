"""Texts to train on and to score: files, folders, lists, tables and iterators of them."""

import collections
import itertools
import os
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import ml_collections

from fex_jax import feeding, settings, text_data, text_streams, tokens
from fex_jax.feeding import text_files
from fex_jax.feeding.given import Named, from_table, shuffled, source_of
from fex_jax.feeding.lengths import suit_length
from fex_jax.modalities.texts import COLUMNS
from fex_jax.windows import Pair

if TYPE_CHECKING:
    from fex_jax.export import Predictor

PRESET, SETTINGS = "contrast", settings.default
OPTIONS = ("column",)
AT_PATH = {"data.name": "texts"}
THINGS, ONCE = "texts", True
_FROM_ITERATORS = 100_000  # texts that are taken of an iterator without a limit


def open_source(
    predictor: "Predictor", config: ml_collections.ConfigDict, split: str
) -> text_data.Source:
    """A split of the data that a config names."""
    given, column = config.data, feeding.column(config)
    return text_data.open_source(given.name, split, given.path, predictor.labels, column)


def open_data(
    predictor: "Predictor", given: Any, limit: int | None, *, column: Named = None
) -> tuple[text_data.Source, dict, str]:
    """See `feeding.open_data`; `column` holds texts, two of them pairs."""
    if (source := source_of(given, text_data.Source, limit)) is not None:
        return source, {}, ""
    given = from_table(given, column, COLUMNS, text_files.PAIRS, files=True)
    if isinstance(given, Iterator):
        given = itertools.islice(given, limit or _FROM_ITERATORS)
    skipped: collections.Counter = collections.Counter()
    items = _texts(given, column, skipped)
    if not predictor.inside and not all(isinstance(text, str) for text in items):
        raise ValueError("the data are pairs; a black box of texts reads single strings")
    order, words = shuffled(given, len(items), limit, skipped)
    names = [column] if isinstance(column, str) else column or []
    source = text_data.Source([items[i] for i in order], None, predictor.labels)
    return source, {"data.column": ",".join(names)}, words


def suit(
    config: ml_collections.ConfigDict,
    predictor: "Predictor",
    source: text_data.Source,
) -> None:
    """The predictor's own kind of network or a small BERT, long texts cut, and a run's length."""
    config.policy = "bert" if predictor.inside else "small_bert"
    config.text.too_long = "cut"
    suit_length(config, source.size)


def stream(
    predictor: "Predictor",
    source: text_data.Source,
    config: ml_collections.ConfigDict,
    **options: Any,
) -> Callable[[int], Iterator[Any]]:
    """Tokens, as `feeding.open_stream` has them."""
    options |= _reading(predictor, config)

    def batches(start: int) -> Iterator[Any]:
        found = text_streams.train_stream(source, start=start, **options)
        return (batch["inputs"] for batch in found)

    return batches


def in_order(
    predictor: "Predictor", source: text_data.Source, config: ml_collections.ConfigDict
) -> Iterator[Any]:
    """Eight texts at a time, in their order."""
    found = text_streams.eval_stream(source, batch_size=8, **_reading(predictor, config))
    return (batch["inputs"] for batch in found)


def first(
    predictor: "Predictor",
    source: text_data.Source,
    config: ml_collections.ConfigDict,
    count: int,
) -> Any:
    """The first `count` texts together."""
    options = _reading(predictor, config)
    lengths, texts = tokens.within(source.texts[:count], **options)
    return tokens.collate(texts, int(lengths.max()), options["tokenizer"])


def _reading(predictor: "Predictor", config: ml_collections.ConfigDict) -> dict[str, Any]:
    """How `text_streams` reads texts."""
    window = predictor.config.max_length
    return {
        "tokenizer": predictor.tokenizer,
        "max_length": min(config.text.max_length or window, window),
        "unit": config.text.unit,
        "too_long": config.text.too_long,
    }


def _texts(given: Any, column: Named, skipped: collections.Counter) -> list[str | Pair]:
    """The texts that are not blank, and the pairs of them."""
    if isinstance(given, str | os.PathLike):
        return [row.text for row in text_files.read(given, column, skipped)]
    if not isinstance(given, Iterable):
        raise ValueError(
            f"{type(given).__name__} cannot be trained on: expected a list of texts, a file, a "
            "folder of .txt files, an iterator, a table or a source"
        )
    found = (text_files.content(x) if isinstance(x, os.PathLike) else x for x in given)
    texts = (text_files.checked(text, f"text {i}", skipped) for i, text in enumerate(found))
    return [text for text in texts if text is not None]
