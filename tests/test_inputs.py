"""What may come at the door of an explainer of images: right, or named."""

import io
import os
import pathlib

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from fex_jax import explain

PIXELS = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)


@pytest.fixture(scope="module")
def explainer() -> explain.Explainer:
    return explain.load("models/digits_fex")


class Path(os.PathLike):
    """A path that is neither a string nor pathlib's."""

    def __init__(self, path: pathlib.Path):
        self.path = path

    def __fspath__(self) -> str:
        return str(self.path)


def test_every_form_of_a_picture_is_the_same_picture(explainer, tmp_path):
    """Breaks if a file's content, an open file, a path or another array reads otherwise."""
    path = tmp_path / "image.png"
    Image.fromarray(PIXELS).save(path)
    frozen = PIXELS.copy()
    frozen.flags.writeable = False
    unit = PIXELS / 255
    beyond = unit + np.where(unit > 0.5, 1e-7, -1e-7)  # as resizing in floats overshoots
    forms = [
        PIXELS, path.read_bytes(), bytearray(path.read_bytes()), memoryview(path.read_bytes()),
        io.BytesIO(path.read_bytes()), path, str(path), Path(path), frozen, PIXELS[::-1][::-1],
        np.ma.masked_array(PIXELS), jnp.asarray(PIXELS), unit, unit.astype(np.float32), beyond,
    ]  # fmt: skip
    with path.open("rb") as file:
        found = explainer([*forms, file], batch_size=4).logits
    for other in found[1:]:
        np.testing.assert_array_equal(other, found[0])
    half = explainer((PIXELS / 255).astype(np.float16), batch_size=4).logits  # within half a level
    np.testing.assert_allclose(half[0], found[0], atol=0.05)


def test_a_tensor_of_torch(explainer):
    """Breaks if torch's axes are guessed, or its own error comes out."""
    torch = pytest.importorskip("torch")
    tensor = torch.from_numpy(PIXELS)
    expected = explainer(PIXELS, batch_size=1).logits
    np.testing.assert_array_equal(explainer(tensor, batch_size=1).logits, expected)
    with pytest.raises(ValueError, match=r"image 0 has shape \(3, 64, 64\).*channels last"):
        explainer(tensor.permute(2, 0, 1)[None])
    with pytest.raises(ValueError, match="cannot be read as an array: .*requires grad"):
        explainer((tensor / 255).requires_grad_())


@pytest.mark.parametrize(
    "images, message",
    [
        ([PIXELS, PIXELS[0, 0]], r"image 1 has shape \(3,\); expected \[H, W, 3\]"),
        (PIXELS[..., :2], r"image 0 has shape \(64, 64, 2\)"),
        (np.zeros((64, 64, 4), np.uint8), r"image 0 has shape \(64, 64, 4\)"),
        (np.ma.masked_array(PIXELS, PIXELS > 9), "image 0 is an array with masked values"),
        (PIXELS.astype(object), "image 0 has dtype object"),
        (PIXELS / 255 + 0.01, r"image 0 has floats from 0.01 to 1.01; expected \[0, 1\]"),
        ([b""], "image 0 cannot be read as an image"),
        ([None], "image 0 is of type NoneType"),
        (None, "NoneType is no picture"),
        (3, "int is no picture"),
        ({"image": PIXELS}, "dict is no picture"),
        ((PIXELS for _ in range(2)), "generator is no picture"),
        ([[PIXELS]], "image 0 is of type list"),
        ([], "the batch is empty"),
        ("a\x1b[2J.png", r"image 0 \(a\\x1b\[2J.png\): there is no such file"),
        ("a\x00.png", r"image 0 \(a\\x00.png\): there is no such file"),
    ],
)
def test_what_is_no_picture_is_named(explainer, images, message):
    """Breaks if something else gives a map, or an error that does not name it."""
    with pytest.raises(ValueError, match=message):
        explainer(images, batch_size=1)


@pytest.mark.parametrize(
    "targets, message",
    [
        (jnp.float32(6.9), "neither a class number nor a label"),
        (6.0, "neither a class number"),
        (np.nan, "neither a class number"),
        (True, "neither a class number"),
        (np.bool_(True), "neither a class number"),
        (jnp.asarray(True), "neither a class number"),
        ([None], "neither a class number"),
        ([[6]], "neither a class number"),
        ([[1], [2, 3]], "2 targets for 1 images"),
        ({"class": 6}, "neither a class number"),
        (b"6", "neither a class number"),
        (np.ma.masked, "neither a class number"),
        ("six\x1b", r"class 'six\\x1b' is unknown; classes: 0, 1"),
        (10, "class 10 is out of range; expected 0 to 9"),
        (-1, "class -1 is out of range"),
        (10**400, "neither a class number|out of range"),
        ([1, 2], "2 targets for 1 images"),
    ],
)
def test_what_is_no_class_is_named(explainer, targets, message):
    """Breaks if 6.9 or True is cut to a whole number: a plausible map of another class."""
    with pytest.raises(ValueError, match=message):
        explainer(PIXELS, targets, batch_size=1)


@pytest.mark.parametrize(
    "targets", [6, "6", np.uint8(6), jnp.asarray(6), [6], np.array([6]), jnp.asarray([6]), ["6"]]
)
def test_every_form_of_a_class_is_the_same_class(explainer, targets):
    """Breaks if a class number of NumPy or JAX, or a label of digits, is read otherwise."""
    assert explainer(PIXELS, targets, batch_size=1).targets.tolist() == [6]


@pytest.mark.parametrize(
    "options, message",
    [
        ({"refine": 8.0}, "refine is 8.0; expected an integer"),
        ({"refine": "8"}, "refine is '8'"),
        ({"refine": True}, "refine is True"),
        ({"refine": -2}, "refine is -2"),
        ({"refine": None}, "refine is None"),
        ({"refine": 10**9}, "refine is 1000000000"),
        ({"refine": 7}, "expected an even number from 8 on"),
        ({"top_k": 1.0}, "top_k is 1.0"),
        ({"top_k": True}, "top_k is True"),
        ({"top_k": 0}, "top_k is 0; expected an integer from 1 to 10"),
        ({"batch_size": 2.0}, "batch_size is 2.0"),
        ({"batch_size": True}, "batch_size is True"),
        ({"batch_size": "2"}, "batch_size is '2'"),
        ({"resolution": ["patch"]}, "resolution is"),
    ],
)
def test_options_are_whole_numbers_or_named(explainer, options, message):
    """Breaks if an option of another type passes for a number, or ends in JAX."""
    with pytest.raises(ValueError, match=message):
        explainer(PIXELS, **{"batch_size": 1} | options)
