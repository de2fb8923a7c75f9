"""The equations that objectives share, by enumeration, finite differences and by hand."""

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


def test_clipped_gradient_is_the_policy_gradient():
    """Breaks if, on policy, ∇L_ppo is not −∇E_q[c] (Eq. 13): both summed over all masks."""
    scores = jax.random.uniform(jax.random.key(0), (8,))

    def expected_score(logits):
        return jnp.exp(ppo.bernoulli_log_prob(logits[None], ALL_MASKS)) @ scores

    def clipped(logits):  # each mask weighted by how often the old policy draws it
        log_probs = ppo.bernoulli_log_prob(logits[None], ALL_MASKS)
        old = jax.lax.stop_gradient(log_probs)
        weight = jnp.exp(old)
        terms = [
            ppo.clipped_surrogate(log_probs[i], old[i], scores[i] - 0.3, 0.2) for i in range(8)
        ]
        return jnp.stack(terms) @ weight

    found, expected = jax.jit(lambda z: (jax.grad(clipped)(z), jax.grad(expected_score)(z)))(
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
    for output, own in (("sigmoid", ppo.kl_to_sigmoids(z, f)), ("value", 0.0)):
        assert float(ppo.kl_term(output, z, f, "authors")) == float(own)


def test_gradient_of_the_entropy():
    """Breaks if a gradient is stopped or scaled: finite differences."""
    entropy = lambda logits: ppo.bernoulli_entropy(logits).sum()  # noqa: E731
    np.testing.assert_allclose(
        jax.grad(entropy)(LOGITS), finite_difference(entropy, LOGITS), atol=1e-3
    )


def test_features_that_are_not_there_are_never_kept():
    """Breaks if padding is drawn, or adds to log q or H."""
    valid = jnp.array([True, True, False])
    padded = ppo.of_features(LOGITS, valid)
    drawn = ppo.bernoulli(padded).sample(seed=jax.random.key(0), sample_shape=(99,))
    assert drawn.any() and not drawn[..., 2].any()
    for function in (ppo.bernoulli_entropy, lambda z: ppo.bernoulli_log_prob(z, 0 * z)):
        np.testing.assert_array_equal(function(padded), function(LOGITS[:, :2]))
    assert ppo.of_features(LOGITS, None) is LOGITS
