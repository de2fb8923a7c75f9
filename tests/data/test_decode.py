"""The one decoder, against transformers' own and against pixels known in advance."""

import io
import struct
import zlib

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageOps, features

from fex_jax.data.decode import MAX_PIXELS, SUFFIXES, decode

GREY = np.arange(12 * 16, dtype=np.uint8).reshape(12, 16)
RGB = np.stack([GREY, GREY[::-1], 255 - GREY], -1)
FORMATS = {
    "JPEG": ("RGB", "L", "CMYK", "YCbCr"),
    "PNG": ("RGB", "RGBA", "L", "LA", "P", "1"),
    "BMP": ("RGB", "L", "P", "1"),
    "GIF": ("P", "L"),
    "WEBP": ("RGB", "RGBA"),
    "TIFF": ("RGB", "RGBA", "L", "LA", "P", "1", "CMYK", "YCbCr", "LAB"),
}


def _theirs(source):
    load_image = pytest.importorskip("transformers.image_utils").load_image
    return np.asarray(load_image(source))


def _encoded(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize("kind, mode", [(k, m) for k, modes in FORMATS.items() for m in modes])
@pytest.mark.parametrize("orientation", [None, 6])
def test_equals_transformers(kind, mode, orientation, tmp_path):
    """Breaks if a predictor sees other pixels here than in transformers' pipeline."""
    image = Image.fromarray(RGB)
    if mode == "LAB":
        image = Image.fromarray(RGB).convert("YCbCr").convert("RGB")
        image = Image.merge("LAB", image.split())
    else:
        image = image.convert(mode)
    exif = Image.Exif()
    options = {}
    if orientation and kind not in ("BMP", "GIF"):
        exif[0x0112] = orientation
        options["exif"] = exif
    path = tmp_path / f"picture.{kind.lower()}"
    path.write_bytes(_encoded(image, kind, **options))
    pixels = decode(path)
    assert pixels.dtype == np.uint8 and pixels.shape[-1] == 3
    assert pixels.shape[:2] == ((16, 12) if options else (12, 16))
    # By its path, PIL does not turn some TIFF files.
    np.testing.assert_array_equal(pixels, _theirs(Image.open(io.BytesIO(path.read_bytes()))))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_photos_are_upright(orientation):
    """Breaks if one of the eight EXIF orientations is explained as it is stored.

    PIL's `transpose` undoes each by the operation that the EXIF standard names.
    """
    stored = {
        1: [], 2: [Image.Transpose.FLIP_LEFT_RIGHT], 3: [Image.Transpose.ROTATE_180],
        4: [Image.Transpose.FLIP_TOP_BOTTOM], 5: [Image.Transpose.TRANSPOSE],
        6: [Image.Transpose.ROTATE_90], 7: [Image.Transpose.TRANSVERSE],
        8: [Image.Transpose.ROTATE_270],
    }[orientation]  # fmt: skip
    image = Image.fromarray(RGB)
    for step in stored:
        image = image.transpose(step)
    exif = Image.Exif()
    exif[0x0112] = orientation
    np.testing.assert_array_equal(decode(_encoded(image, "PNG", exif=exif)), RGB)


def test_deep_grey_is_scaled():
    """Breaks if an X-ray of 16 bits or a depth map of floats becomes white or black."""
    expected = np.repeat(GREY[..., None], 3, -1)
    sixteen = GREY.astype(np.uint16) * 257
    big = Image.frombytes("I;16B", (16, 12), sixteen.astype(">u2").tobytes())
    assert (Image.fromarray(sixteen).mode, big.mode) == ("I;16", "I;16B")
    for image in (
        Image.fromarray(sixteen),
        big,
        Image.fromarray(sixteen.astype(np.int32)),
        Image.fromarray(GREY.astype(np.float32) / 255),
        _encoded(Image.fromarray(sixteen), "PNG"),
        _encoded(Image.fromarray(sixteen), "TIFF"),
        _encoded(Image.fromarray(sixteen.astype(np.int32)), "TIFF"),
        _encoded(Image.fromarray(GREY.astype(np.float32) / 255), "TIFF"),
    ):
        np.testing.assert_array_equal(decode(image), expected)
    # The nearest of 256 levels: 385.5 is half way between 257 and 514.
    nearest = Image.fromarray(np.array([[0, 128, 129, 385, 386, 65535]], np.uint16))
    assert decode(nearest)[0, :, 0].tolist() == [0, 0, 1, 1, 2, 255]


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_animations_show_their_first_frame(kind):
    """Breaks if an animation is a batch, or its last frame is explained."""
    frames = [Image.new("RGB", (16, 12), colour) for colour in ("red", "lime", "blue")]
    options = {"lossless": True} if kind == "WEBP" else {}
    encoded = _encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert getattr(Image.open(io.BytesIO(encoded)), "n_frames", 1) == 3
    np.testing.assert_array_equal(decode(encoded), np.full((12, 16, 3), (255, 0, 0)))


def test_all_kinds_of_sources_give_the_same_pixels(tmp_path):
    """Breaks if bytes, open files, paths, images and arrays of one picture are told apart."""
    path = tmp_path / "a.PNG"
    path.write_bytes(_encoded(Image.fromarray(RGB), "PNG"))
    floats = RGB / np.float64(255)
    with path.open("rb") as file:
        sources = [
            path, str(path), file, path.read_bytes(), bytearray(path.read_bytes()),
            Image.open(path), RGB, jnp.asarray(RGB), floats, floats.astype(np.float32),
            floats * (1 + 1e-6), np.ma.masked_array(RGB), jnp.asarray(floats, jnp.float32),
        ]  # fmt: skip
        for source in sources:
            np.testing.assert_array_equal(decode(source), RGB)


def _huge_png(width, height):
    """The header of a PNG of any size, and no pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + b"IHDR" + header
    crc = struct.pack(">I", zlib.crc32(b"IHDR" + header))
    return b"\x89PNG\r\n\x1a\n" + chunk + crc + struct.pack(">I", 9) + b"IDAT"


_WHOLE = {kind: _encoded(Image.fromarray(RGB).resize((64, 64)), kind) for kind in FORMATS}


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(
    "source, message",
    [
        (b"", "cannot be read as an image"),
        (b"no image", "PIL knows no format"),
        (_WHOLE["PNG"][:200], "cannot be read"),
        (_WHOLE["JPEG"][:300], "cannot be read"),
        (_WHOLE["TIFF"][:-900], "cannot be read"),
        (_WHOLE["WEBP"][:100], "cannot be read"),
        (_WHOLE["BMP"][:500], "cannot be read"),
        (_huge_png(2**15, 2**15), "cannot be read.*decompression bomb"),
        (_huge_png(12_000, 12_000), f"12000 × 12000 pixels; at most {MAX_PIXELS:,}"),
        ("missing.png", "there is no such file"),
        (".", r"\(\.\) is a folder and no picture: give its files"),
        ("", "an empty path.*there is no such file"),
        ("/dev/zero", "there is no such file"),
        ("a\0b", "there is no such file"),
        (Image.new("RGB", (0, 0)), "no pixels: it is 0 × 0"),
        (Image.fromarray(np.full((2, 2), 70_000, np.int32)), "grey values from 70000 to 70000"),
        (Image.fromarray(np.full((2, 2), -1, np.int32)), "grey values from -1"),
        (Image.fromarray(GREY.astype(np.int32)), "8 and 16 bits cannot be told apart"),
        (Image.fromarray(GREY.astype(np.float32)), "floats from 0 to 191"),
        (Image.fromarray(np.full((2, 2), np.nan, np.float32)), "NaN"),
        (np.zeros((2, 2, 2)), r"shape \(2, 2, 2\)"),
        (np.zeros(2), r"shape \(2,\)"),
        (np.zeros((0, 2, 3)), "shape"),
        (np.zeros((2, 2, 3), bool), "dtype bool"),
        (np.zeros((2, 2, 3), np.uint16), "dtype uint16"),
        (np.zeros((2, 2, 3), complex), "dtype complex"),
        (np.full((2, 2, 3), 1.01), "floats from 1.01"),
        (np.ma.masked_equal(RGB, 7), "masked"),
        (None, "of type NoneType"),
        (7, "of type int"),
    ],
)
def test_what_cannot_be_decoded_is_one_sentence_with_its_name(source, message):
    """Breaks if a stranger's file ends in PIL's traceback, or takes memory without bound."""
    with pytest.raises(ValueError, match=message) as error:
        decode(source, "image 7 (x.png)")
    assert str(error.value).startswith("image 7 (x.png)") and "\n" not in str(error.value)


@pytest.mark.parametrize("array", [GREY, GREY[..., None], GREY / np.float32(255)])
def test_a_grey_array_is_its_grey_picture(array):
    """Breaks if an array without colours is read in another way than PIL's image of it."""
    np.testing.assert_array_equal(decode(array), decode(Image.fromarray(GREY)))


def test_transformers_reads_deep_grey_wrongly_still():
    """Breaks if the exception to equality is not needed any more."""
    image = Image.fromarray(np.full((2, 2), 1000, np.uint16))
    assert (_theirs(image) == 255).all() and (decode(image) == 4).all()


def test_suffixes_are_of_formats_that_pil_reads(tmp_path):
    """Breaks if a listed ending is of no reader, or what PIL here reads is not listed."""
    for suffix in SUFFIXES:
        Image.new("RGB", (8, 6)).save(tmp_path / f"a{suffix}")
        assert decode(tmp_path / f"a{suffix}").shape == (6, 8, 3)
    assert {".jpg", ".png", ".tiff", ".jp2", ".ppm"} <= SUFFIXES
    assert (".avif" in SUFFIXES) == bool(features.check("avif"))
    assert ImageOps.exif_transpose(Image.new("RGB", (1, 1))) is not None
