"""The default objective: a contrast of f's answers, and its regression on the map: docs/method.md.

f, its inputs without features, and the policy enter as the pure functions that `ppo` describes.
Shapes: B inputs, K classes, of which T are explained, N features, S masks drawn per input.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from fex_jax import algorithm, draws, faithfulness
from fex_jax.answers import alpha, ask, log_odds, standardized
from fex_jax.models.policy import Policy
from fex_jax.objectives import Networks
from fex_jax.ppo import Inputs, PolicyOutput, bernoulli_entropy, kl_term, of_features
from fex_jax.predictors import Model
from fex_jax.targets import choose_classes
from fex_jax.updates import Metrics

REGRESSES = CENTRED = True
GROUPS = 2  # G: what masks keep, and what they leave; half of the masks each


@dataclasses.dataclass(frozen=True)
class Objective:
    """What is maximised; the preset of `settings` spells out every field."""

    output: Literal["softmax", "sigmoid", "value"] = "softmax"  # what f's answers are
    targets: Literal["argmax", "sampled"] = "sampled"  # the most probable, or drawn from f(x)
    num_targets: int = 10  # T, at most K − 1: classes whose maps learn from each answer
    budget_range: float = 3.0  # r of `shift_budget`
    temperature: float = 0.5  # α of the regression for up to 64 features; see `slope`
    kl_coef: float = 1.0
    standardize: bool = True  # values, by their spread over a batch
    num_masks: int = 10  # S, the paper's s: queries an input
    num_updates: int = 4  # gradient steps a pass, each on a different part of its inputs
    num_passes: int = 3  # over a batch and what f said of its masks

    def __post_init__(self) -> None:
        for name in ("output", "targets"):
            allowed = self.__annotations__[name].__args__
            if getattr(self, name) not in allowed:
                raise ValueError(
                    f"{name} is {getattr(self, name)!r}; expected one of {', '.join(allowed)}"
                )
        if self.num_masks % GROUPS or self.num_masks < 2 * GROUPS:
            raise ValueError(
                f"num_masks={self.num_masks}; expected at least {2 * GROUPS}, an even number"
            )
        counts = self.num_targets, self.num_updates, self.num_passes
        if min(counts) < 1 or not min(self.temperature, self.budget_range) > 0:
            raise ValueError(
                f"num_targets={self.num_targets}, num_updates={self.num_updates}, "
                f"num_passes={self.num_passes}, temperature={self.temperature}, "
                f"budget_range={self.budget_range}: expected at least 1, 1, 1, and more than 0"
            )

    @property
    def faithful(self) -> bool:
        """Whether answers are probabilities, of which `fex_jax.faithfulness` is learned, too."""
        return self.output != "value"


def exported(objective: Objective, num_classes: int) -> dict[str, Any]:
    """The fields of explainer.json that are this objective's own."""
    # Maps are weighed against each other by the softmax of their means, which the KL term teaches.
    # Of two classes one's map is the other's mirrored: a contrast would add but noise.
    learns_f = objective.kl_coef > 0 and objective.output == "softmax"
    return {
        "budget": -objective.budget_range,
        "temperature": objective.temperature,
        "contrastive": learns_f and num_classes > 2,
    }


# ---------------------------------------------------------------- questions


class Drawn(NamedTuple):
    """Masks drawn for a batch, and what learning from f's answers to them needs."""

    targets: jax.Array  # [B, T] classes; masks are drawn for the first
    answers: jax.Array  # [B, K] f(x)
    budgets: jax.Array  # [B, 1, 1] the logit offset shared by the masks of an input
    logits: jax.Array  # [B, 1, N] of the first target, before its budget
    valid: jax.Array | None  # [B, 1, N]; see `ppo.PolicyOutput`
    masks: jax.Array  # [S, B, N]


class Answered(NamedTuple):
    """A batch with masks, and what they are worth; the leading axis of every field is B."""

    inputs: Inputs
    targets: jax.Array  # [B, T]; masks are drawn for the first
    probabilities: jax.Array  # [B, K] f(x), or values
    budgets: jax.Array  # [B, 1, 1]
    masks: jax.Array  # [B, S, N] bool
    scores: jax.Array  # [B, T, S] c(m, x)


def centre(logits: jax.Array, valid: jax.Array | None = None) -> jax.Array:
    """z − mean(z) over the features [..., N] that an input has; anything at the others."""
    return logits - logits.mean(-1, keepdims=True, where=valid)


def shift_budget(
    logits: jax.Array, budgets: jax.Array | float, valid: jax.Array | None = None
) -> jax.Array:
    """Logits [..., N] from which masks are drawn: z − mean(z) + b with b ~ U(−r, r).

    How much is kept is not the policy's to choose, only the order, so the degenerate optimum of
    f/K_m (all mass on one feature) is gone. Features that are not `valid` have no part in the mean
    and are never drawn.
    """
    return of_features(centre(logits, valid) + budgets, valid)


