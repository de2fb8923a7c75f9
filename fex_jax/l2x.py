"""Training a selector of features: L2X (Chen, Song, Wainwright and Jordan, ICML 2018).

The explainer says of an input which k features to keep, so that a second network q, the variational
approximation, can tell f's answer from these alone. Both learn together, by gradients through the
choice. f is asked once about each input, as it is; q stands for f where features are removed.

    explainer(params, inputs, targets) -> logits [B, 1, N] of one map, whatever the class
    approximation(params) -> q as a `Model` of which `embed`, `logits`, `pool` and `mask` are used

Shapes: B inputs, K classes, N features, k draws of a feature for each input.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from fex_jax.models import Params
from fex_jax.objectives import Networks, explainer
from fex_jax.predictors import Inputs, Model
from fex_jax.updates import Metrics, TrainState, update

OUTPUTS, INSIDE = ("softmax",), True
LEARNS = "L2X learns from probabilities of classes that exclude each other"


@dataclasses.dataclass(frozen=True)
class Objective:
    """What is minimised; the preset of `settings` spells out every field."""

    num_chosen: int = 16  # k, draws of a feature; as many are kept, or fewer where draws agree
    temperature: float = 0.1  # of the draws, as published
    num_updates: int = 4  # gradient steps a pass, each on a different part of its inputs
    num_passes: int = 1  # over a batch and what f said of it, each with draws of its own

    def __post_init__(self) -> None:
        if min(self.num_chosen, self.num_updates, self.num_passes) < 1 or self.temperature <= 0:
            raise ValueError(
                f"num_chosen={self.num_chosen}, num_updates={self.num_updates}, "
                f"num_passes={self.num_passes}, temperature={self.temperature}: expected at least "
                "1 feature, 1 update and 1 pass, and a temperature above 0"
            )


def beside(f: Params) -> Params:
    """q, a network as f's, which begins as f."""
    return {"q": f}


class Batch(NamedTuple):
    """Inputs, what f says of them, and the chance of one pass; the leading axis is B."""

    inputs: Inputs
    answers: jax.Array  # [B, K] f(x)
    valid: jax.Array  # bool [B, N], the features that an input has
    noise: jax.Array  # [B, k, N], Gumbel


def choose(logits: jax.Array, noise: jax.Array, valid: jax.Array, temperature: float) -> jax.Array:
    """V_i = max_j C_ij, C_j = softmax((log p + G_j) / τ), p = softmax(z): [B, N] in [0, 1].

    k relaxed draws of a feature, and of each feature the largest. For τ → 0 every draw is one
    feature, with the probability p, and V is the set that was drawn.

    Args:
      logits: z [B, N].
      noise: G [B, k, N], standard Gumbel.
      valid: bool [B, N]; no other feature is drawn.
      temperature: τ.
    """
    drawn = (logits[:, None] + noise) / temperature
    return jax.nn.softmax(drawn, where=valid[:, None]).max(1)


def approximate(model: Model, inputs: Inputs, masks: jax.Array) -> jax.Array:
    """log q(y | x_S) [B, K] of masks [B, N] in [0, 1]: x_S = m x + (1 − m) x', x' without features.

    Every number that stands for the input has the mask of its feature: of an image its pixels, of a
    text the embeddings of its tokens.
    """
    x, empty = model.embed(inputs), model.embed(model.blank(inputs))
    # Sums over what belongs to a feature, turned around, give each its feature's mask.
    _, spread = jax.vjp(lambda values: model.pool(values, inputs), jnp.zeros_like(x))
    (kept,) = spread(masks)
    return jax.nn.log_softmax(model.logits(empty + kept * (x - empty), inputs))


def loss(log_q: jax.Array, answers: jax.Array) -> tuple[jax.Array, Metrics]:
    """L = −E_x E_S Σ_y f_y(x) log q(y | x_S), of log q and f(x), both [B, K].

    −L is at most, and for the best q equal to, what x_S tells of f's answer less its entropy.
    """
    value = -(answers * log_q).sum(-1).mean()
    entropy = jax.scipy.special.entr(answers).sum(-1).mean()
    return value, {
        "loss": value,
        "q/divergence": value - entropy,  # D(f(x) ‖ q(x_S)), nats
        "q/agreement": jnp.mean(log_q.argmax(-1) == answers.argmax(-1)),
    }


def train_step(
    state: TrainState,
    model: Model,
    inputs: Inputs,
    key: jax.Array,
    *,
    explainer: Callable[[dict, Inputs, jax.Array], jax.Array],
    approximation: Callable[[dict], Model],
    optimizer: optax.GradientTransformation,
    objective: Objective,
) -> tuple[TrainState, Metrics]:
    """One batch: a query about each input, then `num_passes` of `num_updates` steps of both."""
    answers, valid = model.predict(inputs), model.features(inputs)

    def of_part(params: dict, part: Batch) -> tuple[jax.Array, Metrics]:
        one_map = jnp.zeros((len(part.answers), 1), jnp.int32)
        logits = explainer(params, part.inputs, one_map)[:, 0]
        masks = choose(logits, part.noise, part.valid, objective.temperature)
        value, metrics = loss(approximate(approximation(params), part.inputs, masks), part.answers)
        return value, metrics | {"policy/kept_features": masks.sum(-1).mean()}

    def one_pass(state: TrainState, key: jax.Array) -> tuple[TrainState, Metrics]:
        shape = len(valid), objective.num_chosen, valid.shape[-1]
        batch = Batch(inputs, answers, valid, jax.random.gumbel(key, shape))
        return update(state, batch, of_part, optimizer, objective.num_updates)

    keys = jax.random.split(key, objective.num_passes)
    found, metrics = jax.lax.scan(one_pass, state, keys)
    means = jax.tree.map(jnp.mean, metrics)
    return found._replace(step=state.step + 1), means | {"f/clean": answers.max(-1).mean()}


def networks(given: Networks) -> dict[str, Callable]:
    """g and q, as `objectives` has it."""
    return explainer(given) | {"approximation": lambda params: given.rebind(params["q"])}
