"""Training an explainer on Shapley values where removed features come from a background.

v(S) = E_b f(x_S, b), b a background row: with the features of S as in x, and all others as in b.
The explainer φ learns from single draws of b, as in `fastshap`, by a regression on the Shapley
kernel that shares out v(x) − v(∅) exactly. What one draw of b changes is known to a good part
before f is asked: if f were a sum over features, it would be f(b) − v(∅) less the Shapley values of
b itself for the features of S. The explainer knows those, so it is its own control variate. Where a
surrogate says v(S), there are no draws, and φ learns from what it says.

Shapes: B inputs, K answers, of which T are explained, N features, S coalitions, M background rows.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from fex_jax.attributions.kernel_shap import normalize
from fex_jax.draws import sample_coalitions
from fex_jax.predictors import Inputs, Model
from fex_jax.updates import Metrics, TrainState, update

MODALITY = "tables"  # whose removed features come from a background
MOST_EXACT = 12  # features of which all coalitions are asked about
MOST_ASKED = 10_000  # queries for the truth of rows, where answers are kept
Explainer = Callable[[dict, Inputs, jax.Array], jax.Array]  # params, inputs, targets → [B, T, N]


@dataclasses.dataclass(frozen=True)
class Objective:
    """What is minimised; the preset of `settings` spells out every field."""

    num_targets: int = 10  # T: all K answers, or as many of them, drawn alike
    num_masks: int = 8  # S, in complementary pairs that share a background row
    control: bool = True  # subtract what the explainer expects of a background row
    num_updates: int = 4  # gradient steps a pass, each on a different part of its inputs
    num_passes: int = 1  # over a batch and what f said of its masks

    def __post_init__(self) -> None:
        if self.num_masks < 2 or self.num_masks % 2:
            raise ValueError(f"num_masks={self.num_masks}: coalitions come in pairs")
        if min(self.num_targets, self.num_updates, self.num_passes) < 1:
            raise ValueError("num_targets, num_updates and num_passes must be at least 1")


class Game(NamedTuple):
    """A batch with what f says of its coalitions; the leading axis of every field is B."""

    inputs: Inputs
    targets: jax.Array  # [B, T]
    valid: jax.Array  # [B, N] bool, features that differ from the background
    coalitions: jax.Array  # [B, S, N] bool
    drawn: jax.Array  # [B, S] the background row of each, where there is one
    worth: jax.Array  # [B, T, S] f(x_S, b) − v(∅)
    full: jax.Array  # [B, T] v(x) − v(∅)


def play(model: Model, inputs: Inputs, key: jax.Array, objective: Objective) -> Game:
    """Draws S coalitions of each input and their background rows, and asks f: 1 + S queries."""
    target_key, mask_key, row_key = jax.random.split(key, 3)
    base = model.predict(model.blank(inputs))[:1]  # [1, K], of all inputs alike
    valid = model.features(inputs)
    valid = valid | ~valid.any(-1, keepdims=True)  # shares of none have no gradient
    coalitions = sample_coalitions(mask_key, objective.num_masks, valid)  # [S, B, N]
    size, half = len(valid), (objective.num_masks // 2, len(valid))
    drawn = jnp.zeros((2 * half[0], size), jnp.int32)
    if model.background is not None:
        rows = len(jax.tree.leaves(model.background)[0])
        drawn = jnp.tile(jax.random.randint(row_key, half, 0, rows), (2, 1))  # [S, B]
    # Whole inputs come first, each beside any row: one call of f answers all.
    many, every = tile(inputs, 1 + len(coalitions)), jnp.ones_like(coalitions[:1])
    if model.background is not None:
        many = model.against(many, jnp.concatenate([drawn[:1], drawn]).reshape(-1, 1))
    masks = jnp.concatenate([every, coalitions]).reshape(-1, coalitions.shape[-1])
    said = model.predict(model.mask(many, masks)) - base
    answers, worth = jnp.split(said.reshape(-1, size, said.shape[-1]), [1])  # [1 or S, B, K]
    answers, classes = answers[0], said.shape[-1]
    count = min(objective.num_targets, classes)
    alike = jnp.zeros_like(answers)
    if count < classes:
        alike = jax.random.uniform(target_key, answers.shape)
    targets = jax.lax.top_k(alike, count)[1]
    worth = jnp.take_along_axis(worth, targets[None], -1)
    return Game(
        inputs=inputs,
        targets=targets,
        valid=valid,
        coalitions=jnp.swapaxes(coalitions, 0, 1),
        drawn=drawn.T,
        worth=jnp.moveaxis(worth, 0, -1),
        full=jnp.take_along_axis(answers, targets, -1),
    )


def loss(
    attributions: jax.Array, game: Game, of_rows: jax.Array | None, own: jax.Array
) -> tuple[jax.Array, Metrics]:
    """L = E_x n E_S,b (Σ_{i∈S} φ_i − (v_b(S) − c_b(S)))², v_b(S) = f(x_S, b) − v(∅).

    c_b(S) = f(b) − v(∅) − Σ_{i∈S} ψ_i(b) is what a draw of b is expected to add. ψ are the
    explainer's attributions of background rows less their mean, so that E_b c_b(S) = 0 whatever
    they are: φ has the minimum of L at the Shapley values.

    Args:
      attributions: φ [B, T, N], before they are normalised.
      of_rows: the same of background rows, for every answer, [M, K, N]; None: c = 0.
      own: f(b) − v(∅) [M, K].
    """
    phi = normalize(attributions, game.full, game.valid[:, None])
    worth = game.worth
    if of_rows is not None:
        psi = normalize(of_rows, own, jnp.ones(of_rows.shape, bool))
        psi = jax.lax.stop_gradient(psi - psi.mean(0))
        pick = game.drawn[:, None], game.targets[..., None]  # [B, T, S]
        rest = (~game.coalitions & game.valid[:, None]).astype(phi.dtype)
        inside = jnp.einsum("bsn,btsn->bts", 1 - rest, psi[pick])
        worth = worth - (own[pick] - inside)
    inside = jnp.einsum("bsn,btn->bts", game.coalitions.astype(phi.dtype), phi)
    errors = jnp.mean((inside - worth) ** 2, -1)  # [B, T]
    value = jnp.mean(game.valid.sum(-1, keepdims=True, dtype=errors.dtype) * errors)
    gap = jnp.abs(game.full - attributions.sum(-1, where=game.valid[:, None]))
    return value, {
        "loss": value,
        "value/explained_variance": 1 - errors.mean() / jnp.maximum(game.worth.var(), 1e-12),
        "efficiency_gap": gap.mean(),
    }


def train_step(
    state: TrainState,
    model: Model,
    inputs: Inputs,
    key: jax.Array,
    explainer: Explainer,
    optimizer: optax.GradientTransformation,
    objective: Objective,
) -> tuple[TrainState, Metrics]:
    """One batch: S coalitions of every input, then `num_passes` of `num_updates` steps."""
    game = play(model, inputs, key, objective)
    control = objective.control and model.background is not None
    own = jnp.zeros(())
    if control:
        own = model.of_background - jnp.mean(model.of_background, 0)  # [M, K]

    def of_part(params: dict, part: Game) -> tuple[jax.Array, Metrics]:
        phi = explainer(params, part.inputs, part.targets)
        of_rows = None
        if control:
            classes = jnp.broadcast_to(jnp.arange(own.shape[-1]), own.shape)
            of_rows = explainer(params, model.background, classes)
        return loss(phi, part, of_rows, own)

    counts = objective.num_updates, objective.num_passes
    state, metrics = update(state, game, of_part, optimizer, *counts)
    return state, metrics | {"f/clean": game.full.mean(), "f/empty": jnp.zeros(())}


def tile(inputs: Inputs, count: int) -> Inputs:
    """All inputs, `count` times one after the other: [B, ...] → [count B, ...]."""
    return jax.tree.map(lambda x: jnp.tile(x, (count, *(1,) * (x.ndim - 1))), inputs)


# ---------------------------------------------------------------- the truth


def exact(model: Model, inputs: Inputs) -> np.ndarray:
    """Shapley values by their definition, from f's answers to all 2^N coalitions: [B, K, N].

    φ_i = Σ_{S ∌ i} |S|! (N − |S| − 1)! / N! (v(S ∪ i) − v(S))

    Raises:
      ValueError: more features than `MOST_EXACT`.
    """
    size = model.num_features
    if size > MOST_EXACT:
        raise ValueError(f"{size} features have 2^{size} coalitions; expected {MOST_EXACT} at most")
    masks = (np.arange(2**size)[:, None] >> np.arange(size)) & 1 == 1  # [2^N, N]
    members = masks.sum(1, keepdims=True)
    with_i = 1 / (size * np.array([math.comb(size - 1, s) for s in range(size)]))
    weights = np.where(masks, with_i[members - 1], -with_i[members.clip(max=size - 1)])
    found = []
    for row in range(len(jax.tree.leaves(inputs)[0])):
        one = jax.tree.map(lambda x, row=row: x[row : row + 1], inputs)
        worth = np.asarray(model.predict(model.mask(tile(one, len(masks)), masks)), np.float64)
        found.append(worth.T @ weights)
    return np.stack(found)


def sampled(
    model: Model, inputs: Inputs, key: jax.Array, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Unbiased estimates of Shapley values, and their standard errors: twice [B, K, N].

    What each feature adds in `count` random orders and their reverses, each pair against one
    background row (Castro et al., Computers & Operations Research 2009).
    """
    size, found = model.num_features, []
    for row in range(len(jax.tree.leaves(inputs)[0])):
        of_order, of_row = jax.random.split(jax.random.fold_in(key, row))
        order = jax.random.uniform(of_order, (count, size)).argsort(-1).argsort(-1)  # ranks
        ranks = np.concatenate([order, size - 1 - order])  # [2P, N]
        masks = ranks[:, None] < np.arange(size + 1)[:, None]  # [2P, N + 1, N]
        one = jax.tree.map(lambda x, row=row: x[row : row + 1], inputs)
        asked = tile(one, masks[..., 0].size)
        if model.background is not None:
            rows = len(jax.tree.leaves(model.background)[0])
            drawn = np.tile(np.asarray(jax.random.randint(of_row, (count,), 0, rows)), 2)
            asked = model.against(asked, np.repeat(drawn, size + 1)[:, None].astype(np.int32))
        worth = np.asarray(model.predict(model.mask(asked, masks.reshape(-1, size))), np.float64)
        steps = np.diff(worth.reshape(2 * count, size + 1, -1), axis=1)  # [2P, N, K]
        gains = np.take_along_axis(steps, ranks[..., None], 1)  # of a feature, where it comes
        pairs = (gains[:count] + gains[count:]) / 2
        found.append((pairs.mean(0).T, pairs.std(0, ddof=1).T / np.sqrt(count)))
    means, errors = zip(*found, strict=True)
    return np.stack(means), np.stack(errors)
