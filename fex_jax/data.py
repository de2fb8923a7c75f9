"""Streams of uint8 images through tf.data: scenes, folders of class folders, TFDS data sets.

A `Source` is a tf.data set of cheap records and a function that turns a record into an example.
Streams shuffle, split between processes and skip records, and only then decode: resuming in the
middle of an epoch costs no decoding and every run sees the same examples in the same order.
"""

import dataclasses
import pathlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import distrax  # noqa: F401  TensorFlow Probability, below it, only loads before TensorFlow
import numpy as np
import tensorflow as tf
from PIL import Image, UnidentifiedImageError

from fex_jax import scenes
from fex_jax.preprocessing import Preprocessing

Batch = dict[str, np.ndarray]  # "image" [B, S, S, 3] uint8, "label" [B], maybe "segmentation"
_SHUFFLE_BUFFER = 8192  # encoded images of a TFDS set held in memory while shuffling
_IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".gif"}


class Source(NamedTuple):
    """Records to stream."""

    records: tf.data.Dataset  # one epoch, in an order whose every prefix is a fair sample
    decode: Callable[[dict], dict]  # record → {"image": uint8 [h, w, 3], "label", …}
    size: int
    shuffle_buffer: int  # records held in memory while shuffling
    labels: tuple[str, ...]
    describe: Callable[[], str] = lambda: ""  # called when decoding fails: which file is at fault


def open_source(name: str, split: str, path: str | None, image_size: int) -> Source:
    """The data set that a config names.

    Args:
      name: digit_scenes, fashion_scenes, cutout_scenes, folder, imagenet_segmentation, or the name
        of a TFDS image classification set.
      split: train, validation or test for scenes; train, test or all for a folder; else TFDS's.
      path: the folder of class folders, of Fashion-MNIST's IDX files, of cut-outs and backgrounds,
        or TFDS's data_dir; the file gtsegs_ijcv.mat for imagenet_segmentation.
      image_size: side of drawn scenes in pixels.
    """
    match name:
        case "digit_scenes":
            return scene_source(scenes.digits(), scenes.Layout(image_size), split)
        case "fashion_scenes":
            return scene_source(scenes.fashion_mnist(path), scenes.Layout(image_size), split)
        case "cutout_scenes":
            layout = scenes.Layout(
                image_size,
                large=(round(0.42 * image_size), round(0.58 * image_size)),
                small=(round(0.3 * image_size), round(0.4 * image_size)),
                fragments=(1, 4),
            )
            return scene_source(scenes.cutouts(path or "", image_size), layout, split)
        case "folder":
            return folder_source(path or "", split)
        case "imagenet_segmentation":
            return imagenet_segmentation_source(path or "")
        case _:
            return tfds_source(name, split, path)


def scene_source(
    objects: scenes.Objects, layout: scenes.Layout, split: str, size: int = 1_000_000
) -> Source:
    """`size` scenes of one split; the splits share neither objects nor seeds."""
    chosen = scenes.split_objects(objects, split)
    seed = list(scenes.SPLITS).index(split)
    side = layout.image_size

    def draw(index: np.ndarray) -> tuple[np.ndarray, np.int32, np.ndarray]:
        scene = scenes.draw(chosen, layout, seed, int(index))
        return scene.image, np.int32(scene.label), scene.segmentation

    def decode(record: dict) -> dict:
        image, label, segmentation = tf.numpy_function(
            draw, [record["index"]], (tf.uint8, tf.int32, tf.uint8)
        )
        return {
            "image": tf.ensure_shape(image, (side, side, 3)),
            "label": tf.ensure_shape(label, ()),
            "segmentation": tf.ensure_shape(segmentation, (side, side)),
        }

    records = tf.data.Dataset.range(size).map(lambda index: {"index": index})
    return Source(records, decode, size, 1, objects.names)  # scenes are in random order already


