"""Algorithm 1 of the paper, one batch: masks are drawn, f is asked, the policy learns.

f, its inputs without features, and the policy enter as the pure functions that `ppo` describes.
Shapes: B inputs, K classes, of which T are explained, N features, S masks drawn per input.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from fex_jax import draws, faithfulness
from fex_jax.answers import ask, log_odds, standardized
from fex_jax.contrast import contrast_score, regression_loss, shared_regression_loss
from fex_jax.ppo import (
    Inputs,
    Objective,
    PolicyOutput,
    Rollout,
    advantage,
    bernoulli,
    bernoulli_entropy,
    bernoulli_log_prob,
    clipped_surrogate,
    kl_to_sigmoids,
    kl_to_softmax,
    leave_one_out,
    ratio_score,
    shift_budget,
    value_loss,
)
from fex_jax.targets import choose_classes
from fex_jax.updates import Metrics, TrainState, update


def draw_masks(
    key: jax.Array, logits: jax.Array, objective: Objective, grid: tuple[int, ...]
) -> jax.Array:
    """S masks of each input, float [S, B, N]: m ~ q, logits [B, N] (Eq. 7).

    A regression does not ask how features are drawn together. Its masks keep as many as λ adds up
    to, and fall in patches, where `grid` has rows and columns: `draws.masks`.
    """
    shape = (objective.num_masks,)
    if objective.surrogate == "clipped":
        drawn = bernoulli(logits).sample(seed=key, sample_shape=shape)
    else:
        drawn = draws.masks(key, logits, grid, shape)
    return drawn.astype(logits.dtype)


class Drawn(NamedTuple):
    """Masks drawn for a batch, and what learning from f's answers to them needs."""

    targets: jax.Array  # [B, T] classes; masks are drawn for the first
    probabilities: jax.Array  # [B, K] f(x)
    budgets: jax.Array  # [B, 1, 1]
    logits: jax.Array  # [B, 1, N] of the first target, before its budget
    values: jax.Array  # [B, T] v_y(x)
    valid: jax.Array | None  # [B, 1, N]; see `ppo.PolicyOutput`
    masks: jax.Array  # [S, B, N]


def draw(
    policy: Callable[[Inputs, jax.Array], PolicyOutput],
    inputs: Inputs,
    probabilities: jax.Array,
    key: jax.Array,
    objective: Objective,
    grid: tuple[int, ...] = (),
) -> Drawn:
    """Chooses T classes of each input by f(x) [B, K], and draws S masks for the first.

    The classes are the most probable, as y in Algorithm 1, or drawn from f(x) one after the other
    without replacement; an answer of f holds them all. Of values, any alike.
    """
    target_key, budget_key, mask_key = jax.random.split(key, 3)
    rule = "uniform" if objective.output == "value" else objective.targets
    targets = choose_classes(target_key, probabilities, rule, objective.num_targets)
    output = policy(inputs, targets)
    budgets = objective.budget_range * jax.random.uniform(
        budget_key, (len(targets), 1, 1), minval=-1.0, maxval=1.0
    )
    drawn_for = output.logits[:, :1]
    logits = shift_budget(drawn_for, budgets, objective, output.valid)
    masks = draw_masks(mask_key, logits[:, 0], objective, grid)  # [S, B, N]
    return Drawn(targets, probabilities, budgets, drawn_for, output.values, output.valid, masks)


def questions(drawn: Drawn, objective: Objective) -> jax.Array:
    """The masks that f is asked about, [S, B, N]: some drawn ones, of the others the complement."""
    first = objective.num_masks // objective.num_groups
    return jnp.concatenate([drawn.masks[:first], 1 - drawn.masks[first:]])


