"""Refining a map by queries: against exact games, and a dense float64 computation."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from fex_jax import refine as refining
from fex_jax.attributions import regression
from fex_jax.predictors import Model

KEY = jax.random.key(0)
SIZE = 12


def linear_model(weights: np.ndarray) -> Model:
    """Log-odds of f_0(m⊙x) are 0.2 + Σ m_i w_i for x = 1."""

    def predict(x: jax.Array) -> jax.Array:
        p = jax.nn.sigmoid(0.2 + x @ weights)
        return jnp.stack([p, 1 - p], -1)

    return Model(predict=predict, mask=lambda x, m: jnp.where(m, x, 0), grid=(SIZE,))


@pytest.fixture
def weights() -> np.ndarray:
    return np.random.default_rng(0).normal(size=SIZE) / 5


def test_enough_queries_find_a_linear_model_whatever_the_map_says(weights):
    """Breaks if a sign, a column or the posterior is wrong, or a bad map is believed."""
    scores = jnp.stack([jnp.zeros(SIZE), -10 * weights, jnp.arange(SIZE, dtype=jnp.float32)])
    inputs = jnp.ones((3, SIZE))
    found = refining.refine_scores(
        linear_model(weights), inputs, jnp.zeros(3, int), scores, KEY, num_queries=80
    )
    np.testing.assert_allclose(found, np.tile(weights, (3, 1)), atol=1e-2)
    other = refining.refine_scores(
        linear_model(weights), inputs, jnp.ones(3, int), scores, KEY, num_queries=80
    )
    np.testing.assert_allclose(other, -found, atol=1e-5)


def test_few_queries_suffice_where_the_map_is_right(weights):
    """Breaks if β and γ are not fitted: 8 queries for 12 weights, known up to scale and offset."""
    found = refining.refine_scores(
        linear_model(weights), jnp.ones((1, SIZE)), jnp.zeros(1, int),
        jnp.asarray(7 * weights[None] + 3), KEY, num_queries=8,
    )  # fmt: skip
    np.testing.assert_allclose(found[0], weights, atol=5e-3)


def test_equals_a_dense_computation():
    """Breaks if the likelihood, the trend or the posterior differs: NumPy, float64, inverses."""
    rng = np.random.default_rng(1)
    masks, scores = rng.integers(0, 2, (9, SIZE)).astype(bool), rng.normal(size=SIZE)
    contrasts = rng.normal(size=9)
    x = 2.0 * masks - 1
    a = x @ np.stack([scores, np.ones(SIZE)], -1)
    values, means = [], []
    for ratio in np.asarray(refining._RATIOS, np.float64):
        v = np.linalg.inv(np.eye(9) + ratio * x @ x.T)
        trend = np.linalg.inv(a.T @ v @ a) @ a.T @ v @ contrasts
        p = v - v @ a @ np.linalg.inv(a.T @ v @ a) @ a.T @ v
        value = (np.linalg.slogdet(v)[1] - np.linalg.slogdet(a.T @ v @ a)[1]) / 2
        values.append(value - 7 / 2 * np.log(contrasts @ p @ contrasts))
        mean = np.stack([scores, np.ones(SIZE)], -1) @ trend
        means.append(mean + ratio * x.T @ v @ (contrasts - a @ trend))
    expected = scipy.special.softmax(values) @ np.stack(means)
    found = refining.posterior_mean(
        jnp.asarray(masks),
        jnp.asarray(contrasts),
        jnp.asarray(scores),
        jnp.ones(SIZE, bool),
        (SIZE,),
    )
    np.testing.assert_allclose(found, expected, atol=1e-3 * np.abs(expected).max())


def test_on_a_grid_neighbours_weigh_alike():
    """Breaks if the prior of a smooth map is not tried, or not taken where answers are of one: of
    36 cells 20 queries know next to nothing, but that they lie beside each other. NumPy."""
    rng, grid = np.random.default_rng(3), (6, 6)
    cells = np.indices(grid).reshape(2, -1)
    smooth = np.exp(-((cells - 2.0) ** 2).sum(0) / 4)
    masks = rng.random((20, 36)) < 0.5
    contrasts = (2.0 * masks - 1) @ smooth
    arrays = [jnp.asarray(x) for x in (masks, contrasts, np.zeros(36), np.ones(36, bool))]
    found, alone = (refining.posterior_mean(*arrays, g) for g in (grid, (36,)))
    assert np.corrcoef(found, smooth)[0, 1] > 0.95 > np.corrcoef(alone, smooth)[0, 1]
    # Given a length and a ratio, the posterior mean is that of a Gaussian process with trend γ.
    priors = np.asarray(refining._priors(grid), float)
    x, a = 2.0 * masks - 1, (2.0 * masks - 1).sum(1)
    values, means = [], []
    for prior in priors:
        for ratio in np.asarray(refining._RATIOS, float):
            v = np.linalg.inv(np.eye(20) + ratio * x @ prior @ x.T)
            gamma = (a @ v @ contrasts) / (a @ v @ a)
            rest = contrasts - a * gamma
            value = (np.linalg.slogdet(v)[1] - np.log(a @ v @ a)) / 2
            values.append(value - 18 / 2 * np.log(rest @ v @ rest))
            means.append(gamma + ratio * prior @ x.T @ v @ rest)
    expected = scipy.special.softmax(values) @ np.stack(means)
    np.testing.assert_allclose(found, expected, atol=1e-2)


def test_a_triangle_says_what_all_equations_say():
    """Breaks if many pairs, taken up block by block, are counted or weighed otherwise than few."""
    rng = np.random.default_rng(4)
    masks, scores = jnp.asarray(rng.random((70, SIZE)) < 0.5), rng.normal(size=SIZE)
    contrasts, valid = jnp.asarray(rng.normal(size=70)), jnp.arange(SIZE) < 10
    scores = jnp.where(valid, scores, 0)
    equations = refining._equations(masks, contrasts, valid)
    whole = refining.posterior_mean(masks, contrasts, scores, valid, (SIZE,))
    blocks = regression.triangle(lambda i: equations.reshape(5, 14, -1)[i], 5, SIZE + 1)
    found = refining._posterior(blocks, 70, scores, valid, jnp.eye(SIZE)[None])
    np.testing.assert_allclose(found, whole, atol=1e-5)


def test_memory_does_not_grow_with_queries(weights):
    """Breaks if masks of all queries, or a matrix of their pairs, exist at once."""

    def most(num_queries: int) -> int:
        refined = functools.partial(
            refining.refine_scores, linear_model(weights), num_queries=num_queries, chunk=64
        )
        arguments = jnp.ones((5, SIZE)), jnp.zeros(5, int), jnp.ones((5, SIZE)), KEY
        compiled = jax.jit(refined).lower(*arguments).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    # What is left are the answers, four bytes a query, in a few copies.
    assert most(8000) - most(800) < 8 * 4 * 5 * 7200


def test_features_that_are_not_there_change_nothing(weights):
    """Breaks if padding enters a mean, the regression or the masks."""
    rng = np.random.default_rng(2)
    masks, scores = rng.integers(0, 2, (9, SIZE)).astype(bool), rng.normal(size=SIZE)
    contrasts, valid = rng.normal(size=9), np.arange(SIZE) < 7
    short = refining.posterior_mean(
        *map(jnp.asarray, (masks[:, :7], contrasts, scores[:7], valid[:7])), (7,)
    )
    long = refining.posterior_mean(
        *map(jnp.asarray, (masks, contrasts, np.where(valid, scores, 0), valid)), (SIZE,)
    )
    np.testing.assert_allclose(long[:7], short, atol=1e-5)
    assert not long[7:].any()


def test_an_input_does_not_depend_on_its_batch(weights):
    """Breaks if random numbers belong to a place in the batch."""
    scores = jnp.asarray(np.random.default_rng(3).normal(size=(3, SIZE)))
    linear = linear_model(weights)
    model = dataclasses.replace(linear, predict=lambda x: jax.nn.softmax(8 * linear.predict(x)))
    together = refining.refine_scores(
        model, jnp.ones((3, SIZE)), jnp.zeros(3, int), scores, KEY, num_queries=20
    )
    alone = refining.refine_scores(
        model, jnp.ones((1, SIZE)), jnp.zeros(1, int), scores[1:2], KEY, num_queries=20
    )
    np.testing.assert_allclose(together[1], alone[0], atol=1e-5)


@pytest.mark.parametrize("num_queries", [6, 9])
def test_bad_numbers_of_queries_are_named(num_queries, weights):
    """Breaks if a half pair, or too few to fit anything, are queried."""
    with pytest.raises(ValueError, match=f"refining takes {num_queries} queries; expected an even"):
        refining.refine_scores(
            linear_model(weights), jnp.ones((1, SIZE)), jnp.zeros(1, int), jnp.ones((1, SIZE)), KEY,
            num_queries=num_queries,
        )  # fmt: skip
