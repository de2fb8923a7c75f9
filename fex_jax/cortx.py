"""Training an explainer by contrast: CoRTX (Chuang et al., ICLR 2023).

The encoder, the explainer's backbone, learns without labels: of several masked versions of an input
the one of which f says most nearly what it says of the input is its positive, and the other inputs
of the batch are the negatives. The head learns Shapley values from few coalitions, and no gradient
of it reaches the encoder.

    encoder(params, inputs) -> what is read of them, and of that one vector each, [B, D]
    head(params, read, targets) -> φ [B, T, N]

As published the head begins when the encoder is done. Here both learn from each batch, so that each
has all inputs; the learning rate's end brings the encoder to rest before the head.

Shapes: B inputs, K classes, of which T are explained, N features, P candidates for a positive.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from fex_jax import fastshap
from fex_jax.answers import ask
from fex_jax.models.policy import Reading
from fex_jax.objectives import Networks
from fex_jax.predictors import Inputs, Model
from fex_jax.updates import Metrics, TrainState, update

OUTPUTS, INSIDE = ("softmax", "sigmoid"), True
LEARNS = "CoRTX learns from probabilities"
MOVES = "CoRTX's contrast has nothing to learn but the backbone"


@dataclasses.dataclass(frozen=True)
class Objective:
    """What is minimised; the preset of `settings` spells out every field."""

    targets: Literal["argmax", "sampled", "uniform"] = "sampled"
    num_targets: int = 10  # T, at most K − 1
    num_masks: int = 10  # queries beside f(x) and f(∅)
    num_positives: int = 4  # P of them look for the positive; the others are coalitions, in pairs
    keep: float = 0.5  # the chance that a candidate keeps a feature
    temperature: float = 0.1  # of the contrast
    num_updates: int = 4  # gradient steps a pass, each on a different part of its inputs
    num_passes: int = 1  # over a batch and what f said of its masks

    def __post_init__(self) -> None:
        if not (0 < self.num_positives < self.num_masks and 0 < self.keep < 1):
            raise ValueError(
                f"num_positives={self.num_positives} of num_masks={self.num_masks}, "
                f"keep={self.keep}: at least 1 is needed, some are left for coalitions, and a part "
                "of the features is kept"
            )
        if self.temperature <= 0:
            raise ValueError(f"temperature={self.temperature}: expected a number above 0")
        _ = self.of_head  # checks the rest

    @property
    def of_head(self) -> fastshap.Objective:
        """That of the head."""
        return fastshap.Objective(
            targets=self.targets,
            num_targets=self.num_targets,
            fit="labels",
            num_masks=self.num_masks - self.num_positives,
            num_updates=self.num_updates,
            num_passes=self.num_passes,
        )


class Batch(NamedTuple):
    """Inputs with their positives, and what f says of their coalitions; the leading axis is B."""

    game: fastshap.Game
    positive: Inputs  # the masked versions


def positives(
    probabilities: jax.Array, answers: jax.Array, masks: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The masks with the least ‖f(m⊙x) − f(x)‖, [B, N], and these distances [B].

    Args:
      probabilities: f(x) [B, K].
      answers: f(m⊙x) of the candidates, [P, B, K].
      masks: [P, B, N].
    """
    distances = jnp.linalg.norm(answers - probabilities, axis=-1)  # [P, B]
    nearest = distances.argmin(0)
    rows = jnp.arange(len(nearest))
    return masks[nearest, rows], distances[nearest, rows]


def contrast(h: jax.Array, positive: jax.Array, temperature: float) -> tuple[jax.Array, Metrics]:
    """L = −E_i log exp(h_i·h⁺_i / τ) / (exp(h_i·h⁺_i / τ) + Σ_{j≠i} exp(h_i·h_j / τ)) (InfoNCE).

    h and h⁺ [B, D] are first made vectors of length 1.
    """
    h, positive = (x / jnp.linalg.norm(x, axis=-1, keepdims=True) for x in (h, positive))
    own = jnp.eye(len(h), dtype=bool)
    similar = jnp.where(own, (h * positive).sum(-1)[:, None], h @ h.T) / temperature
    value = -jnp.diagonal(jax.nn.log_softmax(similar)).mean()
    first = similar.argmax(-1) == jnp.arange(len(h))
    return value, {"contrast/loss": value, "contrast/accuracy": first.mean()}


def play(
    model: Model, inputs: Inputs, key: jax.Array, objective: Objective
) -> tuple[Batch, Metrics]:
    """Draws candidates and coalitions of each input, and asks f: `num_masks` + 2 queries."""
    mask_key, game_key = jax.random.split(key)
    probabilities, valid = model.predict(inputs), model.features(inputs)
    shape = objective.num_positives, *valid.shape
    masks = jax.random.bernoulli(mask_key, objective.keep, shape)
    every = jnp.broadcast_to(jnp.arange(probabilities.shape[-1]), probabilities.shape)
    answers = ask(model.predict, model.mask, inputs, every, masks)
    chosen, distances = positives(probabilities, answers, masks)
    game = fastshap.play(
        model.predict,
        model.mask,
        model.features,
        inputs,
        game_key,
        objective.of_head,
        probabilities,
    )
    return Batch(game, model.mask(inputs, chosen)), {
        "f/clean": game.full[:, 0].mean(),
        "f/empty": game.empty[:, 0].mean(),
        "contrast/distance": distances.mean(),
    }


def train_step(
    state: TrainState,
    model: Model,
    inputs: Inputs,
    key: jax.Array,
    *,
    encoder: Callable[[dict, Inputs], tuple[Any, jax.Array]],
    head: Callable[[dict, Any, jax.Array], jax.Array],
    optimizer: optax.GradientTransformation,
    objective: Objective,
) -> tuple[TrainState, Metrics]:
    """One batch: questions to f, then `num_passes` of `num_updates` steps of encoder and head."""
    batch, said = play(model, inputs, key, objective)

    def of_part(params: dict, part: Batch) -> tuple[jax.Array, Metrics]:
        read, h = encoder(params, part.game.inputs)
        value, metrics = contrast(h, encoder(params, part.positive)[1], objective.temperature)
        phi = head(params, jax.lax.stop_gradient(read), part.game.targets)
        error, of_labels = fastshap.loss(phi, part.game, objective.of_head)
        return value + error, of_labels | metrics

    state, metrics = update(
        state, batch, of_part, optimizer, objective.num_updates, objective.num_passes
    )
    return state, metrics | said


def networks(given: Networks) -> dict[str, Callable]:
    """The encoder, whose pooled token is contrasted, and the head; as `objectives` has it."""

    def encoder(params: dict, x: Inputs) -> tuple[Reading, jax.Array]:
        reading = given.policy(params).read(given.model.view(x))
        return reading, reading.pooled

    def head(params: dict, read: Reading, targets: jax.Array) -> jax.Array:
        return given.policy(params).say(read, targets)[0]

    return {"encoder": encoder, "head": head}
