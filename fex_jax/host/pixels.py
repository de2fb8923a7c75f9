"""uint8 images as a network wants them: scale, mean, deviation, order of the axes."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Layout = str  # "NHWC" or "NCHW"


def preparation(
    mean: Sequence[float] | float = 0.0,
    std: Sequence[float] | float = 1.0,
    scale: float = 1 / 255,
    layout: Layout = "NCHW",
) -> Callable[[np.ndarray], np.ndarray]:
    """uint8 [B, H, W, C] → float32 (x · scale − mean) / std, in the order `layout`.

    Raises:
      ValueError: another order, or a deviation of 0.
    """
    if layout not in ("NHWC", "NCHW"):
        raise ValueError(f"layout is {layout!r}; choose NHWC or NCHW")
    mean, std, scale = np.float32(mean), np.float32(std), np.float32(scale)
    if not std.all():
        raise ValueError(f"std is {std.tolist()}; it must not hold 0")

    def prepare(images: np.ndarray) -> np.ndarray:
        return arranged((images.astype(np.float32) * scale - mean) / std, layout)

    return prepare


def arranged(images: np.ndarray, layout: Layout) -> np.ndarray:
    """[B, H, W, C] in the order `layout`."""
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2)) if layout == "NCHW" else images


def layout(shape: Sequence[int | None], input: Any, name: str) -> Layout:
    """The order of the axes of a network's images, [B, ...], None where a size is open.

    Channels are the axis of 1, 3 or 4; where that is both or none, `input` decides.

    Raises:
      ValueError: neither says it.
    """
    first, last = shape[1] in (1, 3, 4), shape[3] in (1, 3, 4)
    if first != last:
        return "NCHW" if first else "NHWC"
    if input is not None and len(input) == 3:
        for order in ("NCHW", "NHWC"):
            if fits(input, upright(shape, order)):
                return order
    raise ValueError(f"{name} takes {list(shape)}; give input=(height, width, channels)")


def upright(shape: Sequence[int | None], order: Layout) -> tuple[int | None, ...]:
    """(height, width, channels) of a network's images [B, ...]."""
    return (*shape[2:], shape[1]) if order == "NCHW" else tuple(shape[1:])


def fits(input: Any, known: Sequence[int | None]) -> bool:
    """Whether an input of that shape may be given where `known` is taken, None of any size."""
    sizes = () if isinstance(input, str) else tuple(input)
    return len(sizes) == len(known) and all(
        open_ in (None, size) for size, open_ in zip(sizes, known, strict=True)
    )
