"""Pictures to train on and to score: folders, lists, arrays, tables and iterators of them."""

import collections
import concurrent.futures
import itertools
import math
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import ml_collections
import numpy as np
import tensorflow as tf
from PIL import Image
from tqdm import tqdm

from fex_jax import data, settings
from fex_jax.data.decode import MAX_PIXELS, SUFFIXES, decode
from fex_jax.feeding.given import Column, from_table, shuffled, source_of, walk
from fex_jax.feeding.lengths import suit_length
from fex_jax.models.vit import ViTConfig

if TYPE_CHECKING:
    from fex_jax.export import Predictor

PRESET, SETTINGS = "contrast", settings.default
OPTIONS = ("column",)
AT_PATH = {"data.name": "folder"}
THINGS, ONCE = "images", True
_COLUMNS = "image", "img", "picture", "pixels"  # names of a column where none is given
_CHECKED = 20_000  # files that are opened before training starts
# Pictures that are taken of an iterator without a limit, and their shortest side in longest sides
# of the predictor's input: at 224 pixels some 4 GiB.
_FROM_ITERATORS, _SHRUNK_TO = 10_000, 1.5


def open_source(
    predictor: "Predictor", config: ml_collections.ConfigDict, split: str
) -> data.Source:
    """A split of the data that a config names."""
    given = config.data
    size, kept = predictor.config.image_size, (given.get("cache", ""), given.get("cache_gib", 16))
    return data.open_source(given.name, split, given.path, size, *kept)


def open_data(
    predictor: "Predictor", given: Any, limit: int | None, *, column: str | None = None
) -> tuple[data.Source, dict, str]:
    """See `feeding.open_data`; `column` of a table holds pictures."""
    if (source := source_of(given, data.Source, limit)) is not None:
        return source, {}, ""
    given = from_table(given, column, _COLUMNS)
    if isinstance(given, Iterator):
        side = _SHRUNK_TO * max(predictor.preprocessing.sides)
        taken = itertools.islice(given, limit or _FROM_ITERATORS)
        given = [_shrink(_decode(x, f"image {i}"), side) for i, x in enumerate(taken)]
    skipped: collections.Counter = collections.Counter()
    items = _images(given, skipped)
    order, words = shuffled(given, len(items), limit, skipped)
    return _image_source(items, order, predictor.labels), {}, words


def suit(config: ml_collections.ConfigDict, predictor: "Predictor", source: data.Source) -> None:
    """A U-Net, or what there is, where the predictor is no ViT, and as long a run as suits the
    number of pictures."""
    if not isinstance(predictor.config, ViTConfig):
        config.policy = "unet" if predictor.inside else "auto"
        config.map_head = "shared" if config.map_head == "wide" else config.map_head
    suit_length(config, source.size)


def stream(
    predictor: "Predictor", source: data.Source, config: ml_collections.ConfigDict, **options: Any
) -> Callable[[int], Iterator[Any]]:
    """Pixels, as `feeding.open_stream` has them."""
    options |= {"preprocessing": predictor.preprocessing, "augment": config.data.augment}

    def batches(start: int) -> Iterator[Any]:
        return (batch["image"] for batch in data.train_stream(source, start=start, **options))

    return batches


def in_order(
    predictor: "Predictor", source: data.Source, config: ml_collections.ConfigDict
) -> Iterator[Any]:
    """Eight pictures at a time, in their order."""
    return (batch["image"] for batch in data.eval_stream(source, predictor.preprocessing, 8))


def first(
    predictor: "Predictor", source: data.Source, config: ml_collections.ConfigDict, count: int
) -> Any:
    """The first `count` pictures together."""
    return next(data.eval_stream(source, predictor.preprocessing, count, limit=count))["image"]


def _images(given: Any, skipped: collections.Counter) -> Any:
    """Pictures, or files of pictures that open."""
    if isinstance(given, str | os.PathLike):
        given = walk(pathlib.Path(given).expanduser(), SUFFIXES, "images", skipped)
    if isinstance(given, Column):
        return given
    if hasattr(given, "ndim"):
        if given.ndim != 4:
            raise ValueError(
                f"the images are an array of shape {tuple(given.shape)}; expected [B, H, W, 3], "
                "or of grey ones [B, H, W, 1]"
            )
        return np.asanyarray(given)  # of masked arrays, `decode` says what to do
    if not isinstance(given, Iterable):
        raise ValueError(
            f"{type(given).__name__} cannot be trained on: expected a folder, a list of pictures "
            "or paths, an array [B, H, W, 3], an iterator, a table or a source"
        )
    items = list(given)
    if all(isinstance(item, str | os.PathLike) for item in items[:_CHECKED]):
        checked = tqdm(items[:_CHECKED], "files", leave=False)
        with concurrent.futures.ThreadPoolExecutor() as pool:
            whole = list(pool.map(_opens, checked)) + [True] * (len(items) - _CHECKED)
        broken = [item for item, fine in zip(items, whole, strict=False) if not fine]
        if broken:
            shown = ", ".join(map(str, broken[:3])) + (", …" if len(broken) > 3 else "")
            skipped[f"that cannot be read as images ({shown})"] += len(broken)
        items = [item for item, fine in zip(items, whole, strict=False) if fine]
    return items


def _decode(picture: Any, where: str) -> np.ndarray:
    if isinstance(picture, dict):  # an image of `datasets` that is not decoded
        picture = picture.get("bytes") or picture.get("path")
    return decode(picture, where)


def _image_source(items: Sequence, order: np.ndarray, labels: tuple[str, ...]) -> data.Source:
    def read(i: np.ndarray) -> np.ndarray:
        return _decode(items[int(i)], f"image {i}")

    def example(record: dict) -> dict:
        image = tf.numpy_function(read, [record["index"]], tf.uint8)
        return {"image": tf.ensure_shape(image, (None, None, 3)), "label": tf.zeros((), tf.int32)}

    files = [b""] * len(order)
    if isinstance(items, list):
        paths = (items[i] if isinstance(items[i], str | os.PathLike) else "" for i in order)
        files = [os.fsencode(path) for path in paths]
    records = tf.data.Dataset.from_tensor_slices({"index": order, "file": np.array(files)})
    return data.Source(records, example, len(order), len(order), labels)


def _opens(file: str | os.PathLike) -> bool:
    """Whether a file is a whole picture; JPEGs are decoded at an eighth of their size."""
    try:
        if not os.path.isfile(file):  # of a pipe or a device, reading might not end
            return False
        with Image.open(file) as image:
            if math.prod(image.size) > MAX_PIXELS:
                return False
            image.draft("RGB", (64, 64))
            image.load()
    except Exception:  # PIL's readers raise anything at a damaged file
        return False
    return True


def _shrink(pixels: np.ndarray, side: float) -> np.ndarray:
    """A picture whose shortest side is at most `side`: what an iterator yields stays in memory."""
    ratio = side / min(pixels.shape[:2])
    if ratio >= 1:
        return pixels
    size = [max(1, round(ratio * n)) for n in pixels.shape[1::-1]]
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC))
