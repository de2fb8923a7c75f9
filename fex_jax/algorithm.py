"""Algorithm 1 of the paper, one batch: masks are drawn, f is asked, the policy learns.

What is asked and what is learned of the answers an objective says, `contrast` or `published`:

    play(predict, mask, policy, inputs, key, objective, grid) -> batch with answers, metrics
    loss(PolicyOutput, part of that batch, objective) -> scalar, metrics

f, its inputs without features, and the policy enter as the pure functions that `ppo` describes.
Shapes: B inputs, K classes, of which T are explained, N features, S masks drawn per input.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from fex_jax.objectives import Networks
from fex_jax.ppo import Form, Inputs, PolicyOutput
from fex_jax.predictors import Model
from fex_jax.updates import Metrics, TrainState, update

Policy = Callable[[dict, Any, jax.Array], PolicyOutput]
Loss = Callable[[PolicyOutput, Any, Any], tuple[jax.Array, Metrics]]


def networks(given: Networks, form: Form = "authors") -> dict[str, Callable]:
    """read and policy of `train_step`.

    read(params, inputs) is what a frozen backbone reads of inputs, once for all passes, or None.
    policy(params, (inputs, that), classes) is the policy, whose KL term is of that form.
    """
    model, network, frozen = given.model, given.policy, given.frozen

    def read(params: dict, inputs: Inputs) -> Any:
        if not frozen:
            return None
        if given.shared is not None:  # XLA computes once what f(x) and the policy read
            params = params | {"backbone": given.shared}
        return network(params).read(model.view(inputs))

    def policy(params: dict, pair: tuple, classes: jax.Array) -> PolicyOutput:
        inputs, reading = pair
        bound = network(params)
        if not frozen:
            reading = bound.read(model.view(inputs))
        return PolicyOutput(*bound.say(reading, classes, form))

    return {"read": read, "policy": policy}


def train_step(
    state: TrainState,
    model: Model,
    inputs: Inputs,
    key: jax.Array,
    *,
    play: Callable,
    loss: Loss,
    read: Callable[[dict, Inputs], Any],
    policy: Policy,
    optimizer: optax.GradientTransformation,
    objective: Any,
) -> tuple[TrainState, Metrics]:
    """Algorithm 1 for one batch: f is asked, then `num_passes` of `num_updates` gradient steps.

    Every update of a pass sees other inputs of the batch with all their masks, so one forward and
    backward pass of g serves S masks, and a batch costs g one pass to draw and its gradient passes.
    """
    inputs = model.drawn(inputs, jax.random.fold_in(key, 0))
    batch, metrics = play(
        lambda pair: model.predict(pair[0]),
        lambda pair, masks: (model.mask(pair[0], masks), None),
        functools.partial(policy, state.params),
        (inputs, read(state.params, inputs)),
        key,
        objective,
        model.grid,
    )
    state, losses = learn(state, batch, policy, loss, optimizer, objective)
    return state, metrics | losses


def learn(
    state: TrainState,
    batch: Any,
    policy: Policy,
    loss: Loss,
    optimizer: optax.GradientTransformation,
    objective: Any,
) -> tuple[TrainState, Metrics]:
    """The gradient steps of `train_step`, from a batch with its answers."""
    return update(
        state,
        batch,
        lambda params, part: loss(policy(params, part.inputs, part.targets), part, objective),
        optimizer,
        objective.num_updates,
        objective.num_passes,
    )


def said_of_masks(
    logits: jax.Array, lam: jax.Array, masks: jax.Array, valid: jax.Array | None
) -> Metrics:
    """How many features are kept, and how far maps tell them apart; logits, λ [B, 1, N]."""
    return {
        "policy/mean_lambda": lam.mean(where=valid),
        "policy/kept_features": masks.sum(-1).mean(),  # K_m
        "policy/num_features": jnp.ones_like(lam).sum(-1, where=valid).mean(),
        "policy/logit_std": logits.std(-1, where=valid).mean(),
    }


def collapse_warning(metrics: dict[str, float]) -> str | None:
    """Says in words that the policy no longer ranks most features, or None if it does.

    The optimum of f/K_m keeps one or two features (docs/method.md): localisation stays good while
    the order of all other features, and with it negative AUC, is lost. None, too, of metrics that
    are of no such policy.
    """
    if "policy/entropy" not in metrics:
        return None
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
