"""The U-Net's own convolution against XLA's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from fex_jax.models.unet import Convolution


@pytest.mark.parametrize("size", [(1, 1), (3, 3), (3, 5)])
def test_convolution_equals_xlas(size):
    """Breaks if a cell meets another weight, or the border another neighbour than zero."""
    own = Convolution(2, 4, size, dtype=jnp.float32, rngs=nnx.Rngs(0))
    own.bias[...] = jnp.arange(4.0)
    x = jax.random.normal(jax.random.key(1), (3, 6, 7, 2))
    np.testing.assert_allclose(own(x), nnx.Conv.__call__(own, x), atol=1e-5)
