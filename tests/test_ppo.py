"""The paper's equations, against enumeration, finite differences and values computed by hand."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fex_jax import ppo

LOGITS = jnp.array([[0.5, -1.0, 2.0], [0.0, 0.3, -0.7]])
ALL_MASKS = jnp.array(list(itertools.product([0, 1], repeat=3)))  # [8, 3]


def finite_difference(function, x: jax.Array, step: float = 1e-3) -> np.ndarray:
    """Central differences of a scalar function, in float64 numpy steps on float32 inputs."""
    gradient = np.zeros(x.shape)
    for index in np.ndindex(*x.shape):
        shift = jnp.zeros_like(x).at[index].set(step)
        gradient[index] = (float(function(x + shift)) - float(function(x - shift))) / (2 * step)
    return gradient


def test_log_prob_and_entropy_equal_enumeration():
    """Breaks if λ is not σ(logits), a feature is dropped, or 0 and 1 are exchanged."""
    lam = np.asarray(jax.nn.sigmoid(LOGITS[0]), np.float64)
    expected = np.prod(np.where(ALL_MASKS, lam, 1 - lam), -1)
    log_probs = ppo.bernoulli_log_prob(LOGITS[:1], ALL_MASKS)
    np.testing.assert_allclose(jnp.exp(log_probs), expected, rtol=1e-5)
    entropy = -np.sum(expected * np.log(expected))
    np.testing.assert_allclose(ppo.bernoulli_entropy(LOGITS[0]), entropy, rtol=1e-5)


def test_expected_mask_is_lambda():
    """Breaks if E_q[m] is not λ (Eq. 8), exactly and for the masks really drawn."""
    probabilities = jnp.exp(ppo.bernoulli_log_prob(LOGITS[:1], ALL_MASKS))
    lam = jax.nn.sigmoid(LOGITS[0])
    np.testing.assert_allclose(probabilities @ ALL_MASKS.astype(float), lam, atol=1e-6)
    drawn = ppo.bernoulli(LOGITS[0]).sample(seed=jax.random.key(0), sample_shape=(20_000,))
    np.testing.assert_allclose(drawn.mean(0), lam, atol=0.015)  # four standard errors


def test_shift_budget_leaves_the_order_and_sets_the_mean():
    """Breaks if the policy can move its own budget, or if the paper's objective is shifted."""
    shifted = ppo.shift_budget(LOGITS, jnp.array([[1.0], [-2.0]]), ppo.Objective(budget_range=3.0))
    np.testing.assert_allclose(shifted.mean(-1), [1.0, -2.0], atol=1e-6)
    np.testing.assert_array_equal(jnp.argsort(shifted), jnp.argsort(LOGITS))
    same = ppo.shift_budget(
        LOGITS,
        jnp.array([[1.0], [-2.0]]),
        ppo.Objective(surrogate="clipped", num_targets=1, budget_range=0.0),
    )
    np.testing.assert_array_equal(same, LOGITS)


def test_a_flat_map_climbs_along_the_shapley_values():
    """Breaks if drawn budgets no longer make the first gradient 2(φ − mean φ) / 2r, r large.

    Both sides by enumeration of a random game of three features.
    """
    game = np.random.default_rng(0).uniform(size=8)  # worth of the masks of ALL_MASKS
    worth = {tuple(mask): game[i] for i, mask in enumerate(np.asarray(ALL_MASKS).tolist())}
    shapley = np.zeros(3)
    for order in itertools.permutations(range(3)):
        mask = [0, 0, 0]
        for feature in order:
            before = worth[tuple(mask)]
            mask[feature] = 1
            shapley[feature] += (worth[tuple(mask)] - before) / 6
    objective, limit = ppo.Objective(), 12.0
    scores = game - game[::-1]  # f(m) − f(1 − m): the last mask is the first's complement

    def expected_score(logits, budget):
        logits = ppo.shift_budget(logits[None], budget, objective)
        return jnp.exp(ppo.bernoulli_log_prob(logits, ALL_MASKS)) @ scores

    budgets = np.linspace(-limit, limit, 2001)
    gradients = jax.jit(jax.vmap(jax.grad(expected_score), (None, 0)))(jnp.zeros(3), budgets)
    np.testing.assert_allclose(
        gradients.mean(0) * 2 * limit, 2 * (shapley - shapley.mean()), atol=2e-3
    )


