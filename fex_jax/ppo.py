"""What FEX's objectives share of the equations of Pan, Moniz and Chawla, IJCAI 2025, by number.

`contrast` is the default objective, `published` has the others of the paper's equations, and
`algorithm` the training step of both.

The explainer g and the black box f enter as three pure functions, whatever the modality:

    predict(inputs) -> answers [B, K], most often probabilities
    mask(inputs, masks) -> inputs without the features whose mask is 0; masks [B, N]
    policy(inputs, targets [B, T]) -> PolicyOutput

Inputs are an array or a pytree of arrays [B, ...]. Those with fewer than N features say so in
`PolicyOutput.valid`; features beyond them are never kept and never counted.

Shapes: B inputs, K classes, of which T are explained, N features, S masks drawn per input.
"""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from fex_jax.distributions import distrax

Inputs = Any  # an array [B, ...], or a pytree of them
Form = Literal["paper", "authors"]  # to the letter, or what the authors' code computes
_NEVER = -1e9  # the logit of a feature that is not there: λ, log q and H are exactly 0


class PolicyOutput(NamedTuple):
    """What the explainer says of a batch."""

    logits: jax.Array  # [B, T, N] of the targets' maps: λ = σ(logits), Eq. 7
    class_logits: jax.Array  # [B, K] whose softmax is compared with f, Eq. 24
    values: jax.Array | None = None  # [B, T] v_y(x), of a policy with a critic
    valid: jax.Array | None = None  # [B, 1, N] bool, features that an input has; None: all
    # z_0 [B, 1, N] and c [B, T, N], where the logits are a z_0 + b c; None: they are of one piece
    parts: tuple[jax.Array, jax.Array] | None = None
    faithfulness: jax.Array | None = None  # [B, 1, 2] of the first target: `fex_jax.faithfulness`
    # ψ [B, T, N] of the background row that each input is asked with; see `contrast`
    row: jax.Array | None = None


# ---------------------------------------------------------------- the policy as a distribution


def bernoulli(logits: jax.Array) -> distrax.Independent:
    """q = Bernoulli(λ), λ = σ(logits), independent over the last axis (Eq. 7)."""
    return distrax.Independent(distrax.Bernoulli(logits=logits), reinterpreted_batch_ndims=1)


def bernoulli_log_prob(logits: jax.Array, masks: jax.Array) -> jax.Array:
    """log q(m|x) = Σ_i m_i log λ_i + (1 − m_i) log(1 − λ_i), [..., N] → [...] (Eq. 7)."""
    return bernoulli(logits).log_prob(masks.astype(logits.dtype))


def bernoulli_entropy(logits: jax.Array) -> jax.Array:
    """H(q) = −Σ_i λ_i log λ_i + (1 − λ_i) log(1 − λ_i), [..., N] → [...] (in Eq. 23)."""
    return bernoulli(logits).entropy()


def of_features(logits: jax.Array, valid: jax.Array | None) -> jax.Array:
    """Logits [..., N] with which no feature is kept that an input does not have."""
    return logits if valid is None else jnp.where(valid, logits, _NEVER)


# ---------------------------------------------------------------- losses


def clipped_surrogate(
    log_probs: jax.Array, old_log_probs: jax.Array, advantages: jax.Array, epsilon: float
) -> jax.Array:
    """L_ppo = −E[min(r A, clip(r, 1−ε, 1+ε) A)], r = q(m|x) / q_old(m|x) (Eq. 20–22); scalar."""
    ratio = jnp.exp(log_probs - old_log_probs)
    clipped = jnp.clip(ratio, 1 - epsilon, 1 + epsilon)
    return -jnp.mean(jnp.minimum(ratio * advantages, clipped * advantages))


def kl_to_softmax(class_logits: jax.Array, probabilities: jax.Array, form: Form) -> jax.Array:
    """Divergence between p = softmax(class_logits) and f(x) (Eq. 24), mean over inputs; scalar.

    "paper": D(p ‖ f), with class_logits = mean_i log σ(z_ik).
    "authors": D(f ‖ p), with class_logits = mean_i z_ik. Both arguments [B, K].
    """
    log_p = jax.nn.log_softmax(class_logits)
    log_f = jnp.log(jnp.maximum(probabilities, 1e-8))
    if form == "paper":
        return jnp.mean(jnp.sum(jnp.exp(log_p) * (log_p - log_f), -1))
    return jnp.mean(jnp.sum(probabilities * (log_f - log_p), -1))


def kl_to_sigmoids(class_logits: jax.Array, probabilities: jax.Array) -> jax.Array:
    """Σ_k D(f_k ‖ σ(mean_i z_ik)) of independent labels, "authors" form; [B, K] → scalar."""
    f = jnp.clip(probabilities, 1e-8, 1 - 1e-7)
    of_one = f * (jnp.log(f) - jax.nn.log_sigmoid(class_logits))
    of_other = (1 - f) * (jnp.log1p(-f) - jax.nn.log_sigmoid(-class_logits))
    return jnp.mean(jnp.sum(of_one + of_other, -1))


def kl_term(output: str, class_logits: jax.Array, answers: jax.Array, form: Form) -> jax.Array:
    """L_kl of answers that are a "softmax" or "sigmoid"; of a "value", whose size g need not know,
    0. Scalar."""
    if output == "value":
        return jnp.zeros(())
    if output == "sigmoid":
        return kl_to_sigmoids(class_logits, answers)
    return kl_to_softmax(class_logits, answers, form)
