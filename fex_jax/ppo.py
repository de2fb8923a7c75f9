"""The objective of an explainer: the equations of Pan, Moniz and Chawla, IJCAI 2025, by number.

`contrast` has those of the default, docs/method.md; `algorithm` adds them up, asks f and takes a
training step.

The explainer g and the black box f enter as three pure functions, whatever the modality:

    predict(inputs) -> probabilities [B, K]
    mask(inputs, masks) -> inputs without the features whose mask is 0; masks [B, N]
    policy(params, inputs, targets [B, T]) -> PolicyOutput

Inputs are an array or a pytree of arrays [B, ...]. Those with fewer than N features say so in
`PolicyOutput.valid`; features beyond them are never kept and never counted.

Shapes: B inputs, K classes, of which T are explained, N features, S masks drawn per input.
"""

import dataclasses
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from fex_jax.distributions import distrax

Inputs = Any  # an array [B, ...], or a pytree of them
_NEVER = -1e9  # the logit of a feature that is not there: λ, log q and H are exactly 0


@dataclasses.dataclass(frozen=True)
class Objective:
    """What is maximised and how; the three presets of configs/ spell out every field."""

    score: Literal["paper", "authors", "contrast"] = "contrast"
    answers: Literal["probability", "log_odds"] = "log_odds"  # h, of which the contrast is taken
    surrogate: Literal["clipped", "regression"] = "regression"
    targets: Literal["argmax", "sampled"] = "sampled"
    num_targets: int = 10  # T, at most K − 1: classes whose maps learn from each answer
    budget_range: float = 3.0  # 0: the policy chooses how much to keep; see `shift_budget`
    baseline: Literal["value", "leave_one_out"] = "leave_one_out"
    advantage: Literal["paper", "authors", "normalized"] = "normalized"
    entropy: Literal["paper", "authors"] = "paper"
    kl: Literal["paper", "authors"] = "authors"
    output: Literal["softmax", "sigmoid", "value"] = "softmax"  # what f's answers are
    standardize: bool = True  # values, by their spread over a batch
    num_masks: int = 10  # S, the paper's s: queries an input
    num_updates: int = 4  # gradient steps a pass, each on a different part of its inputs
    num_passes: int = 3  # over a batch and what f said of its masks
    temperature: float = 0.5  # α of the regression for up to 64 features; see `contrast.slope`
    clip_epsilon: float = 0.2  # of the clipped surrogate
    entropy_coef: float = 0.0
    value_coef: float = 0.0
    kl_coef: float = 1.0

    def __post_init__(self) -> None:
        for name in (
            "score", "answers", "surrogate", "targets", "baseline", "advantage", "entropy", "kl",
            "output",
        ):  # fmt: skip
            allowed = self.__annotations__[name].__args__
            if getattr(self, name) not in allowed:
                raise ValueError(
                    f"{name} is {getattr(self, name)!r}; expected one of {', '.join(allowed)}"
                )
        if self.surrogate == "regression" and not self.budget_range > 0:
            raise ValueError(
                f"budget_range={self.budget_range}: the regression is around a drawn budget "
                "and needs a positive range; a policy that chooses its own takes surrogate=clipped"
            )
        if self.score == "contrast" and self.baseline == "value":
            raise ValueError(
                "baseline=value: one v(x) cannot be the mean of both questions of the contrast, "
                "h(m⊙x) and −h((1−m)⊙x); use leave_one_out"
            )
        if self.output == "value" and self.surrogate == "clipped":
            raise ValueError(
                "the predictor answers with output='value', any number, and the presets paper and "
                "authors (surrogate=clipped) learn from probabilities: use the preset contrast"
            )
        if self.output == "sigmoid" and self.kl == "paper" and self.kl_coef:
            raise ValueError("kl=paper is of a softmax; for f of sigmoids use kl=authors")
        if self.score != "contrast" and self.answers == "log_odds":
            raise ValueError(
                f"score={self.score}: f / K_m needs positive answers; use answers=probability"
            )
        if self.surrogate == "clipped" and self.num_targets != 1:
            raise ValueError(
                f"num_targets={self.num_targets}: masks are drawn for one class, and a ratio of "
                "probabilities cannot make up for that of another; surrogate=clipped takes 1"
            )
        compared = self.surrogate == "regression" or self.baseline == "leave_one_out"
        least = (1 + compared) * self.num_groups
        if self.num_masks % self.num_groups or self.num_masks < least:
            raise ValueError(
                f"num_masks={self.num_masks}; expected at least {least}"
                + ", an even number" * (self.num_groups == 2)
            )
        counts = self.num_targets, self.num_updates, self.num_passes
        if min(counts) < 1 or self.temperature <= 0:
            raise ValueError(
                f"num_targets={self.num_targets}, num_updates={self.num_updates}, "
                f"num_passes={self.num_passes}, temperature={self.temperature}: expected at least "
                "1, 1, 1, and more than 0"
            )

    @property
    def learns_f(self) -> bool:
        """Whether the softmax of the maps' means becomes f(x), which contrastive maps need."""
        return self.kl == "authors" and self.kl_coef > 0 and self.output != "value"

    @property
    def num_groups(self) -> int:
        """Kinds of questions about masks: what is kept, and for the contrast what is left."""
        return 2 if self.score == "contrast" else 1


