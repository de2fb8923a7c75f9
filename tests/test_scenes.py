"""Scenes: deterministic, split by source object, with exact masks."""

import gzip
import pathlib
import struct

import numpy as np
import pytest
from PIL import Image

from fex_jax import pretrained, scenes

ROOT = pathlib.Path(__file__).resolve().parent.parent
LAYOUT = scenes.Layout()
DIGITS = scenes.digits()


def test_a_scene_is_a_function_of_seed_and_index():
    """Breaks if drawing depends on what was drawn before."""
    first = scenes.draw(DIGITS, LAYOUT, 0, 7)
    scenes.draw(DIGITS, LAYOUT, 0, 8)
    again = scenes.draw(DIGITS, LAYOUT, 0, 7)
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.segmentation, again.segmentation)
    assert not np.array_equal(first.image, scenes.draw(DIGITS, LAYOUT, 1, 7).image)


@pytest.mark.parametrize(
    "index, label, mask, ink",
    [
        (0, 2, 2673, [146921, 261121, 231812]),
        (1, 1, 696, [255343, 344251, 229748]),
        (2, 6, 4113, [302401, 353943, 276610]),
        (1000, 2, 1080, [340084, 139818, 290800]),
    ],
)
def test_scenes_stay_what_they_were(index, label, mask, ink):
    """Breaks if a faster way of drawing changes the pictures of which the published numbers are.

    Another processor's matrix product may round a few of 4,096 pixels otherwise, by one.
    """
    scene = scenes.draw(DIGITS, LAYOUT, 0, index)
    assert (scene.label, scene.segmentation.sum()) == (label, mask)
    np.testing.assert_allclose(scene.image.sum((0, 1)), ink, atol=20)


def test_splits_share_no_handwriting():
    """Breaks if a digit of the test split could have been seen in training."""
    parts = [scenes.split_objects(DIGITS, split).images for split in scenes.SPLITS]
    assert sum(map(len, parts)) == len(DIGITS.classes) == 1797
    as_bytes = [{image.tobytes() for image in part} for part in parts]
    for i in range(3):
        for j in range(i):
            assert not as_bytes[i] & as_bytes[j]


def test_masks_are_exact():
    """Breaks if a mask is off its object: without clutter, ink is bright inside, never outside."""
    plain = scenes.Layout(fragments=(0, 1), noise=0.0)
    for index in range(20):
        scene = scenes.draw(DIGITS, plain, 0, index)
        background = scene.image[scene.segmentation == 0]
        corner = np.median(scene.image.reshape(-1, 3), axis=0)
        inside = scene.image[scene.segmentation > 0].astype(int)
        assert (np.abs(inside - corner).max(-1) > 10).mean() > 0.95
        # Pixels outside are at most 30 % ink.
        assert np.abs(background - corner).max() <= 0.35 * 255


def test_objects_and_label_agree_with_the_mask():
    """Breaks if the label is not the larger object or two objects share a class."""
    counts = {1: 0, 2: 0}
    for index in range(200):
        scene = scenes.draw(DIGITS, LAYOUT, 0, index)
        classes = np.setdiff1d(scene.segmentation, [0]) - 1
        counts[len(classes)] += 1
        assert scene.label in classes
    assert counts[1] > 60 and counts[2] > 60


def test_fragments_never_cover_an_object():
    """Breaks if clutter is painted over a digit whose mask still claims it."""
    clean = scenes.Layout(fragments=(0, 1), noise=0.0)
    cluttered = scenes.Layout(fragments=(30, 31), noise=0.0)
    for index in range(10):
        a = scenes.draw(DIGITS, clean, 0, index)
        b = scenes.draw(DIGITS, cluttered, 0, index)
        objects = a.segmentation > 0
        np.testing.assert_array_equal(a.segmentation, b.segmentation)
        np.testing.assert_array_equal(a.image[objects], b.image[objects])


