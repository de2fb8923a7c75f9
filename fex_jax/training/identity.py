"""Digests of what a run depends on: its predictor and its data."""

import hashlib
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

if TYPE_CHECKING:  # a job that explains needs no TensorFlow
    from fex_jax.export import Predictor
    from fex_jax.feeding import Source


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


def of_predictor(predictor: "Predictor") -> str:
    """Of everything its answers depend on."""
    return digest(*predictor.identity)


def of_data(source: "Source", predictor: "Predictor") -> dict:
    """How many examples there are, and a digest of what tells them from others."""
    return {"size": source.size, "digest": digest(*source.contents(predictor))}
