"""Many queries in bounded memory."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fex_jax.attributions.queries import default_chunk, target_probabilities


@pytest.mark.parametrize("chunk", [1, 4, 7, 15, 100])
def test_every_chunk_size_gives_every_answer(game, chunk):
    """Breaks if an answer is lost, repeated or given to another mask where chunks do not divide."""
    model, inputs, targets = game(6)
    masks = jax.random.bernoulli(jax.random.key(0), 0.5, (3, 5, 6))
    answers = target_probabilities(model, inputs, targets, masks, chunk)
    for answer, mask in zip(answers, masks, strict=True):
        expected = np.asarray(model.predict(np.where(mask, inputs, 0)))[range(5), targets]
        np.testing.assert_allclose(answer, expected, rtol=1e-6)


def test_f_never_sees_more_than_a_chunk(game):
    """Breaks if memory grows with the number of queries."""
    model, inputs, targets = game(6)
    seen = []

    def predict(x):
        seen.append(len(x))
        return model.predict(x)

    watched = dataclasses.replace(model, predict=predict)
    masks = jnp.ones((40, 5, 6), bool)
    target_probabilities(watched, inputs, targets, masks, 8)
    assert set(seen) == {8}


def test_few_queries_are_made_to_fill_up_chunks(game):
    """Breaks if a black box is asked, and paid, for a whole chunk more than was wanted."""
    model, inputs, targets = game(6)
    seen = []

    def predict(x):
        jax.debug.callback(lambda: seen.append(len(x)))
        return model.predict(x)

    watched = dataclasses.replace(model, predict=predict)
    target_probabilities(watched, inputs, targets, jnp.ones((13, 5, 6), bool), 32)  # 65 in all
    jax.effects_barrier()
    assert seen == [22, 22, 22]


def test_default_chunk_shrinks_as_inputs_grow(game):
    """Breaks if a large model gets as many inputs at a time as a small one."""
    model, inputs, _ = game(6)
    wide = dataclasses.replace(model, predict=lambda x: model.predict(jnp.tile(x, 2**20))[:, :2])
    assert 1 <= default_chunk(wide, inputs) < default_chunk(model, inputs)