def test_fashion_mnist_from_idx_files(tmp_path):
    """Breaks if the IDX header is misread, the parts are not joined, or the classifier that comes
    with the project counts the classes in another order."""
    rng = np.random.default_rng(0)
    images = {part: rng.integers(0, 256, (3, 28, 28), np.uint8) for part in ("train", "t10k")}
    for part, pixels in images.items():
        header = b"\0\0\x08\x03" + struct.pack(">III", 3, 28, 28)
        file = tmp_path / f"{part}-images-idx3-ubyte.gz"
        file.write_bytes(gzip.compress(header + pixels.tobytes()))
        header = b"\0\0\x08\x01" + struct.pack(">I", 3)
        file = tmp_path / f"{part}-labels-idx1-ubyte.gz"
        file.write_bytes(gzip.compress(header + bytes([0, 5, 9])))
    objects = scenes.fashion_mnist(str(tmp_path))
    np.testing.assert_array_equal(objects.classes, [0, 5, 9, 0, 5, 9])
    np.testing.assert_allclose(objects.images[3:] * 255, images["t10k"], atol=1e-4)
    assert objects.names == pretrained.load(str(ROOT / "models/fashion_vit")).labels
    with pytest.raises(FileNotFoundError, match="train-images"):
        scenes.fashion_mnist(str(tmp_path / "nowhere"))


def save_cutouts(directory, per_class: int = 10, backgrounds: int = 10) -> None:
    """Opaque discs of one colour a class, on transparent canvases, and flat grey backgrounds."""
    rows, columns = np.indices((40, 60))
    disc = (rows - 20) ** 2 + (columns - 25) ** 2 < 15**2
    for name, colour in (("red", (255, 0, 0)), ("blue", (0, 0, 255))):
        folder = directory / "objects" / name
        folder.mkdir(parents=True)
        for i in range(per_class):
            picture = np.zeros((40, 60, 4), np.uint8)
            picture[disc] = (*colour, 255)
            picture[disc & (rows == 20), 1] = i  # told apart by their middle line
            Image.fromarray(picture).save(folder / f"{i}.png")
    (directory / "backgrounds").mkdir()
    for i in range(backgrounds):
        Image.new("RGB", (300, 260), (100 + i,) * 3).save(directory / "backgrounds" / f"{i}.png")


def test_cutouts_are_pasted_where_their_masks_say(tmp_path):
    """Breaks if colours, opacity or the transparent margin of a cut-out are lost on the way."""
    save_cutouts(tmp_path)
    objects = scenes.cutouts(tmp_path, 64)
    assert objects.names == ("blue", "red") and objects.images.shape == (20, 64, 64, 4)
    plain = scenes.Layout(fragments=(0, 1), pair_fraction=1.0)
    for index in range(10):
        scene = scenes.draw(objects, plain, 0, index)
        image, classes = scene.image.astype(int), scene.segmentation
        assert (np.ptp(image[classes == 0], axis=-1) < 80).all()  # grey, but for soft edges
        for label, channel in ((0, 2), (1, 0)):
            inside = image[classes == 1 + label]
            assert (inside[:, channel] > inside[:, 2 - channel] + 60).mean() > 0.95
            rows, columns = np.nonzero(classes == 1 + label)
            side = np.ptp(rows) + 1  # cut to the disc: it fills its square as a disc does
            assert abs(len(rows) / side**2 - np.pi / 4) < 0.08 and np.ptp(columns) + 1 >= side - 2


def test_splits_of_cutouts_share_no_object_and_no_background(tmp_path):
    """Breaks if a background of the test split was seen in training."""
    save_cutouts(tmp_path)
    objects = scenes.cutouts(tmp_path, 64)
    parts = [scenes.split_objects(objects, split) for split in scenes.SPLITS]
    for kind in ("images", "backgrounds"):
        as_bytes = [{picture.tobytes() for picture in getattr(part, kind)} for part in parts]
        assert all(as_bytes)
        assert len(set.union(*as_bytes)) == sum(map(len, as_bytes))


def test_cutouts_say_what_is_missing(tmp_path):
    """Breaks if a wrong folder, or a picture without transparency, is drawn from."""
    with pytest.raises(ValueError, match="0 objects of 0 classes and 0 backgrounds"):
        scenes.cutouts(tmp_path, 64)
    save_cutouts(tmp_path)
    Image.new("RGB", (8, 8)).save(tmp_path / "objects" / "red" / "0.png")
    with pytest.raises(ValueError, match="0.png is not a cut-out"):
        scenes.cutouts(tmp_path, 64)
    with pytest.raises(ValueError, match="do not fit side by side into 64"):
        scenes.Layout(large=(30, 41), small=(20, 31))
