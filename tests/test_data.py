"""Streams: the same examples in the same order, whenever a run resumes."""

import itertools

import h5py
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from PIL import Image

from fex_jax import data, scenes
from fex_jax.preprocessing import Preprocessing

PREPROCESSING = Preprocessing(size=(32, 32))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three classes of ten pictures; a picture's red channel tells its class and number."""
    root = tmp_path_factory.mktemp("folder")
    for label, name in enumerate(["ant", "bee", "cat"]):
        (root / name).mkdir()
        for i in range(10):
            pixels = np.full((20 + i, 40, 3), (10 * i + label, 0, 200), np.uint8)
            Image.fromarray(pixels).save(root / name / f"{i}.png")
    return root


def take(stream, count):
    return list(itertools.islice(stream, count))


def assert_same(a, b):
    for x, y in zip(a, b, strict=True):
        for name in x:
            np.testing.assert_array_equal(x[name], y[name])


def test_resuming_continues_the_same_stream(folder):
    """Breaks if a resumed run sees other images, another order or other crops."""
    source = data.folder_source(str(folder), "train")
    whole = take(data.train_stream(source, PREPROCESSING, 4, seed=1), 14)  # past two epochs
    resumed = take(data.train_stream(source, PREPROCESSING, 4, seed=1, start=9), 5)
    assert_same(whole[9:], resumed)
    other = take(data.train_stream(source, PREPROCESSING, 4, seed=2), 1)[0]
    assert not np.array_equal(whole[0]["image"], other["image"])


def test_an_epoch_holds_every_image_once_and_the_next_is_reordered(folder):
    """Breaks if shuffling repeats or drops images, or every epoch has the same order."""
    source = data.folder_source(str(folder), "train")
    assert source.size == 24
    stream = data.train_stream(source, PREPROCESSING, 24, seed=0, augment=True)
    first, second = (batch["label"] for batch in take(stream, 2))
    assert np.bincount(first).tolist() == [8, 8, 8]
    assert not np.array_equal(first, second)


def test_processes_share_a_batch_without_overlap(folder):
    """Breaks if two processes train on the same images, or leave some out."""
    source = data.folder_source(str(folder), "all")
    parts = [
        take(data.train_stream(source, PREPROCESSING, 5, seed=0, process=(i, 2)), 3)
        for i in range(2)
    ]
    labels = np.concatenate([batch["label"] for part in parts for batch in part])
    assert np.bincount(labels).tolist() == [10, 10, 10]


def test_folder_splits_are_disjoint_and_cover_every_class(folder):
    """Breaks if a test image was trained on, or a class is missing from the test split."""
    train, test, everything = (
        data.folder_source(str(folder), split) for split in ("train", "test", "all")
    )
    files = [{r["file"] for r in s.records.as_numpy_iterator()} for s in (train, test, everything)]
    assert not files[0] & files[1] and files[0] | files[1] == files[2]
    assert train.labels == ("ant", "bee", "cat")
    assert sorted(r["label"] for r in test.records.as_numpy_iterator()) == [0, 0, 1, 1, 2, 2]


def test_eval_images_are_preprocessed_as_the_predictor_says(folder):
    """Breaks if evaluation resizes otherwise than `explain` does, or drops the last batch."""
    source = data.folder_source(str(folder), "all")
    batches = list(data.eval_stream(source, PREPROCESSING, 8))
    assert [len(batch["image"]) for batch in batches] == [8, 8, 8, 6]
    record = next(source.records.as_numpy_iterator())
    with Image.open(record["file"].decode()) as image:
        np.testing.assert_array_equal(batches[0]["image"][0], PREPROCESSING.resize(image))
    assert len(next(data.eval_stream(source, PREPROCESSING, 8, limit=3))["image"]) == 3


def test_scenes_stream_as_they_are_drawn():
    """Breaks if tf.data changes a scene, or a split draws from another split's digits."""
    source = data.open_source("digit_scenes", "test", None, 64)
    batch = next(data.eval_stream(source, Preprocessing(size=(64, 64)), 3))
    digits = scenes.split_objects(scenes.digits(), "test")
    scene = scenes.draw(digits, scenes.Layout(), 2, 1)
    np.testing.assert_array_equal(batch["image"][1], scene.image)
    np.testing.assert_array_equal(batch["segmentation"][1], scene.segmentation)
    assert batch["label"][1] == scene.label


