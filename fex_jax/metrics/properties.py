"""What is asked of maps beside perturbation curves: complexity, correlation, sensitivity.

Quantus (Hedström et al. 2023) computes the same of its own inputs; tests compare the two.
Shapes: B inputs, N features, K draws.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from fex_jax.answers import ask


def complexity(scores: jax.Array) -> jax.Array:
    """Entropy of how a map's mass is spread: −Σ p_i log p_i, p_i = |φ_i| / Σ_j |φ_j|.

    0 where one feature has all of it, log N where all have the same; lower is simpler. Bhatt et
    al. 2020, Evaluating and Aggregating Feature-based Model Explanations.

    Args:
      scores: [B, N].

    Returns:
      [B]; NaN of a map of zeros.
    """
    return jax.scipy.special.entr(_shares(scores)).sum(-1)


def sparseness(scores: jax.Array) -> jax.Array:
    """Gini index of a map's mass: Σ_i (2 i − N − 1) p_(i) / N, p_(1) ≤ … ≤ p_(N) its shares.

    0 where all features have the same, 1 − 1/N where one has all of it; higher is sparser.
    Chalasani et al. 2020, Concise Explanations of Neural Networks using Adversarial Training.

    Args:
      scores: [B, N].

    Returns:
      [B]; NaN of a map of zeros.
    """
    shares, size = jnp.sort(_shares(scores), -1), scores.shape[-1]
    weights = 2 * jnp.arange(1, size + 1, dtype=shares.dtype) - (size + 1)
    return (weights * shares).sum(-1) / size


def _shares(scores: jax.Array) -> jax.Array:
    sizes = jnp.abs(jnp.asarray(scores))
    return sizes / sizes.sum(-1, keepdims=True)


def random_subsets(key: jax.Array, draws: int, shape: tuple[int, int], size: int) -> jax.Array:
    """`size` features of each input, all subsets as probable: bool [K, B, N].

    Args:
      key: `jax.random.key(seed)`.
      draws: K.
      shape: (B, N).
      size: features of a subset, 1 to N.

    Raises:
      ValueError: another size.
    """
    if not 1 <= size <= shape[1]:
        raise ValueError(f"a subset of {size} of {shape[1]} features; give 1 to {shape[1]}")
    order = jax.random.uniform(key, (draws, *shape)).argsort(-1)
    return order.argsort(-1) < size


def faithfulness_correlation(
    predict: Callable[[Any], jax.Array],
    mask: Callable[[Any, jax.Array], Any],
    inputs: Any,
    scores: jax.Array,
    targets: jax.Array,
    subsets: jax.Array,
) -> jax.Array:
    """Pearson's correlation over subsets S of Σ_{i∈S} φ_i with f_y(x) − f_y(x without S).

    1 where f is additive and φ its terms; higher is better. Bhatt et al. 2020.

    Args:
      predict: inputs → answers [B, classes].
      mask: (inputs, m [B, N] bool, True = kept) → inputs.
      inputs: an array [B, ...] or a pytree of them.
      scores: φ, [B, N].
      targets: y, [B].
      subsets: bool [K, B, N], those of `random_subsets`.

    Returns:
      [B]; NaN where no subset changes the answer, or all have the same sum.

    Raises:
      ValueError: subsets that are not those of the scores.
    """
    scores, subsets = jnp.asarray(scores), jnp.asarray(subsets)
    if subsets.ndim != 3 or subsets.shape[1:] != scores.shape:
        raise ValueError(
            f"subsets are {subsets.shape}; wanted [K, {', '.join(map(str, scores.shape))}]"
        )

    of = targets[:, None]
    whole = jnp.take_along_axis(predict(inputs), of, -1)
    drops = (whole - ask(predict, mask, inputs, of, ~subsets))[..., 0]  # [K, B]
    sums = jnp.where(subsets, scores, 0).sum(-1)
    drops, sums = drops - drops.mean(0), sums - sums.mean(0)
    return (drops * sums).sum(0) / jnp.sqrt((drops**2).sum(0) * (sums**2).sum(0))


def max_sensitivity(
    explain: Callable[[jax.Array], jax.Array], inputs: jax.Array, noise: jax.Array
) -> jax.Array:
    """How far noise moves a map at most: max_k ‖Φ(x + δ_k) − Φ(x)‖ / ‖Φ(x)‖.

    Lower is steadier. Yeh et al. 2019, On the (In)fidelity and Sensitivity of Explanations; there
    the difference is not divided.

    Args:
      explain: Φ, inputs [B, ...] → scores [B, N] of the same classes.
      inputs: x, [B, ...].
      noise: δ, [K, B, ...], such as `jax.random.uniform(key, shape, minval=-r, maxval=r)`.

    Returns:
      [B]; not finite where Φ(x) is 0.

    Raises:
      ValueError: noise that does not fit the inputs.
    """
    if noise.shape[1:] != inputs.shape:
        raise ValueError(f"noise is {noise.shape}; wanted [K, {', '.join(map(str, inputs.shape))}]")
    clean = jnp.asarray(explain(inputs))
    # One call after the other: Φ need not be JAX's.
    moved = jnp.stack([jnp.linalg.norm(explain(inputs + one) - clean, axis=-1) for one in noise])
    return moved.max(0) / jnp.linalg.norm(clean, axis=-1)
