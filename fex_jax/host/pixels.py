"""uint8 images as a network wants them: scale, mean, deviation, order of the axes."""

from collections.abc import Callable, Sequence

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
        values = (images.astype(np.float32) * scale - mean) / std
        return np.ascontiguousarray(values.transpose(0, 3, 1, 2)) if layout == "NCHW" else values

    return prepare
