"""KernelSHAP, against exact Shapley values, float64, captum and shap."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.kernel_shap_error import additive_with_interactions, estimate, shap_estimate
from fex_jax.attributions.kernel_shap import constrained_regression, kernel_shap
from fex_jax.draws import sample_coalitions
from tests.attributions.parity import patch_numbers, torch_twin


def shapley(model, inputs, targets) -> np.ndarray:
    """φ_i = Σ_S |S|! (N − |S| − 1)! / N! (v(S ∪ i) − v(S)), by enumeration."""
    size = model.num_features
    masks = np.array(list(itertools.product([0, 1], repeat=size)))
    rows = range(len(inputs))
    worth = {tuple(m): np.asarray(model.predict(inputs * m))[rows, targets] for m in masks}
    values = np.zeros((len(inputs), size))
    for mask, i in itertools.product(masks, range(size)):
        if not mask[i]:
            members = mask.sum()
            share = math.factorial(members) * math.factorial(size - members - 1)
            joined = tuple(np.where(np.arange(size) == i, 1, mask))
            values[:, i] += share / math.factorial(size) * (worth[joined] - worth[tuple(mask)])
    return values


def all_coalitions(size: int) -> tuple[jax.Array, jax.Array]:
    """Every coalition but the empty and the full one, [2^N − 2, N], and weights that sum to 1."""
    masks = (np.arange(1, 2**size - 1)[:, None] >> np.arange(size)) & 1
    members = masks.sum(-1)
    of_size = np.bincount(members, minlength=size)
    weights = 1 / (of_size[members] * members * (size - members))
    return jnp.asarray(masks, bool), jnp.asarray(weights / weights.sum(), jnp.float32)


@pytest.mark.parametrize("size", [2, 5, 10])
def test_all_coalitions_give_the_shapley_values(game, size):
    """Breaks if a weight of the kernel or the efficiency constraint is wrong."""
    game_of_size = game(size)
    scores = kernel_shap(*game_of_size, jax.random.key(0), num_queries=2**size)
    np.testing.assert_allclose(scores, shapley(*game_of_size), atol=2e-5)


def test_sampled_coalitions_approach_them(game):
    """Breaks if coalitions are drawn from another distribution than the Shapley kernel."""
    game_of_six = game(6)
    exact = shapley(*game_of_six)
    errors = [
        np.abs(kernel_shap(*game_of_six, jax.random.key(1), num_queries=n) - exact).max()
        for n in (20, 60)  # of 62 coalitions: below that number they are drawn
    ]
    assert errors[1] < 0.03 and errors[1] < errors[0]


@pytest.mark.parametrize("num_queries", [1, 2, 8, 23, 24, 30])
def test_attributions_add_up_whatever_is_asked(game, num_queries):
    """Breaks if few queries break Σφ = f(x) − f(∅)."""
    model, inputs, targets = game(12)
    scores = kernel_shap(model, inputs, targets, jax.random.key(2), num_queries=num_queries)
    ends = [np.asarray(model.predict(inputs * kept))[range(5), targets] for kept in (1, 0)]
    np.testing.assert_allclose(scores.sum(-1), ends[0] - ends[1], atol=1e-5)


def test_sizes_follow_the_kernel():
    """Breaks if P(|S| = k) is not proportional to 1 / (k (N − k)), or pairs are no complements."""
    masks = np.asarray(sample_coalitions(jax.random.key(0), 4000, jnp.ones((5, 7), bool)))
    np.testing.assert_array_equal(masks[:2000], ~masks[2000:])
    share = np.bincount(masks.sum(-1).ravel(), minlength=8)[1:7] / masks[..., 0].size
    expected = 1 / (np.arange(1, 7) * np.arange(6, 0, -1))
    np.testing.assert_allclose(share, expected / expected.sum(), atol=0.02)


SIZES = [5, 3, 1, 2, 5]


def test_coalitions_are_of_the_features_that_exist():
    """Breaks if sizes follow another N than the input's own, or a coalition holds padding."""
    valid = np.arange(7) < np.array(SIZES)[:, None]
    masks = np.asarray(sample_coalitions(jax.random.key(0), 4000, jnp.asarray(valid)))
    assert not (masks & ~valid).any()
    assert ((masks[:2000] ^ masks[2000:]) == valid).all()
    for row in (0, 1):
        size = SIZES[row]
        share = np.bincount(masks[:, row].sum(-1), minlength=size + 1) / 4000
        expected = np.array([0, *1 / (np.arange(1, size) * np.arange(size - 1, 0, -1)), 0])
        np.testing.assert_allclose(share, expected / expected.sum(), atol=0.02)
    # Of five features each is as likely as another.
    np.testing.assert_allclose(masks[:, 0].mean(0)[:5], 0.5, atol=0.02)


