"""Attribution methods on the same inputs: their scores, what those are worth, and their price."""

from fex_jax.evaluation.run import (
    Method,
    Scores,
    attribute,
    baseline,
    digest,
    external,
    load,
    make_perturbation,
    refined,
    save,
    statistics,
    trained,
)

__all__ = [
    "Method",
    "Scores",
    "attribute",
    "baseline",
    "digest",
    "external",
    "load",
    "make_perturbation",
    "refined",
    "save",
    "statistics",
    "trained",
]
