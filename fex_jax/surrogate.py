"""A network that says what f says in the mean of rows of which some features are known.

v(S) = E[h(x') | x'_S = x_S]: the conditional value function, learned as FastSHAP's surrogate is
(Frye et al., Shapley explainability on the data manifold; Jethani et al., FastSHAP). Of rows whose
other features are hidden the network says what h is; where its squared error is least it says this
mean. f is asked about whole rows alone.

Shapes: B rows, E numbers that are read of a row, N features, K answers.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import traverse_util
from tqdm import trange

from fex_jax import models
from fex_jax.draws import sample_coalitions
from fex_jax.models import Params
from fex_jax.models.mlp import MLP, MLPConfig, Steps

_WIDTH = 128
_BATCH, _RATE, _DECAY = 512, 2e-3, 1e-2
_PASSES, _STEPS = 60, (300, 3000)  # over the rows; least and most steps
_SHARE, _MOST, _MASKS = 0.1, 1000, 8  # of the rows is held out, at most; masks of each
_MEASURES = 20  # in a run


@dataclasses.dataclass(frozen=True, eq=False)
class Surrogate:
    """A trained one; arrays by the names of its parameters, as a file has them."""

    arrays: dict[str, np.ndarray]
    owner: np.ndarray  # int32 [E] the feature that each number is read of
    num_features: int
    num_answers: int

    def __call__(self, read: jax.Array, masks: jax.Array) -> jax.Array:
        """v(S), standardised: numbers [B, E] and masks [B, N], bool, True: known → [B, K]."""
        params = traverse_util.unflatten_dict(self.arrays, sep=".")
        apply = _network(len(self.owner), self.num_features, self.num_answers)[1]
        return apply(params, _hidden(read, masks, self.owner))

    @staticmethod
    def shapes(num_inputs: int, num_features: int, num_answers: int) -> dict[str, tuple[int, ...]]:
        """Of the arrays of such a network."""
        config = _config(num_inputs, num_features, num_answers)
        found = models.shapes(MLP, config)
        return {k: v.shape for k, v in traverse_util.flatten_dict(found, sep=".").items()}


def train(
    steps: Steps, scaled: np.ndarray, answers: np.ndarray, owner: np.ndarray, seed: int
) -> tuple[Surrogate, float]:
    """Learns from rows, and what h is of them, standardised [B, K].

    A tenth of the rows is held out; the state that is best on them is kept.

    Args:
      steps: what is read of a row.
      scaled: the rows as it scales them, float32 [B, D].
      answers: [B, K].
      owner: the feature of each column, [D].
      seed: of all that is drawn.

    Returns:
      The surrogate, and the share of the variance of h that it explains on held-out rows of which
      some features are hidden.
    """
    (rows, classes), keys = answers.shape, jax.random.split(jax.random.key(seed), 3)
    order = np.random.default_rng(seed).permutation(rows)
    kept = min(int(rows * _SHARE), _MOST)
    learned, test = order[kept:], np.tile(order[:kept] if kept else order, _MASKS)
    count = int(np.clip(_PASSES * len(learned) // _BATCH, *_STEPS))
    size, owner = int(owner.max()) + 1, owner[steps.columns]
    init, apply = _network(len(owner), size, classes)
    rate = optax.warmup_cosine_decay_schedule(0.0, _RATE, max(1, count // 20), count)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(rate, weight_decay=_DECAY))

    def error(params: Params, x: jax.Array, y: jax.Array, key: jax.Array) -> jax.Array:
        hidden = _hidden(steps(x), _draw(key, len(x), size), owner)
        return jnp.mean((apply(params, hidden) - y) ** 2)

    @jax.jit
    def step(params: Params, state: Any, x: jax.Array, y: jax.Array, key: jax.Array) -> tuple:
        gradients = jax.grad(error)(params, x, y, key)
        changes, state = optimizer.update(gradients, state, params)
        return optax.apply_updates(params, changes), state

    measure = jax.jit(error)
    params = init(keys[0])
    state, best, least = optimizer.init(params), params, np.inf
    rng = np.random.default_rng((seed, 1))
    bar = trange(1, count + 1, desc="surrogate", unit="batch", leave=False)
    for number in bar:
        chosen = learned[rng.integers(len(learned), size=_BATCH)]
        key = jax.random.fold_in(keys[1], number)
        params, state = step(params, state, scaled[chosen], answers[chosen], key)
        if number % max(1, count // _MEASURES) == 0:
            found = float(measure(params, scaled[test], answers[test], keys[2]))
            best, least = (params, found) if found < least else (best, least)
            bar.set_postfix(error=f"{found:.4f}")
    arrays = traverse_util.flatten_dict(jax.tree.map(np.asarray, best), sep=".")
    explained = 1 - least / max(float(answers[test].var(0).mean()), 1e-12)
    return Surrogate(arrays, owner, size, classes), explained


def _config(num_inputs: int, num_features: int, num_answers: int) -> MLPConfig:
    """Tokens of one number: as many as there are answers."""
    return MLPConfig(num_inputs + num_features, num_answers - 1, hidden_size=1, width=_WIDTH)


def _network(num_inputs: int, num_features: int, num_answers: int) -> tuple[Callable, Callable]:
    config = _config(num_inputs, num_features, num_answers)
    init, bind = models.functional(MLP, config)
    return init, lambda params, x: bind(params)(x)[..., 0]


def _hidden(read: jax.Array, masks: jax.Array, owner: np.ndarray) -> jax.Array:
    """What is read of the known features, and which are known."""
    return jnp.concatenate([jnp.where(masks[:, owner], read, 0), jnp.where(masks, 0.5, -0.5)], -1)


def _draw(key: jax.Array, rows: int, size: int) -> jax.Array:
    """Half of the masks as Shapley values weigh them, the others of any size, bool [B, N]."""
    of_kernel, of_size, members = jax.random.split(key, 3)
    half = jnp.ones((rows // 2, size), bool)
    shares = jax.random.uniform(of_size, (rows - len(half), 1))
    others = jax.random.uniform(members, (rows - len(half), size)) < shares
    return jnp.concatenate([sample_coalitions(of_kernel, 1, half)[0], others])