def folder_source(directory: str, split: str, held_out: float = 0.2, seed: int = 0) -> Source:
    """Images of a folder of class folders; a fixed random part of each class is held out.

    Splits: "train", "test" (`held_out` of each class) and "all". Unreadable files are an error that
    names them.
    """
    root = pathlib.Path(directory).expanduser()
    classes = sorted(path for path in root.glob("*") if path.is_dir())
    if not classes:
        raise ValueError(
            f"{directory} holds no class folders: expected {directory}/<class>/<image>.jpg"
        )
    if split not in ("train", "test", "all"):
        raise ValueError(f"split {split!r} is unknown; a folder has train, test and all")
    files, labels = [], []
    for label, folder in enumerate(classes):
        images = sorted(p for p in folder.rglob("*") if p.suffix.lower() in _IMAGE_SUFFIXES)
        order = np.random.default_rng((seed, label)).permutation(len(images))
        test = round(held_out * len(images))
        picked = {"test": order[:test], "train": order[test:], "all": order}[split]
        files += [str(images[i]) for i in picked]
        labels += [label] * len(picked)
    if not files:
        raise ValueError(f"{directory} holds no images ({', '.join(sorted(_IMAGE_SUFFIXES))})")
    order = np.random.default_rng(seed).permutation(len(files))
    files, labels = np.array(files)[order], np.array(labels, np.int32)[order]

    def decode(record: dict) -> dict:
        return {"image": _decode(tf.io.read_file(record["file"])), "label": record["label"]}

    records = tf.data.Dataset.from_tensor_slices({"file": files, "label": labels})
    names = tuple(folder.name for folder in classes)
    return Source(records, decode, len(files), len(files), names, lambda: _unreadable(files))


