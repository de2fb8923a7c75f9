"""What pictures of maps and words of texts have in common when they are shown."""

import numpy as np
from numpy.typing import ArrayLike

_ROUNDING = 1e-6  # some units in the last place of a float32


def is_flat(values: ArrayLike) -> bool:
    """Whether values differ by rounding alone: they span at most 1e-6 of the largest."""
    values = np.asarray(values, np.float64)
    return bool(np.ptp(values) <= _ROUNDING * np.abs(values).max())
