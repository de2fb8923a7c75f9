"""A source's items in batches, as a predictor's explainers take them."""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import ml_collections

from fex_jax import data, text_streams, tokens
from fex_jax.data import table_sets
from fex_jax.export import Predictor
from fex_jax.training.sources import Source

_MIX = 0.15  # of a row's features are another's


def open_stream(
    config: ml_collections.ConfigDict, predictor: Predictor, source: Source
) -> Callable[[int], Iterator[Any]]:
    """stream(start): this process's batches, as `Model`'s bind takes them, from that one on."""
    options = {
        "batch_size": config.batch_size,
        "seed": config.seed,
        "limit": config.data.limit or None,
        "process": (jax.process_index(), jax.process_count()),
    }
    if predictor.modality == "tables":
        options["mix"] = _MIX if config.data.augment else 0.0
        rows = functools.partial(table_sets.train_stream, source, **options)
        return lambda start: map(predictor.reads.batch, rows(start=start))
    if predictor.modality == "texts":
        options |= _of_texts(predictor, config)
        open_, field = text_streams.train_stream, "inputs"
    else:
        options |= {"preprocessing": predictor.preprocessing, "augment": config.data.augment}
        open_, field = data.train_stream, "image"
    return lambda start: (batch[field] for batch in open_(source, start=start, **options))


def in_order(
    predictor: Predictor, source: Source, config: ml_collections.ConfigDict
) -> Iterator[Any]:
    """Eight items at a time, in their order."""
    if predictor.modality == "texts":
        stream = text_streams.eval_stream(source, batch_size=8, **_of_texts(predictor, config))
        return (batch["inputs"] for batch in stream)
    stream = data.eval_stream(source, predictor.preprocessing, 8)
    return (batch["image"] for batch in stream)


def first(
    predictor: Predictor, source: Source, config: ml_collections.ConfigDict, count: int
) -> Any:
    """The first `count` items together."""
    if predictor.modality == "texts":
        options = _of_texts(predictor, config)
        lengths, texts = tokens.within(source.texts[:count], **options)
        return tokens.collate(texts, int(lengths.max()), options["tokenizer"])
    return next(data.eval_stream(source, predictor.preprocessing, count, limit=count))["image"]


def _of_texts(predictor: Predictor, config: ml_collections.ConfigDict) -> dict[str, Any]:
    """How `text_streams` reads texts."""
    window = predictor.config.max_length
    return {
        "tokenizer": predictor.tokenizer,
        "max_length": min(config.text.max_length or window, window),
        "unit": config.text.unit,
        "too_long": config.text.too_long,
    }
