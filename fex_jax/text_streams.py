"""Streams of tokenised texts through tf.data.

Texts are small: a `Source` holds them all. A stream tokenises them once, and tf.data orders their
numbers: shuffled, grouped by length, skipped to where a run stopped. So resuming costs nothing,
and every run sees the same batches in the same order.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
import tensorflow as tf

from fex_jax import tokens
from fex_jax.data import streams
from fex_jax.text_data import Source

Batch = dict[str, Any]  # "inputs" TokenBatch, "label" [B] or None, "index" [B] place in the source


def train_stream(
    source: Source,
    tokenizer: tokens.Tokenizer,
    max_length: int,
    batch_size: int,
    *,
    unit: tokens.Unit = "token",
    buckets: Sequence[int] = tokens.BUCKETS,
    too_long: Literal["refuse", "cut"] = "refuse",
    seed: int,
    start: int = 0,
    limit: int | None = None,
    process: tuple[int, int] = (0, 1),
) -> Iterator[Batch]:
    """Endless shuffled batches of texts of one bucket, from batch number `start` on.

    Args:
      max_length: the model's window in tokens.
      batch_size: texts per batch of all processes.
      unit: what a feature is.
      too_long: "refuse" texts beyond the window, or "cut" them to it.
      limit: use only the first so many texts of the source.
      process: index and count; every process gets its own part of each batch, which is the same
        for any count.
    """
    lengths, texts = tokens.within(
        source.texts[:limit], tokenizer, max_length, unit, too_long, buckets
    )
    index, count = process
    dataset = tf.data.Dataset.range(len(texts))
    dataset = streams.shuffled(dataset, len(texts), seed).repeat()
    dataset = _batches(dataset, lengths, batch_size).skip(start)
    part = slice(batch_size // count * index, batch_size // count * (index + 1))
    for numbers in dataset.prefetch(2).as_numpy_iterator():
        yield _batch(source, texts, lengths, numbers[part], tokenizer)


def eval_stream(
    source: Source,
    tokenizer: tokens.Tokenizer,
    max_length: int,
    batch_size: int,
    *,
    unit: tokens.Unit = "token",
    buckets: Sequence[int] = tokens.BUCKETS,
    too_long: Literal["refuse", "cut"] = "refuse",
    limit: int | None = None,
) -> Iterator[Batch]:
    """The first `limit` texts once, in batches of one bucket; the last of a bucket is short."""
    lengths, texts = tokens.within(
        source.texts[:limit], tokenizer, max_length, unit, too_long, buckets
    )
    dataset = _batches(tf.data.Dataset.range(len(texts)), lengths, batch_size)
    for numbers in dataset.prefetch(2).as_numpy_iterator():
        yield _batch(source, texts, lengths, numbers, tokenizer)


def _batches(numbers: tf.data.Dataset, lengths: np.ndarray, batch_size: int) -> tf.data.Dataset:
    """Numbers of texts in groups of one bucket."""
    table = tf.constant(lengths, tf.int64)
    return numbers.group_by_window(
        key_func=lambda i: table[i],
        reduce_func=lambda _, window: window.batch(batch_size),
        window_size=batch_size,
    )


def _batch(
    source: Source,
    texts: list[tokens.Text],
    lengths: np.ndarray,
    numbers: np.ndarray,
    tokenizer: tokens.Tokenizer,
) -> Batch:
    chosen = [texts[i] for i in numbers]
    return {
        "inputs": tokens.collate(chosen, int(lengths[numbers[0]]), tokenizer),
        "label": None if source.classes is None else source.classes[numbers],
        "index": numbers,
    }
