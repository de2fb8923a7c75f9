"""A classifier small enough to enumerate, and images for a small ViT."""

import dataclasses
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
        return (
            Model(predict, lambda x, m: jnp.where(m, x, 0), (size,)),
            inputs,
            jnp.array([0, 1, 0, 1, 1]),
        )

    return make


@pytest.fixture(scope="session")
def padded(game) -> Callable[[int, list[int]], tuple[tuple, list[tuple]]]:
    """padded(N, sizes): the game with inputs of fewer than N features; and each input's alone."""

    def make(size: int, sizes: list[int]) -> tuple[tuple, list[tuple]]:
        model, inputs, targets = game(size)
        inputs = inputs * (np.arange(size) < np.array(sizes)[:, None])
        whole = dataclasses.replace(model, valid=lambda x: x > 0), inputs, targets

        def alone(row: int, count: int) -> tuple[Model, jax.Array, jax.Array]:
            def of_few(x: jax.Array) -> jax.Array:
                return predict(jnp.pad(x, ((0, 0), (0, size - count))))

            one = slice(row, row + 1)
            few = Model(of_few, model.mask, (count,))
            return few, inputs[one, :count], targets[one]

        return whole, [alone(row, count) for row, count in enumerate(sizes)]

    return make
