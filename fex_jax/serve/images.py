"""Pictures over HTTP: base64 or arrays in, maps out."""

import base64
import binascii
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from fex_jax import escape
from fex_jax.data import decode
from fex_jax.modalities import images
from fex_jax.serve.found import Found
from fex_jax.serve.kserve import EACH, Tensor

FIELD = "images"
INPUTS = Tensor("images", "BYTES", EACH), Tensor("pixels", "UINT8", ((-1, -1, -1, 3),))
OUTPUTS: tuple[Tensor, ...] = ()  # beside those of all modalities
_MAX_PIXELS = 2**25  # of a picture; four bytes each while it is read


def read(explainer: Any, given: Any, where: str, shown: bool = False) -> np.ndarray:
    """What f sees of a picture, uint8 [H, W, 3]: of base64, a data URL, or [H, W, 3] as lists.

    With `shown` it is what `shown` gave, and is not resized and cropped again.

    Raises:
      ValueError: says what is wrong with it.
    """
    if isinstance(given, str):
        try:
            content = base64.b64decode(given.partition(",")[2] or given, validate=True)
        except (binascii.Error, ValueError):
            raise ValueError(f"{where} is no base64 of a picture's file") from None
        _check_size(content, where)
        picture: Any = decode.decode(content, where) if shown else content
    else:
        picture = _array(given, where)
    try:
        return images.read(explainer, picture)
    except ValueError as error:
        raise ValueError(str(error).replace("image 0", where, 1)) from None


def _check_size(content: bytes, where: str) -> None:
    try:
        with Image.open(io.BytesIO(content)) as image:
            width, height = image.size
    except Exception:  # said by whoever decodes it
        return
    if width * height > _MAX_PIXELS:
        raise ValueError(
            f"{where} has {width} × {height} pixels; at most {_MAX_PIXELS:,} are read here"
        )


def _array(given: Any, where: str) -> np.ndarray:
    try:
        array = np.asarray(given)
        fits = array.ndim == 3 and array.shape[-1] == 3 and array.dtype.kind in "iu"
        if fits and array.min() >= 0 and array.max() <= 255:
            return array.astype(np.uint8)
    except ValueError:  # rows of several lengths, or none
        pass
    raise ValueError(f"{where} is no picture: expected base64, or [H, W, 3] of 0 to 255")


def explain(
    explainer: Any, things: Sequence[np.ndarray], targets: list[Any] | None, top_k: int
) -> list[Found]:
    """Maps of the targets, or of the `top_k` most probable classes of each."""
    pixels, shape = np.stack(things), (len(things), top_k)
    chosen: dict[str, Any] = {"top_k": top_k} if targets is None else {"targets": targets}
    result = explainer(pixels, **chosen, progress=False)
    maps, logits = (
        x.reshape(*shape, *explainer.grid) for x in (result.attributions, result.logits)
    )
    classes = result.targets.reshape(shape)
    return [Found(*row) for row in zip(classes, maps, logits, result.probabilities, strict=True)]


def sizes(explainer: Any) -> tuple[int, ...]:
    """Of a map."""
    return explainer.grid


def batch(explainer: Any, thing: np.ndarray) -> np.ndarray:
    """One picture as a batch."""
    return thing[None].astype(np.float32)


def shown(explainer: Any, thing: np.ndarray) -> dict[str, Any]:
    """The picture that maps are to be laid over, as a data URL."""
    file = io.BytesIO()
    Image.fromarray(thing).save(file, "PNG")
    return {"picture": escape.url(file.getvalue())}
