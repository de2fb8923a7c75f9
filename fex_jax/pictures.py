"""Pictures as people have them, to what a predictor reads."""

import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from fex_jax.preprocessing import Preprocessing

Picture = str | pathlib.Path | Image.Image | np.ndarray | jax.Array


def as_list(images: Any) -> list[Picture]:
    """One entry a picture; a batch array is split along its first axis."""
    if isinstance(images, str | pathlib.Path | Image.Image):
        return [images]
    if isinstance(images, np.ndarray | jax.Array):
        if images.ndim not in (3, 4):
            raise ValueError(
                f"an array of shape {images.shape} is no image: expected [H, W, 3] or [B, H, W, 3]"
            )
        images = np.asarray(images)
        images = images[None] if images.ndim == 3 else images
    pictures = list(images)
    if not pictures:
        raise ValueError("there are no images to explain: the batch is empty")
    return pictures


def prepare(picture: Picture, where: str, preprocessing: Preprocessing) -> np.ndarray:
    """A picture as float32 [S, S, 3] in 0..255, before normalisation; `where` names it."""
    if isinstance(picture, str | pathlib.Path):
        where = f"{where} ({picture})"
        try:
            with Image.open(picture) as file:
                picture = file.convert("RGB")
        except FileNotFoundError:
            raise ValueError(f"{where}: there is no such file") from None
        except (OSError, SyntaxError, ValueError) as error:
            raise ValueError(f"{where} cannot be read as an image: {error}") from error
    if isinstance(picture, Image.Image):
        return preprocessing.resize(picture).astype(np.float32)
    pixels = _pixels(np.asarray(picture), where)
    side = preprocessing.image_size
    if pixels.shape[:2] == (side, side):
        return pixels
    return preprocessing.resize(Image.fromarray(np.round(pixels).astype(np.uint8))).astype(
        np.float32
    )


def _pixels(array: np.ndarray, where: str) -> np.ndarray:
    """Checks one image [H, W, 3] of uint8 or of floats in [0, 1]; float32 in 0..255."""
    if array.ndim != 3 or array.shape[-1] != 3 or 0 in array.shape:
        raise ValueError(f"{where} has shape {array.shape}; expected [H, W, 3], channels last")
    if array.dtype == np.uint8:
        return array.astype(np.float32)
    if not np.issubdtype(array.dtype, np.floating) and array.dtype != jnp.bfloat16:
        raise ValueError(f"{where} has dtype {array.dtype}; expected uint8, or floats in [0, 1]")
    array = array.astype(np.float32)
    if not np.isfinite(array).all():
        raise ValueError(f"{where} holds NaN or infinite values")
    if array.min() < 0 or array.max() > 1:
        raise ValueError(
            f"{where} has floats from {array.min():.3g} to {array.max():.3g}; expected [0, 1]. "
            "Normalisation is done here: pass pixels, uint8 or divided by 255"
        )
    return array * 255
