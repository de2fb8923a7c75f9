"""One way from a file, an image or an array to pixels, for training, scoring and explaining."""

import io
import os
from collections.abc import Sequence
from typing import Any, BinaryIO

import jax
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from fex_jax import escape

Picture = str | os.PathLike | bytes | BinaryIO | Image.Image | np.ndarray | jax.Array
_ENDINGS = (
    ".jpg .jpeg .jpe .jfif .png .bmp .gif .webp .tif .tiff .avif .jp2 .j2k .jpx .ppm .pgm .pbm .pnm"
)
SUFFIXES = frozenset(_ENDINGS.split()) & Image.registered_extensions().keys()  # that PIL here reads
MAX_PIXELS = 2**27  # of one picture: 512 MiB at the four bytes that PIL takes for each
_HALF_LEVEL = 0.5 / 255  # what rounding to eight bits forgives
_FROM_16_BITS = ((np.arange(2**16) + 128) // 257).astype(np.uint8)  # 65535 = 257 · 255


def decode(picture: Picture, where: str = "picture") -> np.ndarray:
    """Pixels of a picture, uint8 [H, W, 3], upright.

    Equal to transformers' `load_image`: an EXIF orientation is applied, PIL converts to RGB, alpha
    is dropped, and of an animation the first frame is read. Grey of 16 bits (PIL's I;16 and I) is
    divided by 257 and grey floats (F) are multiplied by 255, where PIL's conversion would clip.

    Args:
      picture: a path, a file's content or an open binary file, a PIL image, or an array [H, W, 3],
        of a grey one [H, W] or [H, W, 1], of uint8 or of floats in [0, 1].
      where: what errors call it.

    Raises:
      ValueError: names the picture that cannot be read, and why.
    """
    if isinstance(picture, str | os.PathLike):
        where = f"{where} ({escape.terminal(os.fsdecode(picture)) or 'an empty path'})"
        if os.path.isdir(picture):
            raise ValueError(
                f"{where} is a folder and no picture: give its files, as "
                'sorted(pathlib.Path(folder).glob("*.jpg")) lists them'
            )
        if not os.path.isfile(picture):  # of a pipe or a device, reading might not end
            raise ValueError(f"{where}: there is no such file")
        try:
            file = open(picture, "rb")
        except OSError as error:
            raise _unreadable(where, error) from error
        with file:  # by its path, PIL would map some TIFF files into memory, and not turn them
            return _from_file(file, where)
    if isinstance(picture, bytes | bytearray | memoryview):
        return _from_file(io.BytesIO(picture), where)
    if hasattr(picture, "read"):
        return _from_file(picture, where)
    if not isinstance(picture, Image.Image):
        return _from_array(picture, where)
    _check_size(picture, where)
    try:
        upright = ImageOps.exif_transpose(picture)
    except Exception as error:  # an image that is yet to be read from its file
        raise _unreadable(where, error) from error
    return _from_pil(upright, where)


def _from_file(file: BinaryIO, where: str) -> np.ndarray:
    try:
        image = Image.open(file)
    except UnidentifiedImageError:
        raise ValueError(
            f"{where} cannot be read as an image: PIL knows no format that begins like this"
        ) from None
    except Exception as error:  # malformed headers make PIL's readers raise anything
        raise _unreadable(where, error) from error
    _check_size(image, where)
    try:
        ImageOps.exif_transpose(image, in_place=True)
    except Exception as error:  # as above, of what follows the header
        raise _unreadable(where, error) from error
    return _from_pil(image, where)


def as_list(pictures: Any) -> list[Picture]:
    """One entry a picture, of one picture or many; a batch array is split along its first axis.

    Raises:
      ValueError: an array of none of the forms [H, W], [H, W, C] and [B, H, W, C], and nothing
        at all.
    """
    one = str | os.PathLike | bytes | bytearray | memoryview | Image.Image
    if isinstance(pictures, one) or hasattr(pictures, "read"):
        return [pictures]
    if hasattr(pictures, "__array__"):
        array = _as_array(pictures, "the batch")
        if array.ndim not in (2, 3, 4):
            raise ValueError(
                f"an array of shape {array.shape} is no image: expected [H, W, 3] or [B, H, W, 3]"
            )
        pictures = array if array.ndim == 4 else array[None]
    elif not isinstance(pictures, Sequence):
        raise ValueError(
            f"{type(pictures).__name__} is no picture: expected paths, bytes, binary files, PIL "
            "images or arrays, one or a list"
        )
    if not len(pictures):
        raise ValueError("there are no images to explain: the batch is empty")
    return list(pictures)


def _check_size(image: Image.Image, where: str) -> None:
    width, height = image.size
    if width * height == 0:
        raise ValueError(f"{where} has no pixels: it is {width} × {height}")
    if width * height > MAX_PIXELS:
        raise ValueError(
            f"{where} has {width} × {height} pixels; at most {MAX_PIXELS:,} are read: make it "
            "smaller"
        )


def _from_pil(image: Image.Image, where: str) -> np.ndarray:
    """Pixels of an image that is upright already."""
    if image.mode == "F":
        grey = _eight_bits(np.asarray(image), where)
    elif image.mode.startswith("I"):
        grey = _from_integers(np.asarray(image), where)
    else:
        try:
            return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))
        except ValueError as error:  # a mode of which PIL knows no colours
            raise _unreadable(where, error) from error
    return np.repeat(grey[..., None], 3, axis=-1)


