"""Pictures as people have them, to what a predictor reads."""

import os
from collections.abc import Iterable
from typing import Any

import numpy as np
from PIL import Image

from fex_jax.checks import printable
from fex_jax.data.decode import Picture, decode
from fex_jax.preprocessing import Preprocessing


def as_list(images: Any) -> list[Picture]:
    """One entry a picture, of one picture or many; a batch array is split along its first axis.

    Raises:
      ValueError: an array that is neither [H, W, 3] nor [B, H, W, 3]; no pictures at all.
    """
    single = str | os.PathLike | bytes | bytearray | memoryview | Image.Image
    if isinstance(images, single) or hasattr(images, "read"):
        return [images]
    if hasattr(images, "__array__"):
        array = images if isinstance(images, np.ndarray) else np.asarray(images)
        if array.ndim not in (3, 4):
            raise ValueError(
                f"an array of shape {array.shape} is no image: expected [H, W, 3] or [B, H, W, 3]"
            )
        images = array[None] if array.ndim == 3 else array
    if not isinstance(images, Iterable):
        raise ValueError(
            f"{type(images).__name__} is no picture: expected paths, bytes, binary files, PIL "
            "images or arrays, one or a list"
        )
    listed = list(images)
    if not listed:
        raise ValueError("there are no images to explain: the batch is empty")
    return listed


def prepare(picture: Picture, where: str, preprocessing: Preprocessing) -> np.ndarray:
    """A picture as float32 [S, S, 3] in 0..255, before normalisation; `where` names it.

    Arrays that have the predictor's input size are taken as they are.

    Raises:
      ValueError: names the picture that cannot be used, and why.
    """
    if isinstance(picture, str | os.PathLike):
        where = f"{where} ({printable(picture)})"
    pixels = decode(picture, where)  # [H, W, 3]
    side = preprocessing.image_size
    if not (hasattr(picture, "__array__") and pixels.shape[:2] == (side, side)):
        pixels = preprocessing.resize(Image.fromarray(pixels), where)
    return pixels.astype(np.float32)
