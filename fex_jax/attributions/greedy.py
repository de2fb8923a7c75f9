"""Greedy search, input by input: how far an order of features can get."""

import jax
import jax.numpy as jnp

from fex_jax.attributions.door import public
from fex_jax.attributions.queries import target_probabilities
from fex_jax.predictors import Inputs, Model


@public
def greedy(
    model: Model,
    inputs: Inputs,
    targets: jax.Array,
    key: jax.Array | None = None,
    *,
    chunk: int | None = None,
) -> jax.Array:
    """N − (a feature's place in the order), [B, N]; 2N² queries, no randomness.

    Each next feature i makes f_y(R⊙x) − f_y((1−R)⊙x) the largest for R the features before it and
    i: FEX's score, along the sets that perturbation curves remove. A limit to measure against, not
    an explanation to ship; `eval.py --methods=all` leaves it out.
    """
    valid = model.features(inputs)
    size = valid.shape[-1]
    own = jnp.eye(size, dtype=bool)[:, None]  # [N, 1, N]

    def place(chosen: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
        """The next feature of every input: chosen bool [B, N] → with it, and it [B, N]."""
        kept = (chosen | own) & valid  # [N, B, N]
        both = jnp.concatenate([kept, ~kept & valid])
        answers = target_probabilities(model, inputs, targets, both, chunk)
        scores = (answers[:size] - answers[size:]).T  # [B, N]
        open_ = jnp.where(valid & ~chosen, scores, -jnp.inf)
        # With no feature left, the best is any: it changes nothing and gets no place.
        best = jax.nn.one_hot(open_.argmax(-1), size, dtype=bool) & valid & ~chosen
        return chosen | best, best

    _, order = jax.lax.scan(place, jnp.zeros_like(valid), length=size)  # [N, B, N]
    return jnp.einsum("sbn,s->bn", order.astype(jnp.float32), size - jnp.arange(size, dtype=float))
