"""The published objective, against values computed by hand; Algorithm 1 is in test_algorithm.py."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fex_jax import ppo, published


def test_ratio_scores_by_hand():
    """Breaks if K_m is not the number of kept features or the empty mask divides by zero."""
    masks = jnp.array([[0, 0, 0, 0], [1, 0, 0, 0], [1, 1, 0, 1]])
    kept = jnp.array([0.5, 0.8, 0.9])
    kept, masks = kept[:, None, None], masks[:, None]  # of one input and one class
    for form, expected in (("paper", [0.0, 0.8, 0.3]), ("authors", [2.0, 1.6, 0.9])):
        found = published.ratio_score(kept, masks, form).ravel()
        np.testing.assert_allclose(found, expected)


def test_advantages_by_hand():
    """Breaks if T is lost, or a value is that of another input."""
    scores, values = jnp.array([[1.0, 2.0, 6.0], [0.0, 1.0, 2.0]]), jnp.array([[3.0], [1.0]])
    found = published.advantage(scores, values, "authors")
    np.testing.assert_allclose(found, [[-2, -1, 3], [-1, 0, 1]])
    found = published.advantage(scores, values, "paper")
    np.testing.assert_allclose(found, np.array([[-2, -1, 3], [-1, 0, 1]]) / 3)


def test_gradient_of_the_value_loss():
    """Breaks if a gradient is stopped or scaled: 2 mean(v − c)."""
    values, scores = jnp.array([0.5, -0.2]), jnp.array([[1.0, 2.0], [0.0, 0.4]])
    gradient = jax.grad(published.value_loss)(values, scores)
    np.testing.assert_allclose(gradient, (values - scores.mean(-1)) * 2 / 2, rtol=1e-6)


@pytest.mark.parametrize(("form", "features"), [("paper", 1), ("authors", 3)])
def test_total_loss_is_eq_25(form, features):
    """Breaks if a term is left out or has the wrong sign, coefficient or form.

    The entropy is that of all three features together, or the mean of one of them.
    """
    objective = published.Objective(
        form, entropy_coef=0.3, value_coef=0.7, kl_coef=0.9, num_masks=4
    )
    key, logits = jax.random.key(1), jnp.array([[0.5, -1.0, 2.0], [0.0, 0.3, -0.7]])
    masks = jax.random.bernoulli(key, 0.5, (2, 4, 3))
    batch = published.Answered(
        inputs=None, targets=jnp.array([[0], [1]]),
        probabilities=jnp.array([[0.6, 0.4], [0.1, 0.9]]), masks=masks,
        log_probs=ppo.bernoulli_log_prob(logits[:, None] + 0.1, masks)[:, None],
        scores=jax.random.uniform(key, (2, 1, 4)), advantages=jax.random.normal(key, (2, 1, 4)),
    )  # fmt: skip
    output = ppo.PolicyOutput(
        logits[:, None], jnp.array([[1.0, 0.0], [0.0, 1.0]]), jnp.array([[0.2], [0.4]])
    )
    total, _ = published.loss(output, batch, objective)
    log_probs = ppo.bernoulli_log_prob(logits[:, None], masks)[:, None]
    expected = (
        ppo.clipped_surrogate(log_probs, batch.log_probs, batch.advantages, 0.2)
        - 0.3 * ppo.bernoulli_entropy(logits).mean() / features
        + 0.7 * published.value_loss(output.values, batch.scores)
        + 0.9 * ppo.kl_to_softmax(output.class_logits, batch.probabilities, form)
    )
    np.testing.assert_allclose(total, expected, rtol=1e-6)


def test_objective_refuses_what_it_cannot_be():
    """Breaks if a typo in a config silently trains something else."""
    with pytest.raises(ValueError, match="form is 'papr'; expected one of paper, authors"):
        published.Objective("papr")
    with pytest.raises(ValueError, match="num_masks, num_updates and num_passes must be at least"):
        published.Objective(num_masks=0)
    with pytest.raises(ValueError, match="the preset paper compares softmaxes"):
        published.Objective("paper", output="sigmoid")
    assert published.Objective("authors", output="sigmoid").kl_coef