def judge(
    drawn: Drawn, inputs: Inputs, answers: jax.Array, objective: Objective
) -> tuple[Rollout, Metrics]:
    """What the masks are worth, from f's answers [S, B, T] to `questions`."""
    targets, probabilities, budgets, drawn_for, values, valid, masks = drawn
    if objective.score == "contrast":
        if objective.output == "value":
            h = answers
            if objective.standardize:
                h = standardized(answers, probabilities, targets)
        else:
            h = log_odds(answers) if objective.answers == "log_odds" else answers
        scores = contrast_score(h)
    else:
        scores = ratio_score(answers, masks, objective.score, valid)
    scores, masks = jnp.moveaxis(scores, 0, -1), jnp.swapaxes(masks, 0, 1)  # [B, T, S], [B, S, N]
    if objective.baseline == "leave_one_out":
        baseline = leave_one_out(scores, objective.num_groups)
    else:
        baseline = values[..., None]
    logits = shift_budget(drawn_for, budgets, objective, valid)
    batch = Rollout(
        inputs=inputs,
        targets=targets,
        probabilities=probabilities,
        budgets=budgets,
        masks=masks.astype(bool),
        log_probs=bernoulli_log_prob(logits[:, :, None], masks[:, None]),
        scores=scores,
        advantages=advantage(scores, baseline, objective.advantage),
    )
    lam = jax.nn.sigmoid(shift_budget(drawn_for, 0.0, objective, valid))
    return (
        batch,
        {
            "policy/mean_lambda": lam.mean(where=valid),
            "policy/kept_features": masks.sum(-1).mean(),  # K_m
            "policy/num_features": jnp.ones_like(masks[:, :1]).sum(-1, where=valid).mean(),
            "policy/logit_std": drawn_for.std(-1, where=valid).mean(),
            "score/mean": scores[:, 0].mean(),
            "f/clean": probabilities.max(-1).mean(),
            "f/under_policy": answers[: len(answers) // objective.num_groups, :, 0].mean(),
        },
    )


def rollout(
    predict: Callable[[Inputs], jax.Array],
    mask: Callable[[Inputs, jax.Array], Inputs],
    policy: Callable[[Inputs, jax.Array], PolicyOutput],
    inputs: Inputs,
    key: jax.Array,
    objective: Objective,
    grid: tuple[int, ...] = (),
) -> tuple[Rollout, Metrics]:
    """Draws masks, asks f what they are worth, and judges them by its answers.

    f sees every input 1 + S times, g once.
    """
    drawn = draw(policy, inputs, predict(inputs), key, objective, grid)
    answers = ask(predict, mask, inputs, drawn.targets, questions(drawn, objective))  # [S, B, T]
    return judge(drawn, inputs, answers, objective)


def train_step(
    state: TrainState,
    inputs: Inputs,
    key: jax.Array,
    *,
    predict: Callable[[Inputs], jax.Array],
    mask: Callable[[Inputs, jax.Array], Inputs],
    policy: Callable[[dict, Inputs, jax.Array], PolicyOutput],
    optimizer: optax.GradientTransformation,
    objective: Objective,
    grid: tuple[int, ...] = (),
) -> tuple[TrainState, Metrics]:
    """Algorithm 1 for one batch: a rollout, then `num_passes` of `num_updates` gradient steps.

    Every update of a pass sees other inputs of the batch with all their masks, so one forward and
    backward pass of g serves S masks, and a batch costs g one rollout pass and its gradient passes.
    """
    batch, metrics = rollout(
        predict, mask, lambda *args: policy(state.params, *args), inputs, key, objective, grid
    )
    state, losses = learn(state, batch, policy, optimizer, objective)
    return state, metrics | losses


def learn(
    state: TrainState,
    batch: Rollout,
    policy: Callable[[dict, Inputs, jax.Array], PolicyOutput],
    optimizer: optax.GradientTransformation,
    objective: Objective,
) -> tuple[TrainState, Metrics]:
    """The gradient steps of `train_step`, from a batch whose masks are judged."""
    return update(
        state,
        batch,
        lambda params, part: loss(policy(params, part.inputs, part.targets), part, objective),
        optimizer,
        objective.num_updates,
        objective.num_passes,
    )


def loss(output: PolicyOutput, batch: Rollout, objective: Objective) -> tuple[jax.Array, Metrics]:
    """L = L_ppo − λ_en H(q) + λ_v L_v + λ_kl L_kl (Eq. 25) and its parts.

    H(q) is the entropy of all features together in the form "paper", and a feature's mean entropy,
    over all features of the batch, in the form "authors".
    For the regression, L_ppo is the root of its mean squared residual in units of α / G.
    """
    logits = shift_budget(output.logits[:, :1], batch.budgets, objective, output.valid)
    log_probs = bernoulli_log_prob(logits[:, :, None], batch.masks[:, None])  # [B, 1, S]
    if objective.surrogate == "clipped":
        surrogate = clipped_surrogate(
            log_probs, batch.log_probs, batch.advantages, objective.clip_epsilon
        )
    elif output.parts is None:
        of_row = 0 if output.row is None else output.row
        surrogate = regression_loss(output.logits - of_row, batch, objective, output.valid)
    else:
        surrogate = shared_regression_loss(*output.parts, batch, objective, output.valid)
    entropy = jnp.mean(bernoulli_entropy(logits))
    bonus = entropy
    if objective.entropy == "authors":
        num_features = jnp.ones_like(logits).sum(-1, where=output.valid)
        bonus = entropy / num_features.mean()
    value = value_loss(output.values, batch.scores)
    if objective.output == "value":  # of which g need not know the size
        kl = jnp.zeros(())
    elif objective.output == "sigmoid":
        kl = kl_to_sigmoids(output.class_logits, batch.probabilities)
    else:
        kl = kl_to_softmax(output.class_logits, batch.probabilities, objective.kl)
    total = (
        surrogate
        - objective.entropy_coef * bonus
        + objective.value_coef * value
        + objective.kl_coef * kl
    )
    metrics = {
        "loss": total,
        "loss/surrogate": surrogate,
        "loss/value": value,
        "loss/kl": kl,
        "policy/entropy": entropy,  # nats, of all N features together
        "value/explained_variance": 1 - value / jnp.maximum(jnp.var(batch.scores), 1e-12),
    }
    if objective.surrogate == "clipped":
        ratio = jnp.exp(log_probs - batch.log_probs)
        metrics |= {
            "ppo/clip_fraction": jnp.mean(jnp.abs(ratio - 1) > objective.clip_epsilon),
            "ppo/ratio_min": ratio.min(),
            "ppo/ratio_max": ratio.max(),
        }
    if output.faithfulness is not None:  # learns apart, and from the same answers
        metrics["loss/faithfulness"] = faithfulness.loss(output.faithfulness, batch, objective)
        total += metrics["loss/faithfulness"]
    return total, metrics


def collapse_warning(metrics: dict[str, float]) -> str | None:
    """Says in words that the policy no longer ranks most features, or None if it does.

    The optimum of f/K_m keeps one or two features (docs/method.md): localisation stays good while
    the order of all other features, and with it negative AUC, is lost.
    """
    kept, num_features = metrics["policy/kept_features"], metrics["policy/num_features"]
    entropy = metrics["policy/entropy"] / (num_features * 0.6931)
    if 0.08 * num_features < kept < 0.92 * num_features and entropy > 0.05:
        return None
    return (
        f"the policy has collapsed: it keeps {kept:.1f} of {num_features:g} features with "
        f"{entropy:.0%} of the maximal entropy, so most features are no longer ranked. Use the "
        "'contrast' preset, a lower learning rate, or a larger entropy_coef (of the regression: "
        "temperature)."
    )
