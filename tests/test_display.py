"""What counts as flat."""

import numpy as np
import pytest

from fex_jax.display import is_flat


@pytest.mark.parametrize("size", [1e-9, 0.5, 1.0, 300.0])
def test_rounding_is_flat_and_a_real_difference_is_not(size):
    """Breaks if float32 noise is drawn as a map, or a faint map as none, at any scale."""
    flat = np.full(64, size, np.float32)
    noise = flat.copy()
    noise[::3] = np.nextafter(noise[::3], np.float32(2 * size))
    assert is_flat(flat) and is_flat(noise) and is_flat(-noise) and is_flat(0 * flat)
    assert not is_flat(flat * np.linspace(1, 1 + 1e-4, 64))
