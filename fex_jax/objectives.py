"""Objectives of explainers, a module each, by the names that configs have for them.

An objective's module has

    Objective  its settings, checked; with a field `output`, what f's answers are
    train_step(state, model, inputs, key, *, optimizer, objective, ...) -> state, metrics: one
        batch's learning, of what `networks` returns besides

and, where it must,

    OUTPUTS, LEARNS  the answers that it can learn from, and in words what it learns from
    INSIDE           True: it needs f's network
    MODALITY         the only one that it explains
    MOVES            in words what learns nothing where the backbone is frozen
    CENTRED          True: maps are less their mean over features, and of one feature 0
    REGRESSES        True: maps are a regression of f's answers, whoever drew the masks. So held-out
                     answers say how good a map is, and all classes may share a part of theirs
    CRITIC           True: it trains a head that says what an input's masks are worth
    UNMASKED         queries about an input beside those of its masks; else one, f(x)
    networks(given)  what `train_step` takes of `Networks`; else `explainer`
    exported(objective, num_classes) -> fields of explainer.json
    beside(f)        what learns beside the explainer, by name, as it begins, of f's parameters:
                     checkpoints hold it, and exports do not
"""

import importlib
from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

import jax

from fex_jax.models import Params
from fex_jax.predictors import Inputs, Model

if TYPE_CHECKING:  # which imports for seconds what an explanation may not need
    from fex_jax.models.policy import Policy


class Kind(NamedTuple):
    """What explaining needs to know of explainers, without the module that trained them."""

    title: str  # for people
    logits: bool = False  # maps are logits of λ, so that attributions are their sigmoids; else φ
    absolute: bool = False  # an attribution of 1 is as much as there is, of any input
    one_map: bool = False  # whatever the class
    modules: tuple[str, ...] = ()  # that train them, if others than the one of this name


# By the name that exports and tables have. A new objective is a file here and a line.
KINDS = {
    "fex": Kind("FEX", logits=True, absolute=True, modules=("contrast", "published")),
    "fastshap": Kind("FastSHAP"),
    "shapley": Kind("Shapley regression"),
    "l2x": Kind("L2X", logits=True, one_map=True),
    "cortx": Kind("CoRTX"),
}
# By the module, which is a config's `method`, the name in KINDS.
METHODS = {module: name for name, kind in KINDS.items() for module in kind.modules or (name,)}


class Networks(NamedTuple):
    """Of a batch, what an objective's `networks` makes its own of."""

    model: Model  # f
    policy: "Callable[[Params], Policy]"
    frozen: bool  # the policy's backbone does not learn
    objective: Any
    rebind: Callable[[Params], Model] | None = None  # parameters of a network as f's
    shared: Params | None = None  # of a frozen backbone that is f's own: f's


def of(method: str) -> ModuleType:
    """The module of a config's method.

    Raises:
      ValueError: another method.
    """
    if method not in METHODS:
        raise ValueError(f"method {method!r} is unknown; choose {', '.join(METHODS)}")
    return importlib.import_module(f"fex_jax.{method}")


def explainer(given: Networks) -> dict[str, Callable]:
    """explainer(parameters, inputs, classes [B, T]) → maps [B, T, N]."""

    def maps(params: Params, inputs: Inputs, classes: jax.Array) -> jax.Array:
        return given.policy(params).maps(given.model.view(inputs), classes)

    return {"explainer": maps}


def trait(method: str, name: str, otherwise: Any = False) -> Any:
    """A constant of the module of a config's method, where it has it."""
    return getattr(of(method), name, otherwise)


def beside(method: str, f: Params) -> Params:
    """What learns beside the explainer; see above."""
    module = of(method)
    return module.beside(f) if hasattr(module, "beside") else {}