def draw(
    policy: Callable[[Inputs, jax.Array], PolicyOutput],
    inputs: Inputs,
    answers: jax.Array,
    key: jax.Array,
    objective: Objective,
    grid: tuple[int, ...] = (),
) -> Drawn:
    """Chooses T classes of each input by f(x) [B, K], and draws S masks for the first.

    The classes are drawn from f(x) one after the other without replacement, or the most probable;
    an answer of f holds them all. Of values, any alike. A regression does not ask how features are
    drawn together: masks keep as many as λ adds up to, and fall in patches, where `grid` has rows
    and columns (`draws.masks`).
    """
    target_key, budget_key, mask_key = jax.random.split(key, 3)
    rule = "uniform" if objective.output == "value" else objective.targets
    targets = choose_classes(target_key, answers, rule, objective.num_targets)
    output = policy(inputs, targets)
    budgets = objective.budget_range * jax.random.uniform(
        budget_key, (len(targets), 1, 1), minval=-1.0, maxval=1.0
    )
    logits = output.logits[:, :1]
    shifted = shift_budget(logits, budgets, output.valid)[:, 0]
    masks = draws.masks(mask_key, shifted, grid, (objective.num_masks,)).astype(logits.dtype)
    return Drawn(targets, answers, budgets, logits, output.valid, masks)


def questions(masks: jax.Array) -> jax.Array:
    """What f is asked about, [S, B, N]: half of the masks, and of the others the complement."""
    first = len(masks) // GROUPS
    return jnp.concatenate([masks[:first], 1 - masks[first:]])


def contrast_score(answers: jax.Array) -> jax.Array:
    """h(m⊙x) of a half of the masks and −h((1−m)⊙x) of the others; [S, ...] → [S, ...].

    Twice the mean estimates E[h(m⊙x) − h((1−m)⊙x)]: what is kept should suffice and its absence
    hurt. The two are asked of different masks, because of one mask they move against each other.
    """
    kept, removed = jnp.split(answers, GROUPS)
    return jnp.concatenate([kept, -removed])


