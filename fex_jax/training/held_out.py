"""Held-out answers, the yardstick of a fit: of inputs that nothing learns from, asked for once."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections

from fex_jax import algorithm, ppo
from fex_jax.models import Params
from fex_jax.predictors import Bind
from fex_jax.training import sources
from fex_jax.training.sources import Source
from fex_jax.updates import TrainState

_LEAST, _MOST = 4, 64  # inputs
_ONE_OF = 16  # of the training inputs, at most
_MASKS = 20  # of each


class Found(NamedTuple):
    """What maps explain of held-out answers: 1 − Σ (R − R̂)² / Σ R², R less its mean over masks."""

    explained: float  # by the map
    shared: float  # by what all classes share, z_0, alone
    share: float  # s of z_0 + s c that explains most


def split(config: ml_collections.ConfigDict, source: Source) -> tuple[Source | None, Source]:
    """Inputs that are held out, for a head that needs them, and those to train on."""
    count = min(_MOST, min(config.data.limit or source.size, source.size) // _ONE_OF)
    if config.map_head != "shared" or count < _LEAST:
        return None, source
    return sources.split(source, count)


def queries(kept: Source | None) -> int:
    """What f is asked about them, once."""
    return 0 if kept is None else kept.size * (1 + _MASKS)


def objective_of(objective: ppo.Objective) -> ppo.Objective:
    """The questions about a held-out input: those of training, of more masks."""
    return dataclasses.replace(objective, num_masks=_MASKS)


def ask(
    bind: Bind,
    predictor_params: Params,
    batches: Iterator[Any],
    objective: ppo.Objective,
    key: jax.Array,
) -> list[tuple[Any, ppo.Rollout]]:
    """Batches with f's answers to masks that no policy has drawn: every feature alike."""

    def flat(model: Any) -> Callable:
        def policy(inputs: Any, targets: jax.Array) -> ppo.PolicyOutput:
            valid = model.features(inputs)[:, None]
            logits = jnp.zeros((*targets.shape, valid.shape[-1]))
            return ppo.PolicyOutput(logits, jnp.zeros(()), jnp.zeros(targets.shape), valid)

        return policy

    @jax.jit
    def rollout(params: Params, batch: Any, key: jax.Array) -> ppo.Rollout:
        model, inputs = bind(params, batch)
        asked = objective_of(objective)
        arguments = model.predict, model.mask, flat(model), inputs, key, asked, model.grid
        return algorithm.rollout(*arguments)[0]._replace(inputs=None)

    return [
        (batch, rollout(predictor_params, batch, jax.random.fold_in(key, number)))
        for number, batch in enumerate(batches)
    ]


def make_measure(
    bind: Bind, policy: Callable[[Params, Any, jax.Array], ppo.PolicyOutput], objective: Any
) -> Callable[[Params, Params, list[tuple[Any, ppo.Rollout]]], Found]:
    """measure(policy's parameters, predictor's, what `ask` returned) → `Found`."""
    asked = objective_of(objective)

    def centred(values: jax.Array) -> jax.Array:
        groups = values.reshape(*values.shape[:-1], asked.num_groups, -1)
        return (groups - groups.mean(-1, keepdims=True)).reshape(values.shape)

    @jax.jit
    def sums(params: Params, predictor_params: Params, batch: Any, answered: ppo.Rollout):
        model, inputs = bind(predictor_params, batch)
        output = policy(params, model.view(inputs), answered.targets)
        shared, own = output.parts or (output.logits, jnp.zeros_like(output.logits))
        weights = ppo.plausibility(answered)

        def predicted(logits: jax.Array) -> jax.Array:
            z = ppo.centre(logits, output.valid)
            linear = jnp.einsum("bsn,btn->bts", answered.masks.astype(z.dtype), z)
            return centred(ppo.slope(z, asked, output.valid) * linear)

        rest = centred(answered.scores)
        left, of_class = rest - predicted(shared), predicted(own)
        pairs = (rest, rest), (left, left), (left, of_class), (of_class, of_class)
        return jnp.stack([(weights * a * b).sum() for a, b in pairs])

    def measure(params: Params, predictor_params: Params, held_out: list) -> Found:
        total, left, cross, own = sum(sums(params, predictor_params, *part) for part in held_out)
        share = jnp.clip(cross / jnp.maximum(own, 1e-12), 0, 1)
        shared = 1 - left / total
        explained = shared + (2 * share * cross - share**2 * own) / total
        return Found(float(explained), float(shared), float(share))

    return measure


def make_revise(
    bind: Bind,
    policy: Callable[[Params, Any, jax.Array], ppo.PolicyOutput],
    predictor_params: Params,
    batches: Iterator[Any],
    objective: ppo.Objective,
    key: jax.Array,
) -> Callable[[TrainState], tuple[TrainState, dict[str, float]]]:
    """revise(state) → with the share s that explains held-out answers best, and what they explain.

    f is asked at the first call.
    """
    measure, answered = make_measure(bind, policy, objective), []

    def revise(state: TrainState) -> tuple[TrainState, dict[str, float]]:
        if not answered:
            answered.extend(ask(bind, predictor_params, batches, objective, key))
        found = measure(state.params, predictor_params, answered)
        heads = state.params["heads"]
        share = jax.device_put(jnp.float32(found.share), heads["class_share"].sharding)
        params = state.params | {"heads": heads | {"class_share": share}}
        named = {f"held_out/{name}": value for name, value in found._asdict().items()}
        return state._replace(params=params), named

    return revise
