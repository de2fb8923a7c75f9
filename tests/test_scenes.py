"""Scenes: deterministic, split by source object, with exact masks."""

import gzip
import struct

import numpy as np
import pytest

from fex_jax import scenes

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


def test_splits_share_no_handwriting():
    """Breaks if a digit of the test split could have been seen in training."""
    parts = [scenes.split_objects(DIGITS, split).images for split in scenes.SPLITS]
    assert sum(map(len, parts)) == len(DIGITS.labels) == 1797
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
    """Breaks if the IDX header is misread or the parts are not joined."""
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
    np.testing.assert_array_equal(objects.labels, [0, 5, 9, 0, 5, 9])
    np.testing.assert_allclose(objects.images[3:] * 255, images["t10k"], atol=1e-4)
    with pytest.raises(FileNotFoundError, match="train-images"):
        scenes.fashion_mnist(str(tmp_path / "nowhere"))
