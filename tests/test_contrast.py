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


@pytest.mark.parametrize("score", ["authors", "contrast"])
def test_regression_gradient_is_the_policy_gradient_of_score_minus_kl(score):
    """Breaks if, on policy, the regression does not climb E_q[c] − α KL(q ‖ flat at that budget).

    Both sides by enumeration: all pairs of masks of three features, of a random game.
    """
    rng = np.random.default_rng(0)
    kept, removed = (jnp.asarray(x, jnp.float32) for x in rng.uniform(size=(2, 8)))
    given = {"num_masks": 4} if score == "contrast" else {"num_masks": 2, "answers": "probability"}
    objective = ppo.Objective(score=score, **given)
    alpha, budget, z = objective.temperature, 0.7, LOGITS

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
        residuals = contrast.regression_residuals(tiled, scores[:, None], pairs, objective)
        return weights @ (residuals[:, 0] ** 2).mean(-1)

    # S / (S − 1) = 2 of a group of two; a half's share of the contrast is a half.
    factor = -alpha * 2 * 2 / objective.num_groups**2
    found, expected = jax.jit(lambda z: (jax.grad(squared_errors)(z), jax.grad(goal)(z)))(z)
    np.testing.assert_allclose(found, factor * expected, atol=2e-5)


def test_slope_by_hand():
    """Breaks if α does not fall beyond 64 features, or does below, or counts padding."""
    objective = ppo.Objective(temperature=0.5)  # two groups
    for num_features, expected in ((8, 0.25), (64, 0.25), (128, 0.125), (196, 16 / 196)):
        found = contrast.slope(jnp.zeros((5, 2, num_features)), objective)
        np.testing.assert_allclose(found, expected, rtol=1e-6)
    valid = jnp.arange(200) < jnp.array([20, 128])[:, None, None]
    found = contrast.slope(jnp.zeros((2, 3, 200)), objective, valid)
    np.testing.assert_allclose(found, [[[0.25]], [[0.125]]], rtol=1e-6)


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
    objective, z = ppo.Objective(num_masks=8), jax.random.normal(keys[0], (1, 1, 5))
    masks = jnp.tile(jax.random.bernoulli(keys[1], 0.5, (1, 8, 5)), (3, 1, 1))
    scores, rows = jax.random.normal(keys[2], (3, 1, 8)), jax.random.normal(keys[3], (3, 1, 5))

    def slope(of_row):
        def squares(z):
            z = jnp.broadcast_to(z, (3, 1, 5)) - of_row
            return jnp.mean(contrast.regression_residuals(z, scores, masks, objective) ** 2)

        return jax.grad(squares)(z)

    np.testing.assert_allclose(slope(rows - rows.mean(0)), slope(0 * rows), atol=1e-6)
    assert np.abs(slope(rows) - slope(0 * rows)).max() > 1e-3