def judge(
    drawn: Drawn, inputs: Inputs, answers: jax.Array, objective: Objective
) -> tuple[Answered, Metrics]:
    """What the masks are worth, from f's answers [S, B, T] to `questions`.

    h is f's log-odds, or its value in standard deviations.
    """
    targets, clean, budgets, logits, valid, masks = drawn
    if objective.output != "value":
        h = log_odds(answers)
    else:
        h = standardized(answers, clean, targets) if objective.standardize else answers
    scores = jnp.moveaxis(contrast_score(h), 0, -1)  # [B, T, S]
    masks = jnp.swapaxes(masks, 0, 1)  # [B, S, N]
    lam = jax.nn.sigmoid(shift_budget(logits, 0.0, valid))
    batch = Answered(inputs, targets, clean, budgets, masks.astype(bool), scores)
    return batch, algorithm.said_of_masks(logits, lam, masks, valid) | {
        "score/mean": scores[:, 0].mean(),
        "f/clean": clean.max(-1).mean(),
        "f/under_policy": answers[: len(answers) // GROUPS, :, 0].mean(),
    }


def play(
    predict: Callable[[Inputs], jax.Array],
    mask: Callable[[Inputs, jax.Array], Inputs],
    policy: Callable[[Inputs, jax.Array], PolicyOutput],
    inputs: Inputs,
    key: jax.Array,
    objective: Objective,
    grid: tuple[int, ...] = (),
) -> tuple[Answered, Metrics]:
    """Draws masks, asks f what they are worth, and judges them by its answers.

    f sees every input 1 + S times, g once.
    """
    drawn = draw(policy, inputs, predict(inputs), key, objective, grid)
    answers = ask(predict, mask, inputs, drawn.targets, questions(drawn.masks))  # [S, B, T]
    return judge(drawn, inputs, answers, objective)


# ---------------------------------------------------------------- losses


def leave_one_out(scores: jax.Array, num_groups: int = GROUPS) -> jax.Array:
    """Mean score of the input's other masks of a group, [..., S] → same: a value baseline."""
    groups = scores.reshape(*scores.shape[:-1], num_groups, -1)  # one after the other
    others = (groups.sum(-1, keepdims=True) - groups) / (groups.shape[-1] - 1)
    return others.reshape(scores.shape)


def regression_residuals(
    logits: jax.Array,
    scores: jax.Array,
    masks: jax.Array,
    objective: Objective,
    valid: jax.Array | None = None,
) -> jax.Array:
    """How far the scores are from linear in the map, as residuals [B, T, S] of mean 0 over masks.

        e_s = R_s − mean of the others' R,   R = c(m, x) − (α / G) Σ_i m_i (z_i − mean z)

    On policy −∇ E[e²] is, up to a factor, the policy gradient of E[c] − α KL(q ‖ flat), where flat
    keeps every feature alike at the same budget b: log q(m) − log flat(m) = Σ_i m_i (z_i − mean z)
    + a constant (docs/derivations.md). Its own linear part is taken off the score, so that what it
    does not explain is all the noise. Off policy it is a regression, which no ratio need correct.
    Logits z [B, T, N], scores [B, T, S] in G groups, masks [B, S, N], valid [B, 1, N].

    Where removed features come from a background row b, z − ψ(b) takes the place of z: keeping a
    feature also keeps b's own out, and what that is worth the map of b says. ψ(b) is it less the
    mean over all b, so that z has the same minimum with it and without it.
    """
    # A feature that is not there is never kept, so what its logit is does not matter.
    linear = jnp.einsum("bsn,btn->bts", masks.astype(logits.dtype), centre(logits, valid))
    rest = scores - slope(logits, objective, valid) * linear
    return rest - leave_one_out(rest)


def slope(logits: jax.Array, objective: Objective, valid: jax.Array | None = None) -> jax.Array:
    """α / G: what a unit of a map's logits [B, T, N] is worth to a group's score; a scalar.

    Of inputs with fewer features than N, those that are `valid` [B, 1, N], it is [B, 1, 1].
    """
    num_features: jax.Array | float = float(logits.shape[-1])
    if valid is not None:
        num_features = valid.sum(-1, keepdims=True, dtype=logits.dtype)
    return alpha(objective.temperature / GROUPS, num_features)


def regression_loss(
    logits: jax.Array,
    batch: Answered,
    objective: Objective,
    valid: jax.Array | None = None,
    weights: jax.Array | float = 1.0,
) -> jax.Array:
    """√E[w e²] in units of α / G, e the residuals of `regression_residuals`; w [B, T, 1] of mean 1.

    The root gives gradients the scale that advantages of unit mean square have.
    """
    errors = regression_residuals(logits, batch.scores, batch.masks, objective, valid)
    unit = slope(logits, objective, valid).mean()
    return jnp.sqrt(jnp.mean(weights * errors**2) + 1e-12) / unit


def shared_regression_loss(
    shared: jax.Array,
    own: jax.Array,
    batch: Answered,
    objective: Objective,
    valid: jax.Array | None = None,
) -> jax.Array:
    """Of what all classes have in common, and of each class alone: z_0 and c learn apart.

    z_0 [B, 1, N] learns from each class by f_y(x), of which one counts that f believes in; c
    [B, T, N] learns as a head without z_0 does.
    """
    common = jnp.broadcast_to(shared, own.shape)
    first = regression_loss(common, batch, objective, valid, plausibility(batch, objective))
    return first + regression_loss(own, batch, objective, valid)


def plausibility(batch: Answered, objective: Objective) -> jax.Array:
    """f_y(x) of the targets relative to their mean over the batch, [B, T, 1]; of values, 1."""
    if objective.output == "value":
        return jnp.ones((*batch.targets.shape, 1))
    f = jnp.take_along_axis(batch.probabilities, batch.targets, -1)[..., None]
    return f / f.mean()


def loss(output: PolicyOutput, batch: Answered, objective: Objective) -> tuple[jax.Array, Metrics]:
    """L = √E[e²] + λ_kl L_kl, the first in units of α / G, and what is logged beside it.

    What predicts faithfulness learns apart, and from the same answers.
    """
    if output.parts is None:
        of_row = 0 if output.row is None else output.row
        error = regression_loss(output.logits - of_row, batch, objective, output.valid)
    else:
        error = shared_regression_loss(*output.parts, batch, objective, output.valid)
    kl = kl_term(objective.output, output.class_logits, batch.probabilities, "authors")
    total = error + objective.kl_coef * kl
    drawn = shift_budget(output.logits[:, :1], batch.budgets, output.valid)
    metrics = {
        "loss": total,
        "loss/regression": error,
        "loss/kl": kl,
        "policy/entropy": bernoulli_entropy(drawn).mean(),  # nats, of all N features together
    }
    if output.faithfulness is not None:
        metrics["loss/faithfulness"] = faithfulness.loss(output.faithfulness, batch)
        total += metrics["loss/faithfulness"]
    return total, metrics


# ---------------------------------------------------------------- training


def networks(given: Networks) -> dict[str, Callable]:
    """Those of `algorithm`, and of an input that is asked with a background row its map."""
    found = algorithm.networks(given)

    def policy(params: dict, pair: tuple, classes: jax.Array) -> PolicyOutput:
        said = found["policy"](params, pair, classes)
        if given.model.background is None or given.model.rows is None:
            return said
        return said._replace(row=_of_row(given.policy(params), given.model, pair[0], classes))

    return found | {"policy": policy}


def _of_row(network: Policy, model: Model, inputs: Inputs, classes: jax.Array) -> jax.Array:
    """The map of each input's background row less the mean map of all of them, [B, T, N].

    Nothing learns through it.
    """
    size = len(jax.tree.leaves(model.background)[0]), len(network.heads.map_out.bias[...])
    every = jnp.broadcast_to(jnp.arange(size[1]), size)
    maps = jax.lax.stop_gradient(network.maps(model.view(model.background), every))  # [M, K, N]
    return (maps - maps.mean(0))[model.rows(inputs), classes]  # type: ignore[misc]


train_step = functools.partial(algorithm.train_step, play=play, loss=loss)
