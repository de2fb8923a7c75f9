"""What a config names, as a `Source`: drawn scenes, folders of class folders, TFDS sets, masks."""

import os
from typing import Any

import numpy as np
import tensorflow as tf

from fex_jax import errors, scenes
from fex_jax.data import folders
from fex_jax.data.decode import SUFFIXES, decode
from fex_jax.data.drawn import Drawn
from fex_jax.data.streams import Source

_SHUFFLE_BUFFER = 8192  # encoded images of a TFDS set held in memory while shuffling


def open_source(
    name: str, split: str, path: str | None, image_size: Any, cache: str = "", cache_gib: int = 16
) -> Source:
    """The data set that a config names.

    Args:
      name: digit_scenes, fashion_scenes, cutout_scenes, folder, imagenet_segmentation, or the name
        of a TFDS image classification set.
      split: train, validation or test for scenes; train, test or all for a folder; else TFDS's.
      path: the folder of class folders, of Fashion-MNIST's IDX files, of cut-outs and backgrounds,
        or TFDS's data_dir; the file gtsegs_ijcv.mat for imagenet_segmentation.
      image_size: side of drawn scenes in pixels.
      cache, cache_gib: where scenes are kept, and how much of them: `drawn.Drawn`; "": nowhere.

    Raises:
      ValueError: scenes for a predictor of pictures that are not square.
    """
    if name.endswith("_scenes") and not isinstance(image_size, int):
        raise ValueError(
            f"{name} are square, the predictor's inputs {image_size} px: choose others"
        )
    kept = {"cache": cache, "cache_gib": cache_gib}
    match name:
        case "digit_scenes":
            return scene_source(scenes.digits(), scenes.Layout(image_size), split, **kept)
        case "fashion_scenes":
            layout = scenes.Layout(image_size)
            return scene_source(scenes.fashion_mnist(path), layout, split, **kept)
        case "cutout_scenes":
            layout = scenes.Layout(
                image_size,
                large=(round(0.42 * image_size), round(0.58 * image_size)),
                small=(round(0.3 * image_size), round(0.4 * image_size)),
                fragments=(1, 4),
            )
            return scene_source(scenes.cutouts(path or "", image_size), layout, split, **kept)
        case "folder":
            return folder_source(path or "", split)
        case "imagenet_segmentation":
            return imagenet_segmentation_source(path or "")
        case _:
            return tfds_source(name, split, path)


def scene_source(
    objects: scenes.Objects,
    layout: scenes.Layout,
    split: str,
    size: int = 1_000_000,
    *,
    cache: str = "",
    cache_gib: int = 16,
) -> Source:
    """`size` scenes of one split; the splits share neither objects nor seeds.

    With a folder `cache`, other processes draw them ahead, into files that stay: `drawn.Drawn`.
    """
    chosen = scenes.split_objects(objects, split)
    seed = list(scenes.SPLITS).index(split)
    side = layout.image_size
    drawn = Drawn(chosen, layout, seed, cache, cache_gib) if cache else None

    def draw(indices: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        if drawn:
            return drawn.read(indices)
        several = [scenes.draw(chosen, layout, seed, int(index)) for index in indices]
        images, classes, segmentations = zip(*several, strict=True)
        return np.stack(images), np.array(classes, np.int32), np.stack(segmentations)

    def decode(records: dict) -> dict:
        images, classes, segmentations = tf.numpy_function(
            draw, [records["index"]], (tf.uint8, tf.int32, tf.uint8)
        )
        return {
            "image": tf.ensure_shape(images, (None, side, side, 3)),
            "label": tf.ensure_shape(classes, (None,)),
            "segmentation": tf.ensure_shape(segmentations, (None, side, side)),
        }

    records = tf.data.Dataset.range(size).map(lambda index: {"index": index})
    # Scenes are in random order already. A call into Python costs as much as half a scene.
    return Source(records, decode, size, 1, objects.names, batched=True)


def folder_source(directory: str, split: str, held_out: float = 0.2, seed: int = 0) -> Source:
    """Images of a folder, best of class folders; a fixed random part of each class is held out.

    Splits: "train", "test" (`held_out` of each class) and "all". `folders.class_files` says what
    counts as a class and as an image. A folder of nothing but images has no classes, and its source
    no labels.
    """
    if split not in ("train", "test", "all"):
        raise ValueError(f"split {split!r} is unknown; a folder has train, test and all")
    plain = folders.plain_files(directory, SUFFIXES)
    classes = {"": plain} if plain else folders.class_files(directory, SUFFIXES)
    files, numbers = [], []
    for label, images in enumerate(classes.values()):
        order = np.random.default_rng((seed, label)).permutation(len(images))
        test = round(held_out * len(images))
        picked = {"test": order[:test], "train": order[test:], "all": order}[split]
        files += [os.fsencode(images[i]) for i in picked]
        numbers += [label] * len(picked)
    if not files:
        raise ValueError(f"{directory} holds too few images for a {split} split: use all")
    order = np.random.default_rng(seed).permutation(len(files))
    files, numbers = np.array(files)[order], np.array(numbers, np.int32)[order]

    def read(file: bytes) -> np.ndarray:
        return decode(os.fsdecode(file))

    def example(record: dict) -> dict:
        image = tf.numpy_function(read, [record["file"]], tf.uint8)
        return {
            "image": tf.ensure_shape(image, (None, None, 3)),
            "label": record["label"],
            "where": record["file"],
        }

    records = tf.data.Dataset.from_tensor_slices({"file": files, "label": numbers})
    return Source(records, example, len(files), len(files), tuple(filter(None, classes)))


def imagenet_segmentation_source(path: str) -> Source:
    """The images of gtsegs_ijcv.mat with the masks of their objects (Guillaumin et al. 2014).

    The file is HDF5: /value/img holds references to images (C, W, H), /value/gt references to
    references to masks (W, H). It is for evaluation: the classes of the objects are not in it.
    """
    errors.require("h5py")
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
    fields = builder.info.features
    if not {"image", "label"} <= set(fields):
        raise ValueError(f"TFDS set {name!r} has {sorted(fields)}; expected image and label")
    records = builder.as_dataset(
        split=split,
        decoders={"image": tfds.decode.SkipDecoding()},
        read_config=tfds.ReadConfig(try_autocache=False, add_tfds_id=True),
    ).map(lambda record: {name: record[name] for name in ("image", "label", "tfds_id")})

    def read(encoded: bytes, name: bytes) -> np.ndarray:
        return decode(encoded, name.decode())

    def example(record: dict) -> dict:
        image = tf.numpy_function(read, [record["image"], record["tfds_id"]], tf.uint8)
        return {
            "image": tf.ensure_shape(image, (None, None, 3)),
            "label": tf.cast(record["label"], tf.int32),
            "where": record["tfds_id"],
        }

    size = builder.info.splits[split].num_examples
    return Source(records, example, size, _SHUFFLE_BUFFER, tuple(fields["label"].names))
