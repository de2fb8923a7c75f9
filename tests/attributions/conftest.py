"""A classifier small enough to enumerate, and images for a small ViT."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fex_jax.predictors import Model


def predict(x: jax.Array) -> jax.Array:
    """Two classes, with an interaction between the first two features."""
    logit = x @ jnp.linspace(-1, 2, x.shape[-1]) + 3 * x[:, 0] * x[:, 1]
    return jax.nn.softmax(jnp.stack([logit, jnp.zeros_like(logit)], -1))


@pytest.fixture(scope="session")
def game() -> Callable[[int], tuple[Model, jax.Array, jax.Array]]:
    """game(N): a black box on N numbers, five inputs, and their targets."""

    def make(size: int) -> tuple[Model, jax.Array, jax.Array]:
        inputs = np.random.default_rng(0).uniform(0.2, 1, (5, size)).astype(np.float32)
        return Model(predict, lambda x, m: x * m, (size,)), inputs, jnp.array([0, 1, 0, 1, 1])

    return make
