"""Streams of uint8 images through tf.data.

A `Source` is a tf.data set of cheap records and a function that turns a record into an example.
Streams shuffle, split between processes and skip records, and only then decode: resuming in the
middle of an epoch costs no decoding and every run sees the same examples in the same order.
"""

import atexit
import contextlib
import dataclasses
import os
import re
import weakref
from collections.abc import Callable, Generator, Iterator
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from PIL import Image

from fex_jax.escape import terminal
from fex_jax.preprocessing import Preprocessing

Batch = dict[str, np.ndarray]  # "image" [B, H, W, 3] uint8, "label" [B], maybe "segmentation"


# What a set of pictures is known by.
_RECORDS, _PICTURES = 10_000, 16
_UNSET = 87654321  # what TensorFlow takes for its own seed where none is set
_OPEN: weakref.WeakSet[Generator] = weakref.WeakSet()  # streams
# A function without Python branches on tensors, as it is: to rewrite them takes a second.
as_it_is = tf.autograph.experimental.do_not_convert


def shuffled(records: tf.data.Dataset, buffer: int, seed: int) -> tf.data.Dataset:
    """Records, every epoch in another order, which follows from `seed` alone."""
    # tf.data mixes in TensorFlow's own seed, which other code of the process may have set.
    set_before, _ = tf.compat.v1.get_seed(seed)
    if set_before != _UNSET:
        tf.random.set_seed(_UNSET)
    try:
        return records.shuffle(buffer, seed=seed, reshuffle_each_iteration=True)
    finally:
        if set_before != _UNSET:
            tf.random.set_seed(set_before)


class Source(NamedTuple):
    """Records to stream."""

    records: tf.data.Dataset  # one epoch, in an order whose every prefix is a fair sample
    # record → {"image": uint8 [h, w, 3], "label", maybe "segmentation" and "where", its name}
    decode: Callable[[dict], dict]
    size: int
    shuffle_buffer: int  # records held in memory while shuffling
    labels: tuple[str, ...]
    batched: bool = False  # `decode` turns records [B] into examples [B]

    def split(self, count: int) -> tuple["Source", "Source"]:
        """The first `count` items, and the others."""
        records, rest = self.records, self.size - count
        buffers = min(self.shuffle_buffer, count), min(self.shuffle_buffer, rest)
        return (
            self._replace(records=records.take(count), size=count, shuffle_buffer=buffers[0]),
            self._replace(records=records.skip(count), size=rest, shuffle_buffer=buffers[1]),
        )

    def contents(self, predictor: Any) -> tuple:
        """What tells it from others: names of 10,000 files, and 16 pictures as f sees them."""
        records = self.records.take(_RECORDS).as_numpy_iterator()
        names = [record.get("file", b"").split(b"/")[-2:] for record in records]
        first = eval_stream(self, predictor.preprocessing, _PICTURES, limit=_PICTURES)
        return names, next(first)["image"]


