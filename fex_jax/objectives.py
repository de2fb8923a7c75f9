"""Objectives of explainers, a module each, by the names that configs and exports have for them.

An objective's module has

    Objective  its settings, checked
    train_step(state, model, inputs, key, *, explainer, optimizer, objective) -> state, metrics: one
        batch's learning; `explainer` is (parameters, inputs, classes) -> maps. FEX's own is in
        `algorithm`

and, where it must,

    OUTPUTS, LEARNS  the answers that it can learn from, and in words what it learns from
    INSIDE           True: it needs f's network
    MODALITY         the only one that it explains
    networks(explainer, model, policy, rebind) -> what its `train_step` takes in the place of the
        explainer alone. `policy` is parameters -> `models.policy.Policy`, `rebind` parameters of a
        network as f's -> `Model` of this batch
    beside(f)        what learns beside the explainer, by name, as it begins, of f's parameters:
                     checkpoints hold it, and exports do not
"""

import importlib
from types import ModuleType
from typing import NamedTuple

from fex_jax.models import Params


class Kind(NamedTuple):
    """What explaining needs to know of an objective, without its module."""

    title: str  # for people
    logits: bool = False  # maps are logits of λ, so that attributions are their sigmoids; else φ
    one_map: bool = False  # whatever the class


# By name. A new objective is a file here and a line.
KINDS = {
    "fex": Kind("FEX", logits=True),
    "fastshap": Kind("FastSHAP"),
    "shapley": Kind("Shapley regression"),
    "l2x": Kind("L2X", logits=True, one_map=True),
    "cortx": Kind("CoRTX"),
}


def of(method: str) -> ModuleType:
    """The module of an objective."""
    return importlib.import_module(f"fex_jax.{'ppo' if method == 'fex' else method}")


def beside(method: str, f: Params) -> Params:
    """What learns beside the explainer; see above."""
    module = of(method)
    return module.beside(f) if hasattr(module, "beside") else {}
