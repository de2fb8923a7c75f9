"""Training an explainer on Shapley values: FastSHAP (Jethani et al., ICLR 2022).

The explainer φ and the black box f enter as in `ppo`: predict(inputs) and mask(inputs, masks), and

    explainer(params, inputs, targets) -> φ [B, T, N], attributions of the targets' probabilities
    features(inputs) -> bool [B, N], the n ≤ N features that an input has, as `Model.features`

Shapes: B inputs, K classes, of which T are explained, N features, S coalitions drawn per input.
"""

import dataclasses
from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from fex_jax.answers import ask
from fex_jax.attributions.kernel_shap import normalize
from fex_jax.draws import sample_coalitions
from fex_jax.predictors import Inputs, Model
from fex_jax.targets import choose_classes
from fex_jax.updates import Metrics, TrainState, update

OUTPUTS, LEARNS = ("softmax", "sigmoid"), "FastSHAP learns from probabilities"
UNMASKED = 2  # f(x) and f(∅)


@dataclasses.dataclass(frozen=True)
class Objective:
    """What is minimised; the preset of `settings` spells out every field."""

    targets: Literal["argmax", "sampled", "uniform"] = "sampled"
    num_targets: int = 1  # T, at most K − 1; as published, FEX's default has 10
    fit: Literal["values", "labels"] = "values"  # of coalitions; or φ to noisy `estimates` of it
    efficiency: Literal["normalize", "penalty"] = "normalize"
    gap_coef: float = 0.1  # weight of the efficiency gap under "penalty"
    num_masks: int = 10  # S, in complementary pairs
    num_updates: int = 4  # gradient steps a pass, each on a different part of its inputs
    num_passes: int = 1  # over a batch and what f said of its masks

    def __post_init__(self) -> None:
        for name in ("targets", "fit", "efficiency"):
            allowed = self.__annotations__[name].__args__
            if getattr(self, name) not in allowed:
                raise ValueError(
                    f"{name} is {getattr(self, name)!r}; expected one of {', '.join(allowed)}"
                )
        counts = self.num_targets, self.num_updates, self.num_passes
        if self.num_masks < 2 or self.num_masks % 2 or min(counts) < 1:
            raise ValueError(
                f"num_masks={self.num_masks}, num_targets={self.num_targets}, "
                f"num_updates={self.num_updates}, num_passes={self.num_passes}: coalitions come in "
                "pairs, and at least 1 target, 1 update and 1 pass are needed"
            )


class Game(NamedTuple):
    """A batch with what f says of its coalitions; the leading axis of every field is B."""

    inputs: Inputs
    targets: jax.Array  # [B, T]
    valid: jax.Array  # [B, N] bool, the features that an input has
    coalitions: jax.Array  # [B, S, N] bool
    worth: jax.Array  # [B, T, S] v(S) = f_y(S⊙x)
    empty: jax.Array  # [B, T] v(∅)
    full: jax.Array  # [B, T] v(x) = f_y(x)


def loss(attributions: jax.Array, game: Game, objective: Objective) -> tuple[jax.Array, Metrics]:
    """L = E_x n E_S (v(∅) + Σ_{i∈S} φ_i − v(S))², S from the Shapley kernel; φ [B, T, N].

    Under "normalize" the gap v(x) − v(∅) − Σφ is first shared out equally among the features;
    under "penalty" its square is added, times `gap_coef`. The factor is an input's own n, for long
    and short texts to count alike: φ_i are of order 1/n, and the square of the sum of n errors in
    proportion to them is of order n / n².

    With `fit="labels"` it is E_x Σ_i (φ_i − φ̂_i)², φ̂ of `estimates`.
    """
    total, valid = game.full - game.empty, game.valid[:, None]
    gap = total - attributions.sum(-1, where=valid)
    if objective.efficiency == "normalize":
        attributions = normalize(attributions, total, valid)
    if objective.fit == "labels":
        noisy = estimates(game)
        squares = jnp.where(valid, (attributions - noisy) ** 2, 0).sum(-1)  # [B, T]
        spread = jnp.where(valid, noisy**2, 0).sum(-1)
        value, explained = squares.mean(), 1 - squares.mean() / jnp.maximum(spread.mean(), 1e-12)
    else:
        inside = jnp.einsum("bsn,btn->bts", game.coalitions.astype(jnp.float32), attributions)
        errors = jnp.mean((game.empty[..., None] + inside - game.worth) ** 2, -1)  # [B, T]
        value = jnp.mean(valid.sum(-1, dtype=errors.dtype) * errors)
        explained = 1 - errors.mean() / jnp.maximum(jnp.var(game.worth), 1e-12)
    if objective.efficiency == "penalty":
        value = value + objective.gap_coef * jnp.mean(gap**2)
    return value, {
        "loss": value,
        "value/explained_variance": explained,
        "efficiency_gap": jnp.mean(jnp.abs(gap)),
    }


