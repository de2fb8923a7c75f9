"""Texts as arrays: B of them, T tokens each, padding included."""

from typing import NamedTuple

import jax


class Raw(NamedTuple):
    """The strings of B texts as arrays, for a classifier that reads those."""

    content: jax.Array  # [B, L] uint8: UTF-8, filled up with 255, which is never part of it
    spans: jax.Array  # [B, T, 2] int, the characters of each feature; -1: the text has fewer


class TokenBatch(NamedTuple):
    """Texts as a classifier reads them, with the features that may be removed from them.

    A feature is a token, or a word with all its pieces; an input's features are numbered from 0
    without gaps, so that N = T is enough for all of them.
    """

    ids: jax.Array  # [B, T] int
    attention: jax.Array  # [B, T] bool, False at padding
    features: jax.Array  # [B, T] int, the feature a token belongs to; -1: CLS, SEP and padding
    raw: Raw | None = None  # of a black box
    # [B, T] int, which of a pair's texts; None: all are of the first
    types: jax.Array | None = None
