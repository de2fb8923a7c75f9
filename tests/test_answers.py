"""Asking f about masks, one by one and several at a time; log-odds, by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fex_jax.answers import ask, log_odds


@pytest.mark.parametrize("at_once", [None, 1, 4, 10, 50])
def test_ask_is_the_same_for_any_number_of_masks_at_a_time(at_once):
    """Breaks if an answer is of another mask, input or class than it was asked for.

    10 masks are no multiple of 4, and fewer than 50.
    """
    keys = jax.random.split(jax.random.key(0), 3)
    inputs, weights = jax.random.normal(keys[0], (3, 5)), jax.random.normal(keys[1], (5, 4))
    masks = jax.random.bernoulli(keys[2], 0.5, (10, 3, 5))
    targets = jnp.array([[1, 0], [3, 2], [2, 1]])
    answers = ask(
        lambda x: jax.nn.softmax(x @ weights),
        lambda x, m: jnp.where(m, x, 0),
        inputs,
        targets,
        masks,
        at_once,
    )
    logits = np.where(masks, inputs, 0) @ np.asarray(weights)  # [10, 3, 4]
    expected = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    rows = np.arange(3)[:, None]
    np.testing.assert_allclose(answers, expected[:, rows, targets], rtol=1e-5)


def test_log_odds_by_hand():
    """Breaks if a sign or the base is wrong, or if a certain answer is infinite."""
    least = np.log(0.01 / 0.99)
    np.testing.assert_allclose(
        log_odds(jnp.array([0.5, 0.75, 0.25, 0.0, 1.0, 1e-9])),
        [0, np.log(3), -np.log(3), least, -least, least],
        rtol=1e-4,
        atol=1e-6,
    )
