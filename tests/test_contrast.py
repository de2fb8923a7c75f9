"""The default objective, against enumeration and values computed by hand."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fex_jax import contrast, ppo

LOGITS = jnp.array([0.5, -1.0, 2.0])
ALL_MASKS = jnp.array(list(itertools.product([0, 1], repeat=3)))  # [8, 3]


def test_contrast_by_hand():
    """Breaks if a half's sign is lost, or if the halves alternate."""
    answers = jnp.array([[0.9], [0.8], [0.1], [0.3]])
    np.testing.assert_allclose(contrast.contrast_score(answers), [[0.9], [0.8], [-0.1], [-0.3]])


def test_shift_budget_leaves_the_order_and_sets_the_mean():
    """Breaks if the policy can move its own budget."""
    logits = jnp.array([[0.5, -1.0, 2.0], [0.0, 0.3, -0.7]])
    shifted = contrast.shift_budget(logits, jnp.array([[1.0], [-2.0]]))
    np.testing.assert_allclose(shifted.mean(-1), [1.0, -2.0], atol=1e-6)
    np.testing.assert_array_equal(jnp.argsort(shifted), jnp.argsort(logits))


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
    limit = 12.0
    scores = game - game[::-1]  # f(m) − f(1 − m): the last mask is the first's complement

    def expected_score(logits, budget):
        logits = contrast.shift_budget(logits[None], budget)
        return jnp.exp(ppo.bernoulli_log_prob(logits, ALL_MASKS)) @ scores

    budgets = np.linspace(-limit, limit, 2001)
    gradients = jax.jit(jax.vmap(jax.grad(expected_score), (None, 0)))(jnp.zeros(3), budgets)
    np.testing.assert_allclose(
        gradients.mean(0) * 2 * limit, 2 * (shapley - shapley.mean()), atol=2e-3
    )


def test_regression_gradient_is_the_policy_gradient_of_score_minus_kl():
    """Breaks if, on policy, the regression does not climb E_q[c] − α KL(q ‖ flat at that budget).

    Both sides by enumeration: all pairs of masks of three features, of a random game.
    """
    rng = np.random.default_rng(0)
    kept, removed = (jnp.asarray(x, jnp.float32) for x in rng.uniform(size=(2, 8)))
    objective = contrast.Objective(num_masks=4)
    alpha, budget, z = objective.temperature, 0.7, LOGITS

    def probabilities(z):
        return jnp.exp(ppo.bernoulli_log_prob(contrast.shift_budget(z[None], budget), masks))

    masks = ALL_MASKS
    flat = probabilities(jnp.zeros(3))

    def goal(z):
        q = probabilities(z)
        return q @ (kept - removed) - alpha * (q @ jnp.log(q / flat))

    first, second = (x.ravel() for x in np.indices((8, 8)))  # all pairs of masks
    pairs = jnp.stack([masks[first], masks[second]], 1)  # [64, 2, 3]
    scores = jnp.stack([kept[first], kept[second]], 1)
    # Any pair for what is kept, the same for what is left.
    pairs = jnp.concatenate([pairs, pairs], 1)
    scores = jnp.concatenate([scores, -jnp.stack([removed[first], removed[second]], 1)], 1)
    q = probabilities(z)
    weights = q[first] * q[second]

    def squared_errors(z):
        tiled = jnp.tile(z, (64, 1, 1))
        residuals = contrast.regression_residuals(tiled, scores[:, None], pairs, objective)
        return weights @ (residuals[:, 0] ** 2).mean(-1)

    # S / (S − 1) = 2 of a group of two; a half's share of the contrast is a half.
    factor = -alpha * 2 * 2 / contrast.GROUPS**2
    found, expected = jax.jit(lambda z: (jax.grad(squared_errors)(z), jax.grad(goal)(z)))(z)
    np.testing.assert_allclose(found, factor * expected, atol=2e-5)


def test_slope_by_hand():
    """Breaks if α does not fall beyond 64 features, or does below, or counts padding."""
    objective = contrast.Objective(temperature=0.5)  # two groups
    for num_features, expected in ((8, 0.25), (64, 0.25), (128, 0.125), (196, 16 / 196)):
        found = contrast.slope(jnp.zeros((5, 2, num_features)), objective)
        np.testing.assert_allclose(found, expected, rtol=1e-6)
    valid = jnp.arange(200) < jnp.array([20, 128])[:, None, None]
    found = contrast.slope(jnp.zeros((2, 3, 200)), objective, valid)
    np.testing.assert_allclose(found, [[[0.25]], [[0.125]]], rtol=1e-6)


