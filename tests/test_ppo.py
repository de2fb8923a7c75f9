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
    np.testing.assert_allclose(probabilities @ ALL_MASKS, lam, atol=1e-6)
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


def test_contrast_by_hand():
    """Breaks if a half's sign is lost, or if the halves alternate."""
    answers = jnp.array([[0.9], [0.8], [0.1], [0.3]])
    np.testing.assert_allclose(ppo.contrast_score(answers), [[0.9], [0.8], [-0.1], [-0.3]])


@pytest.mark.parametrize("score", ["authors", "contrast"])
def test_regression_gradient_is_the_policy_gradient_of_score_minus_kl(score):
    """Breaks if, on policy, the regression does not climb E_q[c] − α KL(q ‖ flat at that budget).

    Both sides by enumeration: all pairs of masks of three features, of a random game.
    """
    rng = np.random.default_rng(0)
    kept, removed = (jnp.asarray(x, jnp.float32) for x in rng.uniform(size=(2, 8)))
    given = {"num_masks": 4} if score == "contrast" else {"num_masks": 2, "answers": "probability"}
    objective = ppo.Objective(score=score, **given)
    alpha, budget, z = objective.temperature, 0.7, LOGITS[0]

    def probabilities(z):
        return jnp.exp(ppo.bernoulli_log_prob(ppo.shift_budget(z[None], budget, objective), masks))

    masks = ALL_MASKS
    flat = probabilities(jnp.zeros(3))

    def goal(z):
        q = probabilities(z)
        score = q @ (kept - removed if objective.score == "contrast" else kept)
        return score - alpha * (q @ jnp.log(q / flat))

    first, second = (x.ravel() for x in np.indices((8, 8)))  # all pairs of masks
    pairs = jnp.stack([masks[first], masks[second]], 1)  # [64, 2, 3]
    scores = jnp.stack([kept[first], kept[second]], 1)
    if objective.score == "contrast":  # any pair for what is kept, the same for what is left
        pairs = jnp.concatenate([pairs, pairs], 1)
        scores = jnp.concatenate([scores, -jnp.stack([removed[first], removed[second]], 1)], 1)
    q = probabilities(z)
    weights = q[first] * q[second]

    def squared_errors(z):
        tiled = jnp.tile(z, (64, 1, 1))
        residuals = ppo.regression_residuals(tiled, scores[:, None], pairs, objective)
        return weights @ (residuals[:, 0] ** 2).mean(-1)

    # S / (S − 1) = 2 of a group of two; a half's share of the contrast is a half.
    factor = -alpha * 2 * 2 / objective.num_groups**2
    found, expected = jax.jit(lambda z: (jax.grad(squared_errors)(z), jax.grad(goal)(z)))(z)
    np.testing.assert_allclose(found, factor * expected, atol=2e-5)


def test_slope_by_hand():
    """Breaks if α does not fall beyond 64 features, or does below, or counts padding."""
    objective = ppo.Objective(temperature=0.5)  # two groups
    for num_features, expected in ((8, 0.25), (64, 0.25), (128, 0.125), (196, 16 / 196)):
        found = ppo.slope(jnp.zeros((5, 2, num_features)), objective)
        np.testing.assert_allclose(found, expected, rtol=1e-6)
    valid = jnp.arange(200) < jnp.array([20, 128])[:, None, None]
    found = ppo.slope(jnp.zeros((2, 3, 200)), objective, valid)
    np.testing.assert_allclose(found, [[[0.25]], [[0.125]]], rtol=1e-6)


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


@pytest.mark.parametrize(("form", "features"), [("paper", 1), ("authors", 3)])
def test_total_loss_is_eq_25(form, features):
    """Breaks if a term is left out or has the wrong sign or coefficient.

    The entropy is that of all three features together, or the mean of one of them.
    """
    objective = ppo.Objective(
        budget_range=0.0, surrogate="clipped", entropy=form, entropy_coef=0.3, value_coef=0.7,
        kl_coef=0.9, num_masks=4, num_targets=1,
    )  # fmt: skip
    key = jax.random.key(1)
    masks = jax.random.bernoulli(key, 0.5, (2, 4, 3))
    batch = ppo.Rollout(
        inputs=None, targets=jnp.array([[0], [1]]),
        probabilities=jnp.array([[0.6, 0.4], [0.1, 0.9]]),
        budgets=jnp.zeros((2, 1, 1)), masks=masks,
        log_probs=ppo.bernoulli_log_prob(LOGITS[:, None] + 0.1, masks)[:, None],
        scores=jax.random.uniform(key, (2, 1, 4)), advantages=jax.random.normal(key, (2, 1, 4)),
    )  # fmt: skip
    output = ppo.PolicyOutput(
        LOGITS[:, None], jnp.array([[1.0, 0.0], [0.0, 1.0]]), jnp.array([[0.2], [0.4]])
    )
    total, _ = ppo.loss(output, batch, objective)
    expected = (
        ppo.clipped_surrogate(
            ppo.bernoulli_log_prob(LOGITS[:, None], masks)[:, None],
            batch.log_probs,
            batch.advantages,
            0.2,
        )
        - 0.3 * ppo.bernoulli_entropy(LOGITS).mean() / features
        + 0.7 * ppo.value_loss(output.values, batch.scores)
        + 0.9 * ppo.kl_to_softmax(output.class_logits, batch.probabilities, "authors")
    )
    np.testing.assert_allclose(total, expected, rtol=1e-6)


def test_what_classes_share_learns_from_plausible_classes():
    """Breaks if z_0 and c learn from each other, c otherwise than without z_0, or an unlikely class
    counts as much for z_0 as a likely one."""
    objective, rng = ppo.Objective(num_targets=2, num_masks=8), np.random.default_rng(0)
    masks = jnp.asarray(rng.random((3, 8, 5)) < 0.5)
    batch = ppo.Rollout(
        inputs=None, targets=jnp.tile(jnp.array([0, 1]), (3, 1)),
        probabilities=jnp.tile(jnp.array([0.9, 0.1]), (3, 1)), budgets=None, masks=masks,
        log_probs=None, scores=jnp.asarray(rng.normal(size=(3, 2, 8)), jnp.float32),
        advantages=None,
    )  # fmt: skip
    shared = jnp.asarray(rng.normal(size=(3, 1, 5)), jnp.float32)
    own = jnp.asarray(rng.normal(size=(3, 2, 5)), jnp.float32)
    first, second = jax.grad(ppo.shared_regression_loss, (0, 1))(shared, own, batch, objective)
    alone = jax.grad(ppo.shared_regression_loss)(shared, 5 * own, batch, objective)
    np.testing.assert_allclose(first, alone, rtol=1e-5)
    whole = jax.grad(ppo.regression_loss)(own, batch, objective)
    np.testing.assert_allclose(second, whole, rtol=1e-5)
    # By hand: the mean of w e², w = f_y over its mean 1/2.
    z = jnp.broadcast_to(shared, own.shape)
    errors = ppo.regression_residuals(z, batch.scores, masks, objective)
    mean = (1.8 * (errors[:, 0] ** 2).mean() + 0.2 * (errors[:, 1] ** 2).mean()) / 2
    found = ppo.shared_regression_loss(shared, own, batch, objective)
    found -= ppo.regression_loss(own, batch, objective)
    np.testing.assert_allclose(found, jnp.sqrt(mean) / ppo.slope(z, objective), rtol=1e-5)


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