def test_ratio_scores_by_hand():
    """Breaks if K_m is not the number of kept features or the empty mask divides by zero."""
    masks = jnp.array([[0, 0, 0, 0], [1, 0, 0, 0], [1, 1, 0, 1]])
    kept = jnp.array([0.5, 0.8, 0.9])
    kept, masks = kept[:, None, None], masks[:, None]  # of one input and one class
    np.testing.assert_allclose(ppo.ratio_score(kept, masks, "paper").ravel(), [0.0, 0.8, 0.3])
    np.testing.assert_allclose(ppo.ratio_score(kept, masks, "authors").ravel(), [2.0, 1.6, 0.9])


def test_advantages_by_hand():
    """Breaks if a mask is its own baseline, or T or the scale is lost."""
    scores = jnp.array([[1.0, 2.0, 6.0]])
    baseline = ppo.leave_one_out(scores)
    np.testing.assert_allclose(baseline, [[4.0, 3.5, 1.5]])
    np.testing.assert_allclose(ppo.advantage(scores, baseline, "authors"), [[-3.0, -1.5, 4.5]])
    np.testing.assert_allclose(ppo.advantage(scores, baseline, "paper"), [[-1.0, -0.5, 1.5]])
    scaled = ppo.advantage(scores, baseline, "normalized")
    np.testing.assert_allclose(jnp.mean(scaled**2), 1.0, rtol=1e-5)
    of_two_kinds = ppo.leave_one_out(jnp.array([[1.0, 2.0, -6.0, -9.0]]), num_groups=2)
    np.testing.assert_allclose(of_two_kinds, [[2.0, 1.0, -9.0, -6.0]])


def test_surrogate_gradient_is_the_policy_gradient():
    """Breaks if, on policy, ∇L_ppo is not −∇E_q[c] (Eq. 13): both summed over all masks."""
    scores = jax.random.uniform(jax.random.key(0), (8,))

    def expected_score(logits):
        return jnp.exp(ppo.bernoulli_log_prob(logits[None], ALL_MASKS)) @ scores

    def surrogate(logits):  # each mask weighted by how often the old policy draws it
        log_probs = ppo.bernoulli_log_prob(logits[None], ALL_MASKS)
        old = jax.lax.stop_gradient(log_probs)
        weight = jnp.exp(old)
        terms = [
            ppo.clipped_surrogate(log_probs[i], old[i], scores[i] - 0.3, 0.2) for i in range(8)
        ]
        return jnp.stack(terms) @ weight

    found, expected = jax.jit(lambda z: (jax.grad(surrogate)(z), jax.grad(expected_score)(z)))(
        LOGITS[0]
    )
    np.testing.assert_allclose(found, -expected, atol=1e-6)


def test_clipping_by_hand():
    """Breaks if the minimum, the clip range or a sign of Eq. 21 and 22 is wrong."""
    old = jnp.zeros(4)
    new = jnp.log(jnp.array([1.5, 0.5, 1.5, 0.5]))
    advantages = jnp.array([1.0, 1.0, -1.0, -1.0])
    # min(1.5, 1.2) + min(0.5, 0.8) + min(-1.5, -1.2) + min(-0.5, -0.8), averaged
    expected = -(1.2 + 0.5 - 1.5 - 0.8) / 4
    np.testing.assert_allclose(
        ppo.clipped_surrogate(new, old, advantages, 0.2), expected, rtol=1e-6
    )
    gradient = jax.grad(ppo.clipped_surrogate)(new, old, advantages, 0.2)
    np.testing.assert_array_equal(gradient != 0, [False, True, True, False])