def test_what_classes_share_learns_from_plausible_classes():
    """Breaks if z_0 and c learn from each other, c otherwise than without z_0, or an unlikely class
    counts as much for z_0 as a likely one."""
    objective, rng = contrast.Objective(num_targets=2, num_masks=8), np.random.default_rng(0)
    masks = jnp.asarray(rng.random((3, 8, 5)) < 0.5)
    batch = contrast.Answered(
        inputs=None, targets=jnp.tile(jnp.array([0, 1]), (3, 1)),
        probabilities=jnp.tile(jnp.array([0.9, 0.1]), (3, 1)), budgets=None, masks=masks,
        scores=jnp.asarray(rng.normal(size=(3, 2, 8)), jnp.float32),
    )  # fmt: skip
    shared = jnp.asarray(rng.normal(size=(3, 1, 5)), jnp.float32)
    own = jnp.asarray(rng.normal(size=(3, 2, 5)), jnp.float32)
    first, second = jax.grad(contrast.shared_regression_loss, (0, 1))(shared, own, batch, objective)
    alone = jax.grad(contrast.shared_regression_loss)(shared, 5 * own, batch, objective)
    np.testing.assert_allclose(first, alone, rtol=1e-5)
    whole = jax.grad(contrast.regression_loss)(own, batch, objective)
    np.testing.assert_allclose(second, whole, rtol=1e-5)
    # By hand: the mean of w e², w = f_y over its mean 1/2.
    z = jnp.broadcast_to(shared, own.shape)
    errors = contrast.regression_residuals(z, batch.scores, masks, objective)
    mean = (1.8 * (errors[:, 0] ** 2).mean() + 0.2 * (errors[:, 1] ** 2).mean()) / 2
    found = contrast.shared_regression_loss(shared, own, batch, objective)
    found -= contrast.regression_loss(own, batch, objective)
    np.testing.assert_allclose(found, jnp.sqrt(mean) / contrast.slope(z, objective), rtol=1e-5)


def test_what_has_no_mean_leaves_the_minimum():
    """Breaks if maps of background rows, less their mean, move what the regression learns."""
    keys = jax.random.split(jax.random.key(0), 4)
    objective, z = contrast.Objective(num_masks=8), jax.random.normal(keys[0], (1, 1, 5))
    masks = jnp.tile(jax.random.bernoulli(keys[1], 0.5, (1, 8, 5)), (3, 1, 1))
    scores, rows = jax.random.normal(keys[2], (3, 1, 8)), jax.random.normal(keys[3], (3, 1, 5))

    def slope(of_row):
        def squares(z):
            z = jnp.broadcast_to(z, (3, 1, 5)) - of_row
            return jnp.mean(contrast.regression_residuals(z, scores, masks, objective) ** 2)

        return jax.grad(squares)(z)

    np.testing.assert_allclose(slope(rows - rows.mean(0)), slope(0 * rows), atol=1e-6)
    assert np.abs(slope(rows) - slope(0 * rows)).max() > 1e-3


def test_a_mask_is_compared_with_the_others_of_its_question():
    """Breaks if a mask's score is compared with itself, or with the other question's."""
    found = contrast.leave_one_out(jnp.array([[1.0, 2.0, -6.0, -9.0]]))
    np.testing.assert_allclose(found, [[2.0, 1.0, -9.0, -6.0]])
    np.testing.assert_allclose(contrast.leave_one_out(jnp.array([1.0, 2.0, 6.0]), 1), [4, 3.5, 1.5])


def test_maps_are_contrasted_only_where_their_means_learn_f():
    """Breaks if maps are weighed against each other by probabilities that nothing has taught, or
    those of two classes, or of labels that do not exclude each other."""

    def contrastive(num_classes: int, **given) -> bool:
        return contrast.exported(contrast.Objective(**given), num_classes)["contrastive"]

    assert contrastive(3) and not contrastive(2) and not contrastive(3, kl_coef=0.0)
    assert not contrastive(3, output="sigmoid") and not contrastive(3, output="value")


def test_objective_refuses_what_it_cannot_be():
    """Breaks if a typo in a config silently trains something else."""
    with pytest.raises(ValueError, match="targets is 'sample'; expected one of argmax, sampled"):
        contrast.Objective(targets="sample")
    with pytest.raises(ValueError, match="num_masks=5; expected at least 4, an even number"):
        contrast.Objective(num_masks=5)
    for name in ("temperature", "budget_range"):
        with pytest.raises(ValueError, match=f"{name}=0.*more than 0"):
            contrast.Objective(**{name: 0.0})
