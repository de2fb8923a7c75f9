"""KernelSHAP, against exact Shapley values and captum."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fex_jax.attributions.kernel_shap import kernel_shap, sample_coalitions
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


def test_attributions_add_up_whatever_is_asked(game):
    """Breaks if few queries break Σφ = f(x) − f(∅)."""
    model, inputs, targets = game(12)
    scores = kernel_shap(model, inputs, targets, jax.random.key(2), num_queries=8)
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
