"""Random masks: of neighbouring features that are kept or removed together, and of coalitions.

Of independently drawn masks half of every object is always left. A picture's answers then differ
little, and mostly by what no map explains. Masks that fall in patches of several sizes remove whole
parts: each answer says more, and no feature is kept more or less often than before.
"""

import jax
import jax.numpy as jnp
import numpy as np

LENGTHS = (0.0, 1 / 16, 1 / 8, 3 / 16)  # correlation lengths, in sides of the grid


def masks(
    key: jax.Array, logits: jax.Array, grid: tuple[int, ...], shape: tuple[int, ...] = ()
) -> jax.Array:
    """Masks of as many features as λ = σ(`logits`) adds up to, [..., N] → bool [*`shape`, ..., N].

    Kept are the k = round(Σ_i λ_i) features with the largest logit λ_i − logit u_i, u of `uniform`.
    m_i = [u_i < λ_i], with a threshold of 0, would keep now more and now less, and of that number f
    says more than of which features they are.
    """
    noise = uniform(key, grid or logits.shape[-1:], (*shape, *logits.shape[:-1]))
    count = jnp.round(jax.nn.sigmoid(logits).sum(-1, keepdims=True)).astype(int)
    order = jnp.argsort(jax.scipy.special.logit(noise.clip(1e-6, 1 - 1e-6)) - logits, axis=-1)
    return jnp.argsort(order, axis=-1) < count


def uniform(key: jax.Array, grid: tuple[int, ...], shape: tuple[int, ...] = ()) -> jax.Array:
    """Numbers u ~ U(0, 1) for N features, alike for neighbours on a grid: [*`shape`, N].

    m_i = [u_i < λ_i] keeps feature i with probability λ_i. u = Φ(A z Bᵀ), z independent normals,
    and A and B Gaussian filters with rows of length 1, of one of `LENGTHS`, drawn for each mask.
    Features in a single row, as those of a text, are independent.
    """
    size = int(np.prod(grid))
    if len(grid) != 2:
        return jax.random.uniform(key, (*shape, size))
    which, noise = jax.random.split(key)
    lengths = jax.random.randint(which, shape, 0, len(LENGTHS))
    fields = jax.random.normal(noise, (*shape, *grid))
    down, across = (jnp.asarray(_filters(side))[lengths] for side in grid)
    fields = jnp.einsum("...ij,...jk,...lk->...il", down, fields, across)
    return jax.scipy.special.ndtr(fields).reshape(*shape, size)


def sample_coalitions(key: jax.Array, count: int, valid: jax.Array) -> jax.Array:
    """Coalitions drawn from the Shapley kernel with their complements, [M, B, N]; M ≥ `count`.

    For training: of a few draws of each of many inputs, every one counts alike, and none is
    enumerated. Of the n features that an input has, `valid` [B, N], they hold 1 to n − 1; where n
    is 1, all or none: there is nothing between, and both are consistent with φ = v(x) − v(∅).
    """
    half = -(-count // 2)
    batch, size = valid.shape
    size_key, member_key = jax.random.split(key)
    sizes = jnp.arange(1, max(size, 2))
    others = valid.sum(-1, keepdims=True) - sizes  # [B, N − 1]
    logits = jnp.where(others > 0, -jnp.log(sizes * jnp.maximum(others, 1)), -jnp.inf)
    members = 1 + jax.random.categorical(size_key, logits, shape=(half, batch))
    places = jax.random.uniform(member_key, (half, batch, size))
    ranks = jnp.argsort(jnp.argsort(jnp.where(valid, places, 1.0), -1), -1)
    masks = ranks < members[..., None]
    return jnp.concatenate([masks, ~masks]) & valid


def covariance(grid: tuple[int, int], length: float) -> np.ndarray:
    """exp(−d² / 2ℓ²) of two features at a distance d, ℓ = `length` in sides of the grid: [N, N]."""
    if not length:
        return np.eye(int(np.prod(grid)), dtype=np.float32)
    down, across = (_gaussian(side, length) for side in grid)
    return np.kron(down, across).astype(np.float32)


def _filters(side: int) -> np.ndarray:
    """[L, side, side], rows of length 1."""
    filters = np.stack([_gaussian(side, length) if length else np.eye(side) for length in LENGTHS])
    return (filters / np.linalg.norm(filters, axis=-1, keepdims=True)).astype(np.float32)


def _gaussian(side: int, length: float) -> np.ndarray:
    distance = np.subtract.outer(np.arange(side), np.arange(side)) / side
    return np.exp(-(distance**2) / (2 * length**2))