def train_stream(
    source: Source,
    preprocessing: Preprocessing,
    batch_size: int,
    *,
    seed: int,
    start: int = 0,
    limit: int | None = None,
    augment: bool = True,
    process: tuple[int, int] = (0, 1),
) -> Iterator[Batch]:
    """Endless shuffled batches, from batch number `start` on.

    Args:
      batch_size: examples per batch of all processes.
      limit: use only the first so many records of the source.
      augment: random resized crop and flip, instead of the predictor's resizing; not for scenes.
      process: index and count; every process gets its own part of each batch, which is the same
        for any count.
    """
    dataset = source.records.take(limit) if limit else source.records
    buffer = min(limit or source.size, source.shuffle_buffer)
    index, count = process
    dataset = shuffled(dataset, buffer, seed).repeat()
    dataset = dataset.skip(start * batch_size).enumerate(start * batch_size)
    part = batch_size // count
    if count > 1:
        own = as_it_is(lambda position, _: position % batch_size // part == index)
        dataset = dataset.filter(own)

    def example(position: tf.Tensor, decoded: dict) -> dict:
        if not augment:
            return _resize(decoded, preprocessing)
        noise = tf.stack([tf.cast(seed, tf.int64), position])
        decoded["image"] = _random_crop(decoded["image"], preprocessing, noise)
        decoded.pop("where", None)
        return decoded

    dataset = _examples(source, dataset, example, part)
    return _numpy(dataset.batch(part, drop_remainder=True).prefetch(2))


def eval_stream(
    source: Source,
    preprocessing: Preprocessing,
    batch_size: int,
    *,
    limit: int | None = None,
) -> Iterator[Batch]:
    """The first `limit` records once, resized as the predictor wants; the last batch is short."""
    dataset = source.records.take(limit) if limit else source.records

    def example(_: tf.Tensor, decoded: dict) -> dict:
        return _resize(decoded, preprocessing)

    dataset = _examples(source, dataset.enumerate(), example, batch_size)
    return _numpy(dataset.batch(batch_size).prefetch(2))


def _examples(
    source: Source,
    dataset: tf.data.Dataset,
    example: Callable[[tf.Tensor, dict], dict],
    together: int,
) -> tf.data.Dataset:
    """example(position, decoded record) of each position and record, in their order.

    A source that decodes many records at once gets `together` of them.
    """
    calls = {"num_parallel_calls": tf.data.AUTOTUNE, "deterministic": True}
    if not source.batched:
        each = as_it_is(lambda i, record: example(i, source.decode(record)))
        return dataset.map(each, **calls)
    decode = as_it_is(lambda i, records: (i, source.decode(records)))
    return dataset.batch(together).map(decode).unbatch().map(as_it_is(example), **calls)


def _resize(decoded: dict, preprocessing: Preprocessing) -> dict:
    """An example at the predictor's input size, without its name."""
    sides = preprocessing.sides
    nearest = dataclasses.replace(preprocessing, resample=Image.Resampling.NEAREST)

    def resize(image: np.ndarray, where: bytes) -> np.ndarray:
        return preprocessing.resize(Image.fromarray(image), terminal(os.fsdecode(where)))

    def resize_mask(mask: np.ndarray) -> np.ndarray:
        return nearest.resize(Image.fromarray(mask))[..., 0]

    where = decoded.pop("where", "image")
    if decoded["image"].shape.is_fully_defined():  # scenes are drawn at their final size
        return decoded
    image = tf.numpy_function(resize, [decoded["image"], where], tf.uint8)
    decoded["image"] = tf.ensure_shape(image, (*sides, 3))
    if "segmentation" in decoded:
        mask = tf.numpy_function(resize_mask, [decoded["segmentation"]], tf.uint8)
        decoded["segmentation"] = tf.ensure_shape(mask, sides)
    return decoded


def _random_crop(image: tf.Tensor, preprocessing: Preprocessing, noise: tf.Tensor) -> tf.Tensor:
    """A random area of 30 to 100 % at aspect 3/4 to 4/3 of the input's, resized, maybe flipped."""
    height, width = preprocessing.sides
    begin, size, _ = tf.image.stateless_sample_distorted_bounding_box(
        tf.shape(image),
        bounding_boxes=tf.constant([[[0.0, 0.0, 1.0, 1.0]]]),
        seed=noise,
        area_range=(0.3, 1.0),
        aspect_ratio_range=(3 / 4 * (width / height), 4 / 3 * (width / height)),
        use_image_if_no_bounding_boxes=True,
    )
    crop = tf.slice(image, begin, size)
    crop = tf.image.resize(crop, preprocessing.sides, method="bicubic", antialias=True)
    crop = tf.image.stateless_random_flip_left_right(crop, seed=noise + 1)
    return tf.saturate_cast(tf.round(crop), tf.uint8)


def _numpy(dataset: tf.data.Dataset) -> Iterator[Batch]:
    """Batches as numpy arrays; what is wrong with an example is a ValueError."""
    stream = _batches(dataset)
    _OPEN.add(stream)
    return stream


@atexit.register
def _close() -> None:
    """Ends open streams while their threads can still call Python: later they would wait for it for
    ever, and the end of the process for them."""
    for stream in list(_OPEN):
        with contextlib.suppress(ValueError):  # another thread is reading it
            stream.close()


def _batches(dataset: tf.data.Dataset) -> Generator[Batch]:
    try:
        yield from dataset.as_numpy_iterator()
    except tf.errors.OpError as error:
        # Of an exception in Python, TensorFlow hands on the class, the text and a traceback.
        raised = re.search(r"\w+Error: (.*?)\nTraceback", error.message, re.DOTALL)
        raise ValueError(raised[1] if raised else error.message) from error
