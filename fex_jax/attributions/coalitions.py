"""Coalitions for KernelSHAP: which sizes are asked, how often, and which sets of a size.

A pair is a coalition and its complement; its size s is that of the smaller, at most n / 2. Shapes:
N features, of which an input has n, P pairs, S = N // 2 sizes.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

_MOST_RANKED = 2**24  # of more sets of a size, draws hardly ever meet twice
_LONGEST = 13  # the largest size of which there are so few, at n = 26: C(26, 13) / 2


class Plan(NamedTuple):
    """How P pairs are shared out among sizes, for every n from 0 to N; arrays [N + 1, S]."""

    ends: np.ndarray  # expected number of pairs of the sizes up to this one
    weights: np.ndarray  # of a pair in the regression
    available: np.ndarray  # pairs of this size, 0 where there are more than `_MOST_RANKED`


class Drawn(NamedTuple):
    """What decides the pairs of one input."""

    key: jax.Array
    valid: jax.Array  # [N] bool
    places: jax.Array  # [N] a random order of its features, from 0; others come after them
    starts: jax.Array  # [S + 1] the number of the first pair of each size
    turns: jax.Array  # [S] the number of the first set of each size
    weights: jax.Array  # [S]
    available: jax.Array  # [S]


def most_pairs(size: int) -> int:
    """Pairs of coalitions of `size` features, without that of all and none."""
    return 2 ** (size - 1) - 1


def plan(size: int, pairs: int) -> Plan:
    """How often each size is asked: alike, up to all of its sets (Musco and Witter, ICLR 2025).

    Every size has the same leverage in this regression. A pair's weight is its sets' share of the
    Shapley kernel, 1 / (s (n − s)), over the expected number of pairs. Where all are asked, φ are
    exact.

    With fewer than n + 7√n pairs too little is known to weigh them: all count alike. (On games of 9
    to 256 features the errors of both ways meet at n + 6√n to n + 8√n.) As P nears n, the
    regression nears a square one, which magnifies whatever is not linear; so from n / 2 on,
    2P − n pairs are of size 1, and from n on all n of them, with which every φ_i is settled.
    """
    count = max(size // 2, 1)
    ends = np.zeros((size + 1, count))
    weights, available = np.zeros_like(ends), np.zeros_like(ends)
    for n in range(2, size + 1):
        sizes = range(1, n // 2 + 1)
        number = [math.comb(n, s) // (2 if 2 * s == n else 1) for s in sizes]
        share = np.array([0.5 if 2 * s == n else 1 for s in sizes])  # of the sizes s and n − s
        few = pairs < min(n + 7 * math.sqrt(n), sum(number))
        least = min(max(2 * pairs - n, 0), n) if few else 0
        expected, left = np.zeros(len(sizes)), pairs
        for i, most in enumerate(number):
            own = left * share[i] / share[i:].sum()
            expected[i] = min(max(own, least if i == 0 else 0), most)
            left -= expected[i]
        row = slice(0, len(sizes))
        ends[n, row] = np.cumsum(expected)
        ends[n, len(sizes) :] = ends[n, len(sizes) - 1]
        kernel = share / (np.array(sizes) * (n - np.array(sizes)))
        weights[n, row] = 1 if few else kernel / kernel.sum() / expected
        available[n, row] = [c if c <= _MOST_RANKED else 0 for c in number]
    return Plan(ends, weights, available)


def prepare(plan: Plan, key: jax.Array, valid: jax.Array) -> Drawn:
    """One input's pairs, from its key and which features it has [N]."""
    size, count = len(valid), plan.ends.shape[-1]
    bits = jax.random.bits(key, (size + 1 + count,))
    order = jnp.argsort(jnp.where(valid, bits[:size] >> 1, jnp.uint32(2**31)))
    # Systematic sampling: the number of pairs of a size is its expectation, rounded up or down.
    n, shift = valid.sum(), (bits[size] >> 8).astype(jnp.float32) / 2**24
    starts = jnp.ceil(jnp.asarray(plan.ends, jnp.float32)[n] - shift).astype(jnp.int32)
    available = jnp.asarray(plan.available, jnp.uint32)[n]
    return Drawn(
        key=key,
        valid=valid,
        places=jnp.argsort(order),
        starts=jnp.concatenate([jnp.zeros(1, jnp.int32), starts]),
        turns=bits[size + 1 :] % jnp.maximum(available, 1),
        weights=jnp.asarray(plan.weights, jnp.float32)[n],
        available=available,
    )


def coalition(drawn: Drawn, number: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The smaller half [N] of the `number`-th pair, and the pair's weight.

    No set comes twice: those of one size are numbered, the numbers cut into as many stretches as
    there are pairs, and one taken from each. Where sizes have too many sets for that, they are
    drawn one by one. Beyond the last pair there is the empty set, of weight 0.
    """
    size, count = len(drawn.valid), len(drawn.weights)
    which = jnp.searchsorted(drawn.starts, number, side="right") - 1  # s − 1
    exists = which < count
    which = jnp.minimum(which, count - 1)
    members = jnp.where(exists, which + 1, 0)
    bits = jax.random.bits(jax.random.fold_in(drawn.key, number), (size + 1,))

    most = drawn.available[which]
    place = (number - drawn.starts[which]).astype(jnp.uint32)
    stretches = (drawn.starts[which + 1] - drawn.starts[which]).astype(jnp.uint32)

    def begin(place: jax.Array) -> jax.Array:  # ⌊place · most / stretches⌋ without overflow
        whole, rest = jnp.divmod(most, jnp.maximum(stretches, 1))
        return place * whole + place * rest // jnp.maximum(stretches, 1)

    first = begin(place)
    chosen = first + bits[size] % jnp.maximum(begin(place + 1) - first, 1)
    rank = (chosen + drawn.turns[which]) % jnp.maximum(most, 1)
    numbered = unrank(rank.astype(jnp.int32), members, size)[drawn.places]

    order = jnp.where(drawn.valid, bits[:size] >> 1, jnp.uint32(2**31))
    smallest = order <= jnp.sort(order)[jnp.maximum(members - 1, 0)]
    mask = jnp.where(most > 0, numbered, smallest) & drawn.valid & exists
    return mask, jnp.where(exists, drawn.weights[which], 0.0)


def unrank(rank: jax.Array, members: jax.Array, size: int) -> jax.Array:
    """The `rank`-th set of `members` numbers below `size`, in colexicographic order: bool [N].

    Its largest member is the largest c with C(c, members) ≤ rank, and so on with what is left. The
    first half of the sets of half of n numbers, C(n, n/2) / 2 of them, is one of each pair.
    """
    longest = min(_LONGEST, max(size // 2, 1))
    binomials = np.array(
        [[min(math.comb(c, k), 2**31 - 1) for c in range(size)] for k in range(longest + 1)]
    )
    table = jnp.asarray(binomials, jnp.int32)  # [longest + 1, N]

    def take(state: tuple, _: None) -> tuple[tuple, None]:
        rank, members, mask = state
        column = table[jnp.minimum(members, longest)]
        largest = (column <= rank).sum() - 1
        more = members > 0
        mask = mask | (more & (jnp.arange(size) == largest))
        rank = jnp.where(more, rank - column[largest], rank)
        return (rank, jnp.maximum(members - 1, 0), mask), None

    start = rank, members, jnp.zeros(size, bool)
    return jax.lax.scan(take, start, length=longest)[0][2]
