"""Which coalitions KernelSHAP asks, against enumeration."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fex_jax.attributions import coalitions


def drawn(valid: np.ndarray, pairs: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """The smaller halves of one input's pairs [P, N] and their weights [P]."""
    plan = coalitions.plan(len(valid), pairs)

    @jax.jit
    def draw(key, valid):
        one = coalitions.prepare(plan, key, valid)
        return jax.vmap(lambda i: coalitions.coalition(one, i))(jnp.arange(pairs))

    return tuple(map(np.asarray, draw(jax.random.key(seed), jnp.asarray(valid))))


def test_unranking_is_an_enumeration():
    """Breaks if a set is left out, comes twice or in another than colexicographic order."""
    for size, members in ((6, 2), (7, 3), (5, 1)):
        count = math.comb(size, members)
        found = np.asarray(
            jax.vmap(lambda r, m=members, s=size: coalitions.unrank(r, m, s))(jnp.arange(count))
        )
        sets = [set(np.flatnonzero(row)) for row in found]
        expected = sorted(
            itertools.combinations(range(size), members), key=lambda c: sorted(c, reverse=True)
        )
        assert sets == [set(c) for c in expected]


@pytest.mark.parametrize("n", [1, 2, 3, 6, 7])
def test_all_pairs_once(n):
    """Breaks if a budget for all pairs of n of 7 features leaves one out or asks one twice."""
    valid = np.isin(np.arange(7), [0, 6, 2, 3, 5, 1, 4][:n])
    masks, weights = drawn(valid, 63)
    masks, weights = masks[weights > 0], weights[weights > 0]
    both = {tuple(m) for m in np.concatenate([masks, valid & ~masks])}
    assert len(both) == 2 * len(masks) == max(2**n - 2, 0)
    assert not (masks & ~valid).any()
    # The Shapley kernel, up to one factor: 1 / (C(n, s) s (n − s)) for each of a pair's two.
    sizes = masks.sum(-1)
    kernel = [1 / (math.comb(n, s) * s * (n - s)) for s in sizes]
    np.testing.assert_allclose(
        weights / weights.sum(), np.array(kernel) / np.sum(kernel), rtol=1e-5
    )


@pytest.mark.parametrize("n, pairs", [(9, 150), (9, 18), (12, 200), (12, 15), (40, 300), (40, 30)])
def test_none_twice(n, pairs):
    """Breaks if a query is spent on what is known: a coalition, or a pair's other half."""
    masks, weights = drawn(np.ones(n, bool), pairs)
    assert (weights > 0).all()
    both = {tuple(m) for m in np.concatenate([masks, ~masks])}
    assert len(both) == 2 * pairs
    sizes = np.bincount(masks.sum(-1), minlength=n // 2 + 1)
    assert sizes[0] == 0 and len(sizes) == n // 2 + 1
    if n <= pairs < n + 7 * np.sqrt(n):
        assert sizes[1] == n


def test_every_set_of_a_size_is_as_likely():
    """Breaks if the order of features or the numbering prefers some: 600 draws of 5 of 21 pairs."""
    plan = coalitions.plan(7, 30)

    def one(key):
        prepared = coalitions.prepare(plan, key, jnp.ones(7, bool))
        return jax.vmap(lambda i: coalitions.coalition(prepared, i))(jnp.arange(30))

    masks, _ = jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(0), 600))
    masks = np.asarray(masks).reshape(-1, 7)
    for size in (2, 3):
        of_size = masks[masks.sum(-1) == size]
        count = math.comb(7, size)
        numbers = np.unique(of_size, axis=0, return_counts=True)[1]
        assert len(numbers) == count
        expected = len(of_size) / count
        np.testing.assert_allclose(numbers, expected, atol=5 * np.sqrt(expected))


def test_weights_make_up_for_unequal_sizes():
    """Breaks if the weights of a size, summed over its draws, are not its share of the kernel."""
    n, pairs = 10, 100
    plan = coalitions.plan(n, pairs)
    expected = np.diff(plan.ends[n], prepend=0)
    assert expected.sum() == pytest.approx(pairs)
    kernel = np.array([(1 if s == 5 else 2) / (s * (n - s)) for s in range(1, 6)])
    np.testing.assert_allclose(expected * plan.weights[n], kernel / kernel.sum(), rtol=1e-6)
