"""L2X's choice, its approximation and its training, against what can be worked out by hand."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fex_jax import l2x, masking, predictors
from fex_jax.answers import odds_of_draw
from fex_jax.predictors import Model
from fex_jax.updates import TrainState
from tests import tiny_text
from tests.conftest import random_checkpoint

ALL = jnp.ones((1, 4), bool)


def test_relaxed_draws_by_hand():
    """Breaks if a draw is no softmax over features, or the draws are summed, not compared."""
    logits = jnp.log(jnp.array([[1.0, 2.0, 4.0, 1.0]]))
    noise = jnp.log(jnp.array([[[1.0, 1.0, 1.0, 1.0], [8.0, 1.0, 0.5, 4.0]]]))
    # At τ = 1 the draws are proportional to (1, 2, 4, 1) and to (8, 2, 2, 4).
    found = l2x.choose(logits, noise, ALL, 1.0)
    np.testing.assert_allclose(found, [[8 / 16, 2 / 8, 4 / 8, 4 / 16]], rtol=1e-6)
    # At τ = 1/2 to the squares of these.
    found = l2x.choose(logits, noise, ALL, 0.5)
    np.testing.assert_allclose(found, [[64 / 88, 4 / 22, 16 / 22, 16 / 88]], rtol=1e-6)
    # Without the third feature: (1, 2, 1) and (8, 2, 4).
    found = l2x.choose(logits, noise, ALL.at[0, 2].set(False), 1.0)
    np.testing.assert_allclose(found, [[8 / 14, 2 / 4, 0, 4 / 14]], rtol=1e-6)


def test_draws_become_sets_where_the_temperature_is_low():
    """Breaks if τ → 0 does not leave k draws with replacement, each by p = softmax(z)."""
    p, draws = np.array([0.5, 0.25, 0.15, 0.1]), 2
    noise = jax.random.gumbel(jax.random.key(0), (20_000, draws, 4))
    logits = jnp.broadcast_to(jnp.log(p) + 3.0, (20_000, 4))  # z is p's but for a constant
    valid = jnp.ones((20_000, 4), bool)
    masks = np.asarray(l2x.choose(logits, noise, valid, 1e-4))
    assert np.mean((masks > 0.999) | (masks < 0.001)) > 0.999  # but for ties
    assert set(np.unique(masks.round().sum(-1))) == {1, 2}
    # A feature is in the set unless both draws miss it.
    np.testing.assert_allclose(masks.mean(0), 1 - (1 - p) ** draws, atol=0.01)
    # That is what an explanation's σ says of one draw.
    found = jax.nn.sigmoid(odds_of_draw(logits[:1], ALL))
    np.testing.assert_allclose(found, p[None], rtol=1e-5)
    cut = odds_of_draw(jnp.array([[0.0, jnp.log(3.0), 50.0, 0.0]]), ALL.at[0, 2:].set(False))
    np.testing.assert_allclose(cut, [[-np.log(3), np.log(3), 0, 0]], rtol=1e-5)
    sure = odds_of_draw(jnp.array([[100.0, 0.0, -50.0, -60.0]]), ALL)
    assert np.isfinite(sure).all() and (np.diff(sure) < 0).all()


def test_loss_is_cross_entropy_to_what_f_says():
    """Breaks if the loss is of labels, or of the other direction."""
    p, q = np.array([[0.75, 0.25], [0.5, 0.5]]), np.array([[0.5, 0.5], [0.2, 0.8]])
    value, metrics = l2x.loss(jnp.log(q), jnp.asarray(p))
    np.testing.assert_allclose(value, -(p * np.log(q)).sum() / 2, rtol=1e-6)
    divergence = (p * np.log(p / q)).sum() / 2
    np.testing.assert_allclose(metrics["q/divergence"], divergence, rtol=1e-5)
    assert metrics["q/agreement"] == 0.5  # argmax of equals is the first


def test_approximation_sees_features_in_part():
    """Breaks if a pixel or a token has another feature's mask, or removal is not f's own."""
    checkpoint = random_checkpoint()
    model = predictors.image(checkpoint.config, checkpoint.params, fill=0.3)
    images = jax.random.normal(jax.random.key(0), (2, 32, 32, 3))
    masks = jax.random.uniform(jax.random.key(1), (2, 16))
    soft = masking.soften(images, masks.reshape(2, 4, 4), 0.3)
    expected = jnp.log(model.predict(soft))
    np.testing.assert_allclose(l2x.approximate(model, images, masks), expected, atol=1e-5)


def test_approximation_of_whole_words_is_what_f_would_say():
    """Breaks if [CLS] is removed with the words, or embeddings of texts are mixed otherwise."""
    checkpoint = tiny_text.checkpoint()
    model = predictors.bert(checkpoint.config, checkpoint.params, 16, 4)
    inputs = jax.tree.map(jnp.asarray, tiny_text.BATCH)
    inputs = inputs._replace(features=jnp.where(inputs.attention, jnp.arange(16) // 2 - 1, -1))
    masks = jax.random.bernoulli(jax.random.key(0), 0.5, (4, 16)).astype(jnp.float32)
    expected = jnp.log(model.predict(model.mask(inputs, masks)))
    assert (model.mask(inputs, masks).ids != inputs.ids).any()
    np.testing.assert_allclose(l2x.approximate(model, inputs, masks), expected, atol=1e-5)


def test_training_finds_the_features_that_f_reads():
    """Breaks if no gradient reaches the explainer or q, or f is asked about anything but inputs.

    f is a sum of the even features, of which an input has one that is not near 0. The odd ones are
    larger and mean nothing.
    """
    asked = []

    def predict(x):
        asked.append(x)
        logit = 6 * x[:, ::2].sum(-1)
        return jax.nn.softmax(jnp.stack([logit, 0 * logit], -1))

    def approximation(params):
        def logits(x, _):
            sums = x @ params["q"]
            return jnp.stack([sums, 0 * sums], -1)

        return dataclasses.replace(model, logits=logits)

    model = Model(
        predict, lambda x, m: x * m, (8,), embed=lambda x: x, pool=lambda values, _: values
    )
    rng = np.random.default_rng(0)
    inputs = 0.05 * rng.normal(size=(64, 8)).astype(np.float32)
    inputs[:, 1::2] += rng.choice([-2, 2], (64, 4))
    place = 2 * rng.integers(0, 4, 64)
    inputs[np.arange(64), place] += rng.choice([-1, 1], 64)

    params = {"slope": jnp.zeros(8), "q": jnp.zeros(8)}
    optimizer = optax.adam(0.05)
    objective = l2x.Objective(num_chosen=1, temperature=0.5, num_updates=2, num_passes=2)
    state = TrainState(params, optimizer.init(params), jnp.asarray(0))

    def explainer(params, x, targets):
        return (params["slope"] * jnp.abs(x))[:, None]

    @jax.jit
    def step(state, key):
        given = {"explainer": explainer, "approximation": approximation}
        return l2x.train_step(
            state,
            model,
            jnp.asarray(inputs),
            key,
            **given,
            optimizer=optimizer,
            objective=objective,
        )

    for number in range(200):
        state, metrics = step(state, jax.random.key(number))
    assert len(asked) == 1 and asked[0].shape == (64, 8)  # once, when the step was compiled
    assert int(state.step) == 200
    scores = explainer(state.params, inputs, None)[:, 0]
    np.testing.assert_array_equal(scores.argmax(-1), place)
    assert metrics["q/agreement"] > 0.9 and metrics["q/divergence"] < 0.15
    assert np.asarray(state.params["q"])[::2].min() > 2


def test_bad_settings_are_named():
    """Breaks if a typo in a config trains something else."""
    for wrong in ({"num_chosen": 0}, {"temperature": 0.0}, {"num_passes": 0}):
        with pytest.raises(ValueError, match="expected at least 1 feature, 1 update and 1 pass"):
            l2x.Objective(**wrong)
