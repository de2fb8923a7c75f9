"""Resizing and cropping of pictures inside of exported files, as `Preprocessing.resize` has it.

Pillow's numbers to the bit: a kernel as wide as the pixels of the smaller picture, weights in
doubles that are then whole multiples of 2⁻²², sums of integers, and 8 bits after each of the two
axes. Here the integers are doubles, too: none comes near 2⁵³, so no sum is rounded.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from PIL import Image

from fex_jax.preprocessing import Preprocessing

_ONE = 2.0**22  # what a weight of 1 is


def _linear(x: jax.Array) -> jax.Array:
    return jnp.maximum(1.0 - x, 0.0)


def _cubic(x: jax.Array) -> jax.Array:
    """Keys' kernel with a = −0.5."""
    near = (1.5 * x - 2.5) * x * x + 1.0
    far = (((x - 5.0) * x + 8.0) * x - 4.0) * -0.5
    return jnp.where(x < 1.0, near, jnp.where(x < 2.0, far, 0.0))


_KERNELS: dict[int, Callable[[jax.Array], jax.Array]] = {
    Image.Resampling.BILINEAR: _linear,
    Image.Resampling.BICUBIC: _cubic,
}


def check(preprocessing: Preprocessing) -> None:
    """Raises a ValueError where a file cannot do what is to be done."""
    if preprocessing.do_resize and preprocessing.resample not in _KERNELS:
        raise ValueError(
            f"resize: this classifier's pictures are resized by Pillow's resample "
            f"{Image.Resampling(preprocessing.resample).name}, and files do BILINEAR and BICUBIC: "
            "leave resize out, and resize before"
        )


@jax.enable_x64(True)
def resized(pixels: jax.Array, preprocessing: Preprocessing) -> jax.Array:
    """Pixels uint8 [B, H, W, 3] → uint8 [B, *sides, 3], jittable; H and W may be symbolic."""
    given = [jnp.asarray(side).astype(float) for side in pixels.shape[1:3]]
    wanted: Any = preprocessing.size if preprocessing.do_resize else given
    if isinstance(wanted, int):
        wanted = [jnp.floor(wanted * n / jnp.minimum(given[0], given[1])) for n in given]
    kernel = _KERNELS.get(preprocessing.resample, _linear)
    rows, columns = (
        _weights(places, given[i], wanted[i] + 0.0, preprocessing.sides[i], kernel)
        for i, places in enumerate(jax.lax.iota(float, n) for n in pixels.shape[1:3])
    )

    def along_height(pixels: jax.Array) -> jax.Array:
        return _rounded(jnp.einsum("oi,bihc->bohc", rows, pixels.astype(float)))

    def along_width(pixels: jax.Array) -> jax.Array:
        return _rounded(jnp.einsum("oi,bhic->bhoc", columns, pixels.astype(float)))

    fewer = [n - size for n, size in zip(given, wanted, strict=True)]
    return jax.lax.cond(  # as Pillow has it: height first where that leaves much less to do
        (fewer[0] > 0.0) & (fewer[0] > 2.0 * fewer[1]),
        lambda pixels: along_width(along_height(pixels)),
        lambda pixels: along_height(along_width(pixels)),
        pixels,
    )


def _weights(
    places: jax.Array, given: Any, size: Any, side: int, kernel: Callable[[jax.Array], jax.Array]
) -> jax.Array:
    """Whole multiples of 2⁻²² that `side` pixels about the centre of `size` take of `given`.

    [side, given]; pixels beyond the edges take nothing, and are black.
    """
    out = jax.lax.iota(float, side)[:, None] + jnp.floor((size - side) / 2.0)
    scale = given / size
    distances = jnp.abs(places + 0.5 - (out + 0.5) * scale)
    shares = kernel(distances / jnp.maximum(scale, 1.0))
    shares = _ONE * (shares / shares.sum(-1, keepdims=True))
    whole = jnp.sign(shares) * jnp.floor(jnp.abs(shares) + 0.5)
    return jnp.where((out >= 0.0) & (out < size), whole, 0.0)


def _rounded(sums: jax.Array) -> jax.Array:
    return jnp.clip(jnp.floor(sums / _ONE + 0.5), 0.0, 255.0).astype(jnp.uint8)