def imagenet_segmentation_source(path: str) -> Source:
    """The images of gtsegs_ijcv.mat with the masks of their objects (Guillaumin et al. 2014).

    The file is HDF5: /value/img holds references to images (C, W, H), /value/gt references to
    references to masks (W, H). It is for evaluation: the classes of the objects are not in it.
    """
    import h5py

    try:
        with h5py.File(path) as file:
            size = file["/value/img"].shape[0]
    except (OSError, KeyError, ValueError) as error:
        raise ValueError(
            f"{path!r} is no gtsegs_ijcv.mat: {error}. Name the file with --config.data.path"
        ) from error

    def read(index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        with h5py.File(path) as file:
            image = file[file["/value/img"][index, 0]][()]
            mask = file[file[file["/value/gt"][index, 0]][0, 0]][()]
        # The class is unknown: the highest number stands for "an object".
        return image.transpose(2, 1, 0), np.where(mask.T > 0, np.uint8(255), np.uint8(0))

    def decode(record: dict) -> dict:
        image, segmentation = tf.numpy_function(read, [record["index"]], (tf.uint8, tf.uint8))
        return {
            "image": tf.ensure_shape(image, (None, None, 3)),
            "label": tf.zeros((), tf.int32),
            "segmentation": tf.ensure_shape(segmentation, (None, None)),
        }

    records = tf.data.Dataset.range(size).map(lambda index: {"index": index})
    return Source(records, decode, size, size, ("object",))


def prepare_tfds(name: str, data_dir: str | None, own: str) -> Any:
    """The builder of a TFDS set, prepared first if it is not there yet.

    Where it cannot be, the error tells how to use data of one's own: `own`, in the config's flags.
    """
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder(name, data_dir=data_dir)
        builder.download_and_prepare()
    except Exception as error:
        raise ValueError(
            f"TFDS could not prepare {name!r} in {data_dir or 'its default folder'}: {error}\n"
            f"Name another folder with --config.data.path, or use data of your own with {own}"
        ) from error
    return builder


def tfds_source(name: str, split: str, data_dir: str | None = None) -> Source:
    """One split of a TFDS image classification set; it is prepared first if it is not there yet."""
    import tensorflow_datasets as tfds

    own = "--config.data.name=folder --config.data.path=DIRECTORY"
    builder = prepare_tfds(name, data_dir, own)
    features = builder.info.features
    if not {"image", "label"} <= set(features):
        raise ValueError(f"TFDS set {name!r} has {sorted(features)}; expected image and label")
    records = builder.as_dataset(
        split=split,
        decoders={"image": tfds.decode.SkipDecoding()},
        read_config=tfds.ReadConfig(try_autocache=False),
    ).map(lambda record: {"image": record["image"], "label": record["label"]})

    def decode(record: dict) -> dict:
        return {
            "image": _decode(record["image"]),
            "label": tf.cast(record["label"], tf.int32),
        }

    size = builder.info.splits[split].num_examples
    return Source(records, decode, size, _SHUFFLE_BUFFER, tuple(features["label"].names))


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
      batch_size: examples per batch of this process.
      limit: use only the first so many records of the source.
      augment: random resized crop and flip; scenes are never augmented.
      process: index and count; every process gets its own part of each batch.
    """
    dataset = source.records.take(limit) if limit else source.records
    buffer = min(limit or source.size, source.shuffle_buffer)
    index, count = process
    dataset = dataset.shuffle(buffer, seed=seed, reshuffle_each_iteration=True).repeat()
    dataset = dataset.shard(count, index).skip(start * batch_size)
    dataset = dataset.enumerate(start * batch_size)

    def example(position: tf.Tensor, record: dict) -> dict:
        decoded = source.decode(record)
        if augment:
            noise = tf.stack([tf.cast(seed, tf.int64), position * count + index])
            decoded["image"] = _random_crop(decoded["image"], preprocessing, noise)
        return decoded

    dataset = dataset.map(example, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    dataset = dataset.batch(batch_size, drop_remainder=True).prefetch(2)
    return _numpy(dataset, source)


def eval_stream(
    source: Source,
    preprocessing: Preprocessing,
    batch_size: int,
    *,
    limit: int | None = None,
) -> Iterator[Batch]:
    """The first `limit` records once, resized as the predictor wants; the last batch is short."""
    dataset = source.records.take(limit) if limit else source.records
    side = preprocessing.image_size

    nearest = dataclasses.replace(preprocessing, resample=Image.Resampling.NEAREST)

    def resize(image: np.ndarray) -> np.ndarray:
        return preprocessing.resize(Image.fromarray(image))

    def resize_mask(mask: np.ndarray) -> np.ndarray:
        return nearest.resize(Image.fromarray(mask))[..., 0]

    def example(record: dict) -> dict:
        decoded = source.decode(record)
        if decoded["image"].shape.is_fully_defined():  # scenes are drawn at their final size
            return decoded
        image = tf.numpy_function(resize, [decoded["image"]], tf.uint8)
        decoded["image"] = tf.ensure_shape(image, (side, side, 3))
        if "segmentation" in decoded:
            mask = tf.numpy_function(resize_mask, [decoded["segmentation"]], tf.uint8)
            decoded["segmentation"] = tf.ensure_shape(mask, (side, side))
        return decoded

    dataset = dataset.map(example, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    return _numpy(dataset.batch(batch_size).prefetch(2), source)


def _decode(encoded: tf.Tensor) -> tf.Tensor:
    image = tf.io.decode_image(encoded, channels=3, expand_animations=False)
    return tf.ensure_shape(image, (None, None, 3))


def _random_crop(image: tf.Tensor, preprocessing: Preprocessing, noise: tf.Tensor) -> tf.Tensor:
    """A random area of 8 to 100 % at aspect 3/4 to 4/3, resized, flipped half of the time."""
    begin, size, _ = tf.image.stateless_sample_distorted_bounding_box(
        tf.shape(image),
        bounding_boxes=tf.constant([[[0.0, 0.0, 1.0, 1.0]]]),
        seed=noise,
        area_range=(0.08, 1.0),
        aspect_ratio_range=(3 / 4, 4 / 3),
        use_image_if_no_bounding_boxes=True,
    )
    crop = tf.slice(image, begin, size)
    side = preprocessing.image_size
    crop = tf.image.resize(crop, (side, side), method="bicubic", antialias=True)
    crop = tf.image.stateless_random_flip_left_right(crop, seed=noise + 1)
    return tf.saturate_cast(tf.round(crop), tf.uint8)


def _numpy(dataset: tf.data.Dataset, source: Source) -> Iterator[Batch]:
    """Batches as numpy arrays; a file that cannot be decoded is named."""
    try:
        yield from dataset.as_numpy_iterator()
    except tf.errors.InvalidArgumentError as error:
        raise ValueError(f"an image could not be decoded. {source.describe()}") from error


def _unreadable(files: list[str]) -> str:
    broken = []
    for file in files:
        try:
            with Image.open(file) as image:
                image.load()
        except (OSError, UnidentifiedImageError, SyntaxError):
            broken.append(file)
    return f"Remove or repair: {', '.join(broken[:10])}" if broken else "Every file opens with PIL."