def _from_integers(values: np.ndarray, where: str) -> np.ndarray:
    """Grey of 16 bits, in 16 or in 32, as uint8."""
    least, most = int(values.min()), int(values.max())
    if least < 0 or most > 65535:
        raise ValueError(
            f"{where} has grey values from {least} to {most}; expected 16 bits, 0 to 65535"
        )
    if values.itemsize > 2 and 0 < most < 256:
        raise ValueError(
            f"{where} has 32-bit grey values of at most {most}, so that 8 and 16 bits cannot be "
            'told apart: convert it to mode "L", or multiply it by 257'
        )
    return _FROM_16_BITS[values]


def _from_array(picture: Any, where: str) -> np.ndarray:
    if not hasattr(picture, "__array__"):
        raise ValueError(
            f"{where} is of type {type(picture).__name__}; expected a path, bytes, a binary file, "
            "a PIL image or an array"
        )
    if np.ma.is_masked(picture):
        raise ValueError(f"{where} is an array with masked values; choose them with .filled(value)")
    array = _as_array(picture, where)
    grey = array.ndim == 2 or array.shape[2:] == (1,)
    if not (grey or array.shape[2:] == (3,)) or 0 in array.shape:
        raise ValueError(
            f"{where} has shape {array.shape}; expected [H, W, 3], channels last, or of a grey one "
            "[H, W] or [H, W, 1], of a batch of them [B, H, W, 1]"
        )
    if grey:
        array = np.repeat(array.reshape(*array.shape[:2], 1), 3, -1)
    if array.dtype == np.uint8:
        return array
    if not jax.dtypes.issubdtype(array.dtype, np.floating):
        raise ValueError(f"{where} has dtype {array.dtype}; expected uint8, or floats in [0, 1]")
    return _eight_bits(array, where)


def _as_array(picture: Any, where: str) -> np.ndarray:
    """A NumPy array, masked if it was, of whatever gives one."""
    try:
        return picture if isinstance(picture, np.ndarray) else np.asarray(picture)
    except Exception as error:  # as of a tensor of torch's that wants gradients
        raise ValueError(f"{where} cannot be read as an array: {error}") from error


def _eight_bits(values: np.ndarray, where: str) -> np.ndarray:
    """Floats in [0, 1] to the nearest of 256 levels."""
    values = values.astype(np.float32)
    least, most = values.min(), values.max()
    if not np.isfinite([least, most]).all():
        raise ValueError(f"{where} holds NaN or infinite values")
    if least < -_HALF_LEVEL or most > 1 + _HALF_LEVEL:
        raise ValueError(
            f"{where} has floats from {least:.3g} to {most:.3g}; expected [0, 1]. "
            "Normalisation is done here: pass pixels, uint8 or divided by 255"
        )
    return np.rint(values.clip(0, 1) * 255).astype(np.uint8)


def _unreadable(where: str, error: Exception) -> ValueError:
    reason = escape.terminal(" ".join(str(error).split())) or type(error).__name__
    return ValueError(f"{where} cannot be read as an image: {reason}")