def estimates(game: Game) -> jax.Array:
    """An unbiased estimate of the Shapley values from an input's own coalitions, [B, T, N].

        φ̂_i = (v(x) − v(∅)) / n + 2 H_{n−1} (b_i − mean b),   b_i = mean_S 1[i ∈ S] v(S)

    with H_n = 1 + 1/2 + … + 1/n. It is KernelSHAP's regression with the expectation of its matrix
    in the matrix's place (Covert and Lee, 2021). Regression on such estimates is the objective of
    SimSHAP (Zhang et al., 2023) and of Stochastic Amortization (Covert et al., 2024).
    """
    valid = game.valid[:, None]  # [B, 1, N]
    n = valid.sum(-1, dtype=game.worth.dtype)
    b = jnp.einsum("bsn,bts->btn", game.coalitions.astype(jnp.float32), game.worth)
    b = b / game.worth.shape[-1]
    harmonic = jax.scipy.special.digamma(n) + jnp.euler_gamma  # H_{n−1}
    centred = b - b.mean(-1, keepdims=True, where=valid)
    share = (game.full - game.empty) / n
    return jnp.where(valid, share[..., None] + 2 * harmonic[..., None] * centred, 0)


class Drawn(NamedTuple):
    """Coalitions drawn for a batch, and what learning from f's answers to them needs."""

    targets: jax.Array  # [B, T]
    probabilities: jax.Array  # [B, K] f(x)
    valid: jax.Array  # [B, N] bool
    coalitions: jax.Array  # [S, B, N] bool


def draw(valid: jax.Array, probabilities: jax.Array, key: jax.Array, objective: Objective) -> Drawn:
    """Chooses T classes of each input by f(x) [B, K], and draws S coalitions of its features."""
    target_key, mask_key = jax.random.split(key)
    targets = choose_classes(target_key, probabilities, objective.targets, objective.num_targets)
    coalitions = sample_coalitions(mask_key, objective.num_masks, valid)
    return Drawn(targets, probabilities, valid, coalitions)


def questions(drawn: Drawn) -> jax.Array:
    """The masks that f is asked about, [1 + S, B, N]: that of nothing, then the coalitions."""
    return jnp.concatenate([jnp.zeros_like(drawn.valid)[None], drawn.coalitions])


def judge(drawn: Drawn, inputs: Inputs, answers: jax.Array) -> Game:
    """What the coalitions are worth, from f's answers [1 + S, B, T] to `questions`."""
    return Game(
        inputs=inputs,
        targets=drawn.targets,
        valid=drawn.valid,
        coalitions=jnp.swapaxes(drawn.coalitions, 0, 1),
        worth=jnp.moveaxis(answers[1:], 0, -1),
        empty=answers[0],
        full=jnp.take_along_axis(drawn.probabilities, drawn.targets, -1),
    )


def play(
    predict: Callable[[Inputs], jax.Array],
    mask: Callable[[Inputs, jax.Array], Inputs],
    features: Callable[[Inputs], jax.Array],
    inputs: Inputs,
    key: jax.Array,
    objective: Objective,
    probabilities: jax.Array | None = None,
) -> Game:
    """Chooses T classes of each input, draws S coalitions and asks f what they are worth.

    f sees every input S + 2 times, or once less where f(x) is known, `probabilities` [B, K].
    """
    probabilities = predict(inputs) if probabilities is None else probabilities
    drawn = draw(features(inputs), probabilities, key, objective)
    return judge(drawn, inputs, ask(predict, mask, inputs, drawn.targets, questions(drawn)))


def train_step(
    state: TrainState,
    model: Model,
    inputs: Inputs,
    key: jax.Array,
    *,
    explainer: Callable[[dict, Inputs, jax.Array], jax.Array],
    optimizer: optax.GradientTransformation,
    objective: Objective,
) -> tuple[TrainState, Metrics]:
    """One batch: S coalitions of every input, then `num_passes` of `num_updates` steps."""
    game = play(model.predict, model.mask, model.features, inputs, key, objective)
    return learn(state, game, explainer, optimizer, objective)


def learn(
    state: TrainState,
    game: Game,
    explainer: Callable[[dict, Inputs, jax.Array], jax.Array],
    optimizer: optax.GradientTransformation,
    objective: Objective,
) -> tuple[TrainState, Metrics]:
    """The gradient steps of `train_step`, from a batch whose coalitions have their worth."""
    state, metrics = update(
        state,
        game,
        lambda params, part: loss(explainer(params, part.inputs, part.targets), part, objective),
        optimizer,
        objective.num_updates,
        objective.num_passes,
    )
    return state, metrics | {
        "f/clean": game.full[:, 0].mean(),
        "f/empty": game.empty[:, 0].mean(),
        "f/coalitions": game.worth[:, 0].mean(),
    }
