"""The published objective of FEX: Pan, Moniz and Chawla, IJCAI 2025, Eq. 9 and 18 to 25.

`form` is "paper", to the letter, or "authors", what the authors' code computes. Where they agree
with the default objective, `ppo` has the equations. A critic learns v_y(x), the value baseline.

f, its inputs without features, and the policy enter as the pure functions that `ppo` describes.
Shapes: B inputs, K classes, of which one is explained (T = 1), N features, S masks drawn per input.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp

from fex_jax import algorithm
from fex_jax.answers import ask
from fex_jax.objectives import Networks
from fex_jax.ppo import (
    Form,
    Inputs,
    PolicyOutput,
    bernoulli,
    bernoulli_entropy,
    bernoulli_log_prob,
    clipped_surrogate,
    kl_term,
    of_features,
)
from fex_jax.targets import choose_classes
from fex_jax.updates import Metrics

OUTPUTS, CRITIC = ("softmax", "sigmoid"), True
LEARNS = "the presets paper and authors learn from probabilities"


@dataclasses.dataclass(frozen=True)
class Objective:
    """What is maximised; the presets of `settings` spell out every field."""

    form: Form = "authors"
    output: Literal["softmax", "sigmoid"] = "softmax"  # what f's answers are
    num_masks: int = 5  # S, the paper's s: queries an input
    num_updates: int = 4  # gradient steps a pass, each on a different part of its inputs
    num_passes: int = 1  # over a batch and what f said of its masks
    clip_epsilon: float = 0.2
    entropy_coef: float = 1e-4
    value_coef: float = 0.5
    kl_coef: float = 1.0

    def __post_init__(self) -> None:
        if self.form not in get_args(Form):
            raise ValueError(f"form is {self.form!r}; expected one of {', '.join(get_args(Form))}")
        if self.output == "sigmoid" and self.form == "paper" and self.kl_coef:
            raise ValueError(
                "the predictor answers with output='sigmoid', and the preset paper compares "
                "softmaxes (Eq. 24): use the preset authors or contrast"
            )
        if min(self.num_masks, self.num_updates, self.num_passes) < 1:
            raise ValueError("num_masks, num_updates and num_passes must be at least 1")


class Answered(NamedTuple):
    """A batch with masks, and what they are worth; the leading axis of every field is B."""

    inputs: Inputs
    targets: jax.Array  # [B, 1]
    probabilities: jax.Array  # [B, K] f(x)
    masks: jax.Array  # [B, S, N] bool
    log_probs: jax.Array  # [B, 1, S] log q_old(m | x)
    scores: jax.Array  # [B, 1, S] c(m, x)
    advantages: jax.Array  # [B, 1, S]


def ratio_score(
    kept: jax.Array, masks: jax.Array, form: Form, valid: jax.Array | None = None
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


def advantage(scores: jax.Array, values: jax.Array, form: Form) -> jax.Array:
    """A = (c − v_y) / T (Eq. 18, T = S masks); "authors": without 1/T. Values [..., 1]."""
    difference = scores - values
    return difference / scores.shape[-1] if form == "paper" else difference


def value_loss(values: jax.Array, scores: jax.Array) -> jax.Array:
    """L_v = E[(c − v_y)²] (Eq. 19); values [...], scores [..., S]; scalar."""
    return jnp.mean((scores - values[..., None]) ** 2)


def entropy_bonus(
    entropy: jax.Array, logits: jax.Array, form: Form, valid: jax.Array | None = None
) -> jax.Array:
    """E[H(q)] (Eq. 23), of all features together; "authors": mean of a feature, over the batch."""
    if form == "paper":
        return entropy
    return entropy / jnp.ones_like(logits).sum(-1, where=valid).mean()


def play(
    predict: Callable[[Inputs], jax.Array],
    mask: Callable[[Inputs, jax.Array], Inputs],
    policy: Callable[[Inputs, jax.Array], PolicyOutput],
    inputs: Inputs,
    key: jax.Array,
    objective: Objective,
    grid: tuple[int, ...] = (),
) -> tuple[Answered, Metrics]:
    """Draws S masks m ~ q (Eq. 7) for the most probable class, and asks f what they are worth.

    f sees every input 1 + S times, g once. How features lie, `grid`, makes no difference.
    """
    target_key, _, mask_key = jax.random.split(key, 3)
    probabilities = predict(inputs)
    targets = choose_classes(target_key, probabilities, "argmax", 1)
    output = policy(inputs, targets)
    logits = of_features(output.logits, output.valid)  # [B, 1, N]
    drawn = bernoulli(logits[:, 0]).sample(seed=mask_key, sample_shape=(objective.num_masks,))
    drawn = drawn.astype(logits.dtype)
    answers = ask(predict, mask, inputs, targets, drawn)  # [S, B, 1]
    scores = jnp.moveaxis(ratio_score(answers, drawn, objective.form, output.valid), 0, -1)
    masks = jnp.swapaxes(drawn, 0, 1)  # [B, S, N]
    batch = Answered(
        inputs=inputs,
        targets=targets,
        probabilities=probabilities,
        masks=masks.astype(bool),
        log_probs=bernoulli_log_prob(logits[:, :, None], masks[:, None]),
        scores=scores,
        advantages=advantage(scores, output.values[..., None], objective.form),
    )
    lam = jax.nn.sigmoid(logits)
    return batch, algorithm.said_of_masks(output.logits, lam, masks, output.valid) | {
        "score/mean": scores.mean(),
        "f/clean": probabilities.max(-1).mean(),
        "f/under_policy": answers.mean(),
    }


def loss(output: PolicyOutput, batch: Answered, objective: Objective) -> tuple[jax.Array, Metrics]:
    """L = L_ppo − λ_en H(q) + λ_v L_v + λ_kl L_kl (Eq. 25) and its parts."""
    logits = of_features(output.logits, output.valid)
    log_probs = bernoulli_log_prob(logits[:, :, None], batch.masks[:, None])  # [B, 1, S]
    epsilon = objective.clip_epsilon
    clipped = clipped_surrogate(log_probs, batch.log_probs, batch.advantages, epsilon)
    entropy = bernoulli_entropy(logits).mean()
    value = value_loss(output.values, batch.scores)
    kl = kl_term(objective.output, output.class_logits, batch.probabilities, objective.form)
    total = (
        clipped
        - objective.entropy_coef * entropy_bonus(entropy, logits, objective.form, output.valid)
        + objective.value_coef * value
        + objective.kl_coef * kl
    )
    ratio = jnp.exp(log_probs - batch.log_probs)
    return total, {
        "loss": total,
        "loss/clipped": clipped,
        "loss/value": value,
        "loss/kl": kl,
        "policy/entropy": entropy,  # nats, of all N features together
        "value/explained_variance": 1 - value / jnp.maximum(jnp.var(batch.scores), 1e-12),
        "ppo/clip_fraction": jnp.mean(jnp.abs(ratio - 1) > epsilon),
        "ppo/ratio_min": ratio.min(),
        "ppo/ratio_max": ratio.max(),
    }


def networks(given: Networks) -> dict[str, Callable]:
    """Those of `algorithm`, with the means that Eq. 24 compares in this form."""
    return algorithm.networks(given, given.objective.form)


train_step = functools.partial(algorithm.train_step, play=play, loss=loss)