@pytest.mark.parametrize("form", ["paper", "authors"])
def test_kl_by_hand_and_gradient(form):
    """Breaks if the direction of the divergence is exchanged or the softmax is left out."""
    logits, f = jnp.array([[0.2, -0.4, 1.0]]), jnp.array([[0.2, 0.5, 0.3]])
    p = np.asarray(jax.nn.softmax(logits))[0]
    q = np.asarray(f)[0]
    expected = np.sum(p * np.log(p / q)) if form == "paper" else np.sum(q * np.log(q / p))
    np.testing.assert_allclose(ppo.kl_to_softmax(logits, f, form), expected, rtol=1e-5)
    assert abs(float(ppo.kl_to_softmax(jnp.log(f), f, form))) < 1e-6
    function = functools.partial(ppo.kl_to_softmax, probabilities=f, form=form)
    np.testing.assert_allclose(
        jax.grad(function)(logits), finite_difference(function, logits), atol=2e-4
    )
    if form == "authors":  # closed form: softmax(z) − f
        np.testing.assert_allclose(jax.grad(function)(logits)[0], p - q, atol=1e-6)


def test_the_divergence_of_sigmoids():
    """Breaks if labels that do not exclude each other share one softmax; closed form: σ(z) − f."""
    z, f = jnp.array([[0.3, -2.0, 1.0]]), jnp.array([[0.9, 0.2, 0.0]])
    p = jax.nn.sigmoid(z)
    with np.errstate(divide="ignore", invalid="ignore"):
        both = np.nan_to_num(f * np.log(f / p)) + (1 - f) * np.log((1 - f) / (1 - p))
    np.testing.assert_allclose(ppo.kl_to_sigmoids(z, f), both.sum(), rtol=1e-5)
    gradient = jax.grad(ppo.kl_to_sigmoids)(z, f)
    np.testing.assert_allclose(gradient, p - f, atol=1e-5)
    with pytest.raises(ValueError, match="for f of sigmoids use kl=authors"):
        ppo.Objective(output="sigmoid", kl="paper")


def test_gradients_of_value_loss_and_entropy():
    """Breaks if a gradient is stopped or scaled: 2 mean(v − c), and finite differences."""
    values, scores = jnp.array([0.5, -0.2]), jnp.array([[1.0, 2.0], [0.0, 0.4]])
    gradient = jax.grad(ppo.value_loss)(values, scores)
    np.testing.assert_allclose(gradient, (values - scores.mean(-1)) * 2 / 2, rtol=1e-6)
    entropy = lambda logits: ppo.bernoulli_entropy(logits).sum()  # noqa: E731
    np.testing.assert_allclose(
        jax.grad(entropy)(LOGITS), finite_difference(entropy, LOGITS), atol=1e-3
    )


def test_maps_are_contrasted_only_where_their_means_learn_f():
    """Breaks if maps are weighed against each other by probabilities that nothing has taught."""
    assert ppo.Objective().learns_f
    assert not ppo.Objective(kl_coef=0.0).learns_f and not ppo.Objective(kl="paper").learns_f


def test_objective_refuses_unknown_names():
    """Breaks if a typo in a config silently trains something else."""
    with pytest.raises(ValueError, match="score is 'papr'; expected one of paper, authors"):
        ppo.Objective(score="papr")
    with pytest.raises(ValueError, match="num_masks=5; expected at least 4, an even number"):
        ppo.Objective(num_masks=5)
    with pytest.raises(ValueError, match="num_masks=1; expected at least 2"):
        ppo.Objective(score="authors", answers="probability", num_masks=1)
    with pytest.raises(ValueError, match="score=paper: f / K_m needs positive answers"):
        ppo.Objective(score="paper")
    with pytest.raises(ValueError, match="both questions of the contrast"):
        ppo.Objective(surrogate="clipped", baseline="value")
    with pytest.raises(ValueError, match="takes surrogate=clipped"):
        ppo.Objective(budget_range=0.0)
    with pytest.raises(ValueError, match="temperature=0"):
        ppo.Objective(temperature=0.0)
