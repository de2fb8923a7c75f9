"""Resizing and cropping of pictures inside of exported files, as `Preprocessing.resize` has it.

Pillow resamples one axis after the other, by a kernel as wide as the pixels of the smaller picture,
and rounds to 8 bits after each. So does what is written here, width first. Pillow 13 takes the axis
first that costs less: where a picture is stretched along one and shrunk along the other, single
pixels differ by more than a level.
"""

from typing import Any

import jax
import jax.numpy as jnp
from PIL import Image

from fex_jax.models import sides
from fex_jax.preprocessing import Preprocessing

# Pillow's kernels that both JAX and ONNX have, by ONNX's names: of cubic ones, Keys' with a = −0.5.
KERNELS: dict[int, str] = {Image.Resampling.BILINEAR: "linear", Image.Resampling.BICUBIC: "cubic"}


def check(preprocessing: Preprocessing) -> None:
    """Raises a ValueError where a file cannot do what is to be done."""
    if preprocessing.do_resize and preprocessing.resample not in KERNELS:
        raise ValueError(
            f"resize: this classifier's pictures are resized by Pillow's resample "
            f"{Image.Resampling(preprocessing.resample).name}, and files do BILINEAR and BICUBIC: "
            "leave resize out, and resize before"
        )


def in_jax(pixels: jax.Array, preprocessing: Preprocessing) -> jax.Array:
    """Pixels uint8 [B, H, W, 3] → uint8 [B, *sides, 3]; H and W may be symbolic."""
    given = [jnp.asarray(side) for side in pixels.shape[1:3]]
    sizes: Any = given
    if preprocessing.do_resize:
        size, shortest = preprocessing.size, jnp.minimum(*given)
        sizes = [size * n // shortest for n in given] if isinstance(size, int) else size
    found = pixels.astype(jnp.float32)
    for axis in (2, 1):
        size, side = jnp.asarray(sizes[axis - 1]), preprocessing.sides[axis - 1]
        found = jax.image.scale_and_translate(
            found,
            (*found.shape[:axis], side, *found.shape[axis + 1 :]),
            (axis,),
            scale=(size / given[axis - 1])[None].astype(jnp.float32),
            translation=-((size - side) // 2)[None].astype(jnp.float32),  # nothing is 0, black
            method=KERNELS.get(preprocessing.resample, "linear"),
        )
        found = jnp.clip(jnp.floor(found + 0.5), 0, 255)
    return found.astype(jnp.uint8)


def in_onnx(preprocessing: Preprocessing, resized: str) -> str:
    """The same as a graph in ONNX's own text: of `pixels` of any size it makes `resized`."""
    height, width = preprocessing.sides
    size = preprocessing.size
    if not preprocessing.do_resize:
        steps = "sizes = Identity (given)\n whole = Identity (pixels)"
    else:
        shortest = f"""
            shortest = ReduceMin <keepdims = 1> (given)
            edge = Constant <value_ints = [{size}]> ()
            longer = Mul (given, edge)
            sizes = Div (longer, shortest)"""
        exact = f"sizes = Constant <value_ints = {list(sides(size))}> ()"
        steps = f"""
            {shortest if isinstance(size, int) else exact}
            batch_size = Shape <start = 0, end = 1> (pixels)
            three = Constant <value_ints = [3]> ()
            shape = Concat <axis = 0> (batch_size, sizes, three)
            whole = Resize <mode = "{KERNELS[preprocessing.resample]}", antialias = 1,
                cubic_coeff_a = -0.5, exclude_outside = 1> (pixels, "", "", shape)"""
    return f"""resizing (uint8[batch, height, width, 3] pixels)
        => (uint8[batch, {height}, {width}, 3] {resized}) {{
            given = Shape <start = 1, end = 3> (pixels)
            {steps}
            none = Constant <value_ints = [0, 0]> ()
            two = Constant <value_ints = [2]> ()
            axes = Constant <value_ints = [1, 2]> ()
            wanted = Constant <value_ints = [{height}, {width}]> ()
            more = Sub (sizes, wanted)
            excess = Max (more, none)
            start = Div (excess, two)
            end = Add (start, wanted)
            less = Neg (more)
            missing = Max (less, none)
            after = Div (missing, two)
            before = Sub (missing, after)
            margins = Concat <axis = 0> (before, after)
            black = Constant <value = uint8 {{0}}> ()
            padded = Pad (whole, margins, black, axes)
            {resized} = Slice (padded, start, end, axes)
        }}"""
