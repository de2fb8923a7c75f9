"""Streams: the same examples in the same order, whenever a run resumes."""

import itertools
import subprocess
import sys
import types

import h5py
import jax
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from PIL import Image

from fex_jax import data, scenes
from fex_jax.modalities import images
from fex_jax.preprocessing import Preprocessing

PREPROCESSING = Preprocessing(size=(32, 32))
LONG = Preprocessing(size=224, do_center_crop=True)  # the shortest edge


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


def test_no_seed_of_tensorflow_changes_the_order(folder):
    """Breaks if a seed that other code has set, as Keras does, gives a run another order, so that
    it does not go on elsewhere as it began; or if that code loses its seed."""
    source = data.folder_source(folder, "train")
    options = {"seed": 3, "augment": True}
    expected = take(data.train_stream(source, PREPROCESSING, 8, **options), 7)  # two epochs
    try:
        tf.random.set_seed(11)
        given = tf.random.uniform([3]).numpy()
        tf.random.set_seed(11)
        assert_same(take(data.train_stream(source, PREPROCESSING, 8, **options), 7), expected)
        np.testing.assert_array_equal(tf.random.uniform([3]), given)
    finally:
        tf.random.set_seed(87654321)  # as if none had been set


def test_an_epoch_holds_every_image_once_and_the_next_is_reordered(folder):
    """Breaks if shuffling repeats or drops images, or every epoch has the same order."""
    source = data.folder_source(str(folder), "train")
    assert source.size == 24
    stream = data.train_stream(source, PREPROCESSING, 24, seed=0, augment=True)
    first, second = (batch["label"] for batch in take(stream, 2))
    assert np.bincount(first).tolist() == [8, 8, 8]
    assert not np.array_equal(first, second)


@pytest.mark.parametrize("augment", [False, True])
def test_processes_share_the_batches_of_one(folder, augment):
    """Breaks if a batch, its order or its crops depend on how many processes read it."""
    source = data.folder_source(str(folder), "all")

    def stream(**options):
        given = source, PREPROCESSING, 10
        return take(data.train_stream(*given, seed=0, augment=augment, start=1, **options), 3)

    parts = [stream(process=(i, 2)) for i in range(2)]
    joined = [
        jax.tree.map(lambda *x: np.concatenate(x), *batch) for batch in zip(*parts, strict=True)
    ]
    assert_same(joined, stream())


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


@pytest.mark.parametrize("stream", ["train", "plain", "eval"])
def test_what_cannot_be_read_is_named(folder, tmp_path, stream):
    """Breaks if a picture that is broken, of odd depth or far too long is not named."""
    streams = {
        "train": lambda s: data.train_stream(s, LONG, 1, seed=0),
        "plain": lambda s: data.train_stream(s, LONG, 1, seed=0, augment=False),
        "eval": lambda s: data.eval_stream(s, LONG, 1),
    }
    good = (folder / "ant" / "0.png").read_bytes()
    floats = Image.fromarray(np.full((8, 8), 300, np.float32))
    files = {
        "broken.png": (b"no image", r"broken.png\) cannot be read"),
        "cut.png": (good[:60], r"cut.png\) cannot be read"),
        "deep.tif": (floats, r"deep.tif\) has floats from 300"),
        "caf\udce9.jpg": (b"", r"caf\\udce9.jpg\) cannot be read"),  # a name that is not UTF-8
    }
    if stream != "train":  # which cuts a piece out first
        files["thin.png"] = (Image.new("L", (1, 20_000)), r"thin.png of 1 × 20000 pixels would be")
    for name, (content, message) in files.items():
        place = tmp_path / name.split(".")[0].encode(errors="replace").decode() / "ant"
        place.mkdir(parents=True)
        if isinstance(content, bytes):
            (place / name).write_bytes(content)
        else:
            content.save(place / name)
        with pytest.raises(ValueError, match=message) as error:
            take(streams[stream](data.folder_source(str(place.parent), "all")), 1)
        assert "\n" not in str(error.value)


def test_both_streams_see_what_explain_sees(tmp_path):
    """Breaks if training or scoring decodes a picture otherwise than `explain` does."""
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = np.random.default_rng(0).integers(0, 256, (40, 52, 3), np.uint8)
    (tmp_path / "ant").mkdir()
    Image.fromarray(pixels).save(tmp_path / "ant" / "phone.jpg", exif=exif)
    Image.fromarray(pixels[..., 0].astype(np.uint16) * 257).save(tmp_path / "ant" / "deep.png")
    Image.fromarray(pixels).convert("P").save(tmp_path / "ant" / "palette.bmp")
    Image.fromarray(pixels).convert("1").save(tmp_path / "ant" / "scan.bmp")
    Image.fromarray(pixels).save(tmp_path / "ant" / "web.WebP")
    source = data.folder_source(str(tmp_path), "all")
    assert source.size == 5
    scored = next(data.eval_stream(source, PREPROCESSING, 5))["image"]
    trained = next(data.train_stream(source, PREPROCESSING, 5, seed=0, augment=False))["image"]
    files = [record["file"].decode() for record in source.records.as_numpy_iterator()]
    predictor = types.SimpleNamespace(preprocessing=PREPROCESSING)
    seen = np.stack([images.prepare(predictor, file, 0) for file in files])
    np.testing.assert_array_equal(scored, seen)
    assert {image.tobytes() for image in trained} == {image.tobytes() for image in scored}


def test_wrong_sources_say_what_was_wanted(tmp_path):
    """Breaks if a wrong path or split ends in a traceback."""
    with pytest.raises(ValueError, match="holds no class folders"):
        data.open_source("folder", "train", str(tmp_path), 32)
    (tmp_path / "ant").mkdir()
    with pytest.raises(ValueError, match="without a file to read: ant"):
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


def test_a_broken_record_of_tfds_is_named(tmp_path):
    """Breaks if a damaged record of a large set ends a run without its place in it."""
    features = tfds.features.FeaturesDict(
        {"image": tfds.features.Image(), "label": tfds.features.ClassLabel(names=["a", "b"])}
    )
    images = tf.data.Dataset.from_tensor_slices(
        {"image": np.zeros((2, 8, 8, 3), np.uint8), "label": [0, 1]}
    )
    tfds.dataset_builders.store_as_tfds_dataset(
        name="broken", version="1.0.0", features=features, split_datasets={"train": images},
        data_dir=tmp_path,
    )  # fmt: skip
    source = data.open_source("broken", "train", str(tmp_path), 32)

    def cut(record):
        return record | {"image": tf.strings.substr(record["image"], 0, 40)}

    source = source._replace(records=source.records.map(cut))
    with pytest.raises(ValueError, match="broken-train.tfrecord-00000-of-00001__0 cannot be read"):
        take(data.eval_stream(source, PREPROCESSING, 2), 1)


def test_tensorflow_may_be_imported_first():
    """Breaks if a notebook that has imported TensorFlow cannot import streams and the policy."""
    code = (
        "import tensorflow as tf; from fex_jax.data import streams, sources; from fex_jax import "
        "ppo; import jax.numpy as jnp; assert tf.constant(1).numpy() == 1; "
        "print(ppo.bernoulli(jnp.zeros((1, 2))).log_prob(jnp.ones((1, 2))))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[-1.3862944]"  # 2 log ½
