"""Digests of what a run depends on: its predictor and its data."""

import hashlib
from typing import Any

import jax
import numpy as np

from fex_jax import data, text_data
from fex_jax.data import tables
from fex_jax.export import Predictor
from fex_jax.training.sources import Source

_RECORDS = 10_000  # records of a data set that its digest is made of
_PICTURES = 16  # pictures that are decoded for it


def digest(*values: Any) -> str:
    """A fingerprint of pytrees of arrays, strings and numbers."""
    found = hashlib.sha256()
    for leaf in jax.tree.leaves(values):
        if isinstance(leaf, jax.Array | np.ndarray):
            leaf = np.ascontiguousarray(leaf)
            found.update(f"{leaf.dtype}{leaf.shape}".encode())
            found.update(leaf.view(np.uint8).reshape(-1).data if leaf.size else b"")
        else:
            found.update(repr(leaf).encode())
    return found.hexdigest()[:16]


def of_predictor(predictor: Predictor) -> str:
    """Of everything its answers depend on."""
    return digest(*predictor.identity)


def of_data(source: Source, predictor: Any) -> dict:
    """How many examples there are, and a digest of all texts or rows, or of the first pictures.

    That is of the names of 10,000 files and the pixels of 16 pictures.
    """
    if isinstance(source, text_data.Source):
        return {"size": source.size, "digest": digest(source.texts)}
    if isinstance(source, tables.Source):
        return {"size": source.size, "digest": digest(source.columns.to_list(), *source[1:])}
    records = source.records.take(_RECORDS).as_numpy_iterator()
    names = [record.get("file", b"").split(b"/")[-2:] for record in records]
    first = data.eval_stream(source, predictor.preprocessing, _PICTURES, limit=_PICTURES)
    return {"size": source.size, "digest": digest(names, next(first)["image"])}