@pytest.mark.parametrize("size, tolerance", [(24, 0.02), (8, 2e-5)])
def test_padding_changes_no_shapley_value(padded, size, tolerance):
    """Breaks if padding takes a share, for coalitions drawn (N = 24) and all of them (N = 8)."""
    (model, inputs, targets), alone = padded(size, SIZES)
    scores = kernel_shap(model, inputs, targets, jax.random.key(0), num_queries=2000)
    assert not scores[~np.asarray(model.valid(inputs))].any()
    ends = [np.asarray(model.predict(inputs * kept))[range(5), targets] for kept in (1, 0)]
    np.testing.assert_allclose(scores.sum(-1), ends[0] - ends[1], atol=1e-5)
    for row, few in enumerate(alone):
        np.testing.assert_allclose(scores[row, : SIZES[row]], shapley(*few)[0], atol=tolerance)


def test_exact_where_the_budget_covers_an_inputs_own_features(padded):
    """Breaks if 14 queries, all coalitions of four features, are drawn among those of N = 24."""
    sizes = [4, 3, 1, 2, 4]
    (model, inputs, targets), alone = padded(24, sizes)
    scores = kernel_shap(model, inputs, targets, jax.random.key(0), num_queries=14)
    for row, few in enumerate(alone):
        np.testing.assert_allclose(scores[row, : sizes[row]], shapley(*few)[0], atol=2e-5)
        assert not scores[row, sizes[row] :].any()


@pytest.mark.parametrize("size, count", [(64, 100), (128, 100), (196, 50), (64, 500)])
def test_the_regression_is_that_of_float64(size, count):
    """Breaks if float32 outweighs what few queries say: NumPy's lstsq, float64; cases/06."""
    rng = np.random.default_rng(0)
    valid = np.arange(size) % 7 != 3
    masks = np.asarray(sample_coalitions(jax.random.key(0), count, jnp.asarray(valid)[None]))[:, 0]
    own, other = rng.normal(size=size) / size, rng.normal(size=size)
    gains = masks @ own + 0.05 * np.tanh(masks @ other)
    total = own[valid].sum() + 0.05 * np.tanh(other[valid].sum())
    weights = rng.uniform(0.5, 1, count)
    # With φ = total / n + ψ, Σψ = 0: of all such ψ the shortest, in a basis of that plane.
    n = valid.sum()
    plane = np.linalg.svd(np.ones((1, n)))[2][1:].T
    left = np.sqrt(weights)[:, None] * masks[:, valid] @ plane
    right = np.sqrt(weights) * (gains - masks.sum(-1) * total / n)
    expected = np.zeros(size)
    expected[valid] = total / n + plane @ np.linalg.lstsq(left, right, rcond=1e-9)[0]
    found = jax.jit(constrained_regression)(
        masks, jnp.float32(gains), jnp.float32(total), valid, jnp.float32(weights)
    )
    np.testing.assert_allclose(found, expected, atol=1e-3 * np.abs(expected).max())


def test_no_worse_than_shap():
    """Breaks if coalitions or weights tell less than shap's KernelExplainer's, at equal queries."""
    pytest.importorskip("shap")
    ours, theirs = [], []
    for count in (32, 100):
        games, exact = zip(
            *(additive_with_interactions(16, seed) for seed in range(20)), strict=True
        )
        ours.append(np.abs(estimate(list(games), 16, count) - exact).mean())
        found = [shap_estimate(worth, 16, count, seed) for seed, worth in enumerate(games)]
        theirs.append(np.abs(np.array(found) - exact).mean())
    assert ours[0] < theirs[0] and ours[1] < theirs[1]


def test_agrees_with_captum():
    """Breaks if the game on images is not captum's: f without the absent patches."""
    captum = pytest.importorskip("captum.attr")
    model, images, targets, probabilities, tensor = torch_twin(grid=2)
    # captum.ShapleyValues enumerates all 24 orders of the four patches.
    expected = captum.ShapleyValues(probabilities).attribute(
        tensor, target=targets.tolist(), feature_mask=patch_numbers(tensor, model.grid)
    )
    expected = expected[:, 0, ::16, ::16].reshape(len(images), -1).numpy()
    scores = kernel_shap(model, images, jnp.asarray(targets), jax.random.key(0), num_queries=16)
    np.testing.assert_allclose(scores, expected, atol=2e-5)
    assert np.abs(expected).max() > 1e-3
