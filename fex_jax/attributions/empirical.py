"""The empirical attribution that the policy approximates: exact for few features, or sampled."""

import jax
import jax.numpy as jnp

from fex_jax.attributions.door import public
from fex_jax.attributions.queries import ask_about, bernoulli
from fex_jax.predictors import Inputs, Model

_MOST_FEATURES = 16


@public
def empirical(
    model: Model,
    inputs: Inputs,
    targets: jax.Array,
    key: jax.Array | None = None,
    *,
    num_queries: int | None = None,
    chunk: int | None = None,
) -> jax.Array:
    """φ_i(x) = Σ_m m_i f_y(m⊙x) / K_m over all 2^N masks but the empty one (Eq. 2): [B, N].

    N is then at most 16: f sees each input 2^N − 1 times, one mask at a time; no randomness. With
    `num_queries` it is the mean over so many masks, drawn evenly from all: φ / 2^N, of any N. Where
    an input has fewer features, N is their number and φ of the others 0.

    Raises:
      ValueError: more features, and no `num_queries`; or these without a key.
    """
    if num_queries is None:
        return _exact(model, inputs, targets)
    if key is None:
        raise ValueError("empirical draws masks where num_queries is given: it needs a key")
    draw, valid = bernoulli(key, model.num_features, 0.5), model.features(inputs)
    answers = ask_about(model, inputs, targets, draw, num_queries, chunk)

    def add(total: jax.Array, part: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        query, answer = part
        masks = jax.vmap(draw, (None, 0))(query, jnp.arange(len(targets))) & valid
        masks = masks.astype(answer.dtype)
        kept = jnp.maximum(masks.sum(-1, keepdims=True), 1)
        return total + masks * answer[:, None] / kept, None

    zero = jnp.zeros((len(targets), model.num_features))
    return jax.lax.scan(add, zero, (jnp.arange(num_queries), answers))[0] / num_queries


def _exact(model: Model, inputs: Inputs, targets: jax.Array) -> jax.Array:
    size = model.num_features
    if not 1 <= size <= _MOST_FEATURES:
        raise ValueError(
            f"the input has {size} features; 2^N queries allow 1 to {_MOST_FEATURES}: give "
            "num_queries"
        )
    bits, valid = jnp.arange(size), model.features(inputs)
    # Masks that differ where nothing is.
    repeats = 2.0 ** (~valid).sum(-1, keepdims=True, dtype=float)

    def add(total: jax.Array, number: jax.Array) -> tuple[jax.Array, None]:
        masks = ((number >> bits) & 1 == 1) & valid  # [B, N]
        probabilities = model.predict(model.mask(inputs, masks))
        masks = masks.astype(probabilities.dtype)
        kept = jnp.maximum(masks.sum(-1, keepdims=True), 1)
        share = jnp.take_along_axis(probabilities, targets[:, None], -1) / kept  # [B, 1]
        return total + masks * share / repeats, None

    zero = jnp.zeros((len(targets), size))
    return jax.lax.scan(add, zero, jnp.arange(1, 2**size))[0]
