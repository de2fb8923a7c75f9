"""Percentile bootstrap over images (Efron 1979)."""

from collections.abc import Callable

import numpy as np


def _mean(values: np.ndarray) -> np.ndarray:
    return values.mean(axis=0)


def bootstrap_interval(
    values: np.ndarray,
    reduce: Callable[[np.ndarray], np.ndarray | float] = _mean,
    *,
    seed: int = 0,
    samples: int = 1000,
    level: float = 0.95,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """An estimate over images with its percentile interval.

    Whole images are drawn with replacement and `reduce` is computed anew on each draw, so pooled
    ratios (pixel accuracy, mIoU) get an interval over images just as plain means do. The same seed
    and number of images give the same draws, so two methods can be compared draw by draw.

    Args:
      values: [B, ...] one row per image.
      reduce: maps rows [B, ...] to the estimate, a scalar or an array; the mean over images if not
        given.
      seed: of the draws.
      samples: number of draws.
      level: coverage, in (0, 1).

    Returns:
      (estimate, low, high), float64, each of the shape that `reduce` returns.

    Raises:
      ValueError: no images, a value that is not finite, no draws or a level outside (0, 1).
    """
    values = np.asarray(values, np.float64)  # pooled pixel counts exceed float32's 2**24
    if values.ndim == 0 or len(values) == 0:
        raise ValueError(f"values must be [B, ...] with B >= 1, got shape {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError("values must be finite, got NaN or infinity")
    if samples < 1 or not 0 < level < 1:
        raise ValueError(f"need samples >= 1 and 0 < level < 1, got {samples} and {level}")
    rng = np.random.default_rng(seed)
    draws = np.stack(
        [reduce(values[rng.integers(len(values), size=len(values))]) for _ in range(samples)]
    )
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return np.asarray(reduce(values)), low, high