def test_imagenet_segmentation_is_read_in_its_layout(tmp_path):
    """Breaks if axes of gtsegs_ijcv.mat are swapped, or masks are resized unlike their images."""
    path = tmp_path / "gtsegs_ijcv.mat"
    pixels = np.zeros((20, 40, 3), np.uint8)  # H, W, C
    pixels[:10, :, 0], pixels[:, 20:, 2] = 200, 100  # the upper half red, the right one blue
    with h5py.File(path, "w") as file:
        images = file.create_dataset("/value/img", (2, 1), h5py.ref_dtype)
        masks = file.create_dataset("/value/gt", (2, 1), h5py.ref_dtype)
        for i in range(2):
            image = file.create_dataset(f"/refs/img{i}", data=pixels.transpose(2, 1, 0))
            mask = file.create_dataset(f"/refs/mask{i}", data=(pixels[..., 0] > 0).T.astype("u1"))
            inner = file.create_dataset(f"/refs/gt{i}", (1, 1), h5py.ref_dtype)
            inner[0, 0] = mask.ref
            images[i, 0], masks[i, 0] = image.ref, inner.ref
    source = data.open_source("imagenet_segmentation", "all", str(path), 32)
    assert source.size == 2
    batch = next(data.eval_stream(source, PREPROCESSING, 2))
    assert batch["image"].shape == (2, 32, 32, 3)
    assert batch["image"][1, 4, 4].tolist() == [200, 0, 0]
    assert batch["image"][1, 28, 28].tolist() == [0, 0, 100]
    expected = np.repeat(np.arange(32) < 16, 32).reshape(32, 32)
    np.testing.assert_array_equal(batch["segmentation"][0] > 0, expected)
    with pytest.raises(ValueError, match="no gtsegs_ijcv.mat"):
        data.open_source("imagenet_segmentation", "all", str(tmp_path / "none.mat"), 32)


def test_a_broken_file_is_named(folder, tmp_path):
    """Breaks if a corrupt image ends a run without saying which file it is."""
    (tmp_path / "ant").mkdir()
    (tmp_path / "ant" / "good.png").write_bytes((folder / "ant" / "0.png").read_bytes())
    (tmp_path / "ant" / "broken.png").write_bytes(b"no image")
    source = data.folder_source(str(tmp_path), "all")
    with pytest.raises(ValueError, match="broken.png"):
        take(data.train_stream(source, PREPROCESSING, 2, seed=0), 2)


def test_wrong_sources_say_what_was_wanted(tmp_path):
    """Breaks if a wrong path or split ends in a traceback."""
    with pytest.raises(ValueError, match="holds no class folders"):
        data.open_source("folder", "train", str(tmp_path), 32)
    (tmp_path / "ant").mkdir()
    with pytest.raises(ValueError, match="holds no images"):
        data.open_source("folder", "train", str(tmp_path), 32)
    with pytest.raises(ValueError, match="train, test and all"):
        data.open_source("folder", "validation", str(tmp_path), 32)
    with pytest.raises(ValueError, match="choose one of train, validation, test"):
        data.open_source("digit_scenes", "dev", None, 64)
    with pytest.raises(ValueError, match="TFDS could not prepare 'no_such_set'"):
        data.open_source("no_such_set", "train", str(tmp_path), 32)


def test_tfds_set_is_read_and_resumed(tmp_path):
    """Breaks if encoded records are not what `decode` wants, or skipping them loses the place."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (12, 24, 24, 3), np.uint8)
    features = tfds.features.FeaturesDict(
        {"image": tfds.features.Image(), "label": tfds.features.ClassLabel(names=["a", "b"])}
    )
    examples = tf.data.Dataset.from_tensor_slices({"image": images, "label": np.arange(12) % 2})
    tfds.dataset_builders.store_as_tfds_dataset(
        name="tiny", version="1.0.0", features=features, split_datasets={"train": examples},
        data_dir=tmp_path,
    )  # fmt: skip
    source = data.open_source("tiny", "train", str(tmp_path), 32)
    assert source.size == 12 and source.labels == ("a", "b")
    whole = take(data.train_stream(source, PREPROCESSING, 4, seed=0), 5)
    assert_same(whole[2:], take(data.train_stream(source, PREPROCESSING, 4, seed=0, start=2), 3))
    assert len(next(data.train_stream(source, PREPROCESSING, 2, seed=0, limit=2))["image"]) == 2
