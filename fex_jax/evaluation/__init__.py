"""Attribution methods on the same inputs: their scores, what those are worth, and their price.

`evaluate` is the way in. A task holds inputs and what is known of them (`tasks`, `inputs`); methods
are chosen (`methods`) and run on it (`run`); their scores are measured (`measure`), kept under
the fingerprint of all that they depend on (`cache`, `fingerprint`), and shown (`table`, `gallery`).
"""

from fex_jax.evaluation.comparison import evaluate
from fex_jax.evaluation.inputs import load_task
from fex_jax.evaluation.measure import make_perturbation, statistics
from fex_jax.evaluation.methods import load_explainers, opened
from fex_jax.evaluation.run import Method, Scores, attribute, external, of_function, trained
from fex_jax.evaluation.table import Table

__all__ = [
    "Method",
    "Scores",
    "Table",
    "attribute",
    "evaluate",
    "external",
    "load_explainers",
    "load_task",
    "make_perturbation",
    "of_function",
    "opened",
    "statistics",
    "trained",
]