class PolicyOutput(NamedTuple):
    """What the explainer says of a batch."""

    logits: jax.Array  # [B, T, N] of the targets' maps: λ = σ(logits), Eq. 7
    class_logits: jax.Array  # [B, K] whose softmax is compared with f, Eq. 24
    values: jax.Array  # [B, T] v_y(x)
    valid: jax.Array | None = None  # [B, 1, N] bool, features that an input has; None: all
    # z_0 [B, 1, N] and c [B, T, N], where the logits are a z_0 + b c; None: they are of one piece
    parts: tuple[jax.Array, jax.Array] | None = None
    faithfulness: jax.Array | None = None  # [B, 1, 2] of the first target: `fex_jax.faithfulness`
    # ψ [B, T, N] of the background row that each input is asked with; see `contrast`
    row: jax.Array | None = None


class Rollout(NamedTuple):
    """A batch with the masks drawn for it; the leading axis of every field is B."""

    inputs: Inputs
    targets: jax.Array  # [B, T]; masks are drawn for the first
    probabilities: jax.Array  # [B, K] f(x)
    budgets: jax.Array  # [B, 1, 1] the logit offset shared by the masks of an input
    masks: jax.Array  # [B, S, N] bool
    log_probs: jax.Array  # [B, 1, S] log q_old(m | x), of that class
    scores: jax.Array  # [B, T, S] c(m, x)
    advantages: jax.Array  # [B, T, S]


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


def centre(logits: jax.Array, valid: jax.Array | None = None) -> jax.Array:
    """z − mean(z) over the features [..., N] that an input has; anything at the others."""
    return logits - logits.mean(-1, keepdims=True, where=valid)


def shift_budget(
    logits: jax.Array,
    budgets: jax.Array | float,
    objective: Objective,
    valid: jax.Array | None = None,
) -> jax.Array:
    """Logits [..., N] from which masks are drawn: z, or z − mean(z) + b with b ~ U(−r, r).

    With r > 0 how much is kept is not the policy's to choose, only the order, so the degenerate
    optimum of f/K_m (all mass on one feature) is gone. Features that are not `valid` have no part
    in the mean and are never drawn.
    """
    if objective.budget_range != 0:
        logits = centre(logits, valid) + budgets
    return logits if valid is None else jnp.where(valid, logits, _NEVER)


# ---------------------------------------------------------------- scores and advantages


def ratio_score(
    kept: jax.Array, masks: jax.Array, form: str, valid: jax.Array | None = None
) -> jax.Array:
    """c(m, x) = f_y(m⊙x) / K_m (Eq. 9), K_m = Σ_i m_i; kept [..., B, T] = f_y(m⊙x).

    "paper": f / K_m, and 0 where nothing is kept. "authors": N f / (K_m + 1), their code's form,
    where N counts the features an input has. Masks [..., B, N], valid [B, 1, N].
    """
    num_kept = masks.sum(-1, keepdims=True, dtype=kept.dtype)
    if form == "paper":
        return jnp.where(num_kept > 0, kept / jnp.maximum(num_kept, 1), 0.0)
    num_features = masks.shape[-1] if valid is None else valid.sum(-1, dtype=kept.dtype)
    return num_features * kept / (num_kept + 1)


def leave_one_out(scores: jax.Array, num_groups: int = 1) -> jax.Array:
    """Mean score of the input's other masks of a group, [..., S] → same: an unbiased baseline."""
    groups = scores.reshape(*scores.shape[:-1], num_groups, -1)  # one after the other
    others = (groups.sum(-1, keepdims=True) - groups) / (groups.shape[-1] - 1)
    return others.reshape(scores.shape)


def advantage(scores: jax.Array, baseline: jax.Array, form: str) -> jax.Array:
    """A = (c − baseline) / T (Eq. 18, T = S masks); without 1/T; or scaled to unit variance."""
    difference = scores - baseline
    if form == "paper":
        return difference / scores.shape[-1]
    if form == "authors":
        return difference
    return difference / (jnp.sqrt(jnp.mean(difference**2)) + 1e-6)


# ---------------------------------------------------------------- losses


def clipped_surrogate(
    log_probs: jax.Array, old_log_probs: jax.Array, advantages: jax.Array, epsilon: float
) -> jax.Array:
    """L_ppo = −E[min(r A, clip(r, 1−ε, 1+ε) A)], r = q(m|x) / q_old(m|x) (Eq. 20–22); scalar."""
    ratio = jnp.exp(log_probs - old_log_probs)
    clipped = jnp.clip(ratio, 1 - epsilon, 1 + epsilon)
    return -jnp.mean(jnp.minimum(ratio * advantages, clipped * advantages))


def value_loss(values: jax.Array, scores: jax.Array) -> jax.Array:
    """L_v = E[(c − v_y)²] (Eq. 19); values [...], scores [..., S]; scalar."""
    return jnp.mean((scores - values[..., None]) ** 2)


def kl_to_softmax(class_logits: jax.Array, probabilities: jax.Array, form: str) -> jax.Array:
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
