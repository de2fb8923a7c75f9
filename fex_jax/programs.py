"""An explainer's compiled programs: made once for each explainer, and shared by its threads."""

import functools
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from fex_jax import faithfulness, sharding
from fex_jax.host.model import plain_errors
from fex_jax.models import Params
from fex_jax.targets import ranked

if TYPE_CHECKING:
    from fex_jax.explain import Explainer

ANSWER, SCORES, EXPLANATION, FAITHFULNESS = range(4)


def explanation(
    explainer: "Explainer",
    predictor_params: Params,
    params: Params,
    batch: Any,
    classes: jax.Array,
    *,
    refine: int = 0,
    with_prediction: bool = True,
) -> tuple[jax.Array, jax.Array, jax.Array | None, jax.Array | None]:
    """What `Explainer.explain` computes, as a pure function of arrays."""
    if explainer.shares_backbone:  # XLA computes what both say of the same arrays once
        params = params | {"backbone": predictor_params["backbone"]}
    answers = None
    if with_prediction or explainer.needs_answers:
        answers = explainer.answer(predictor_params, params, batch)
        classes = ranked(answers, classes)
    given = params, batch, classes, answers
    maps = explainer.scores(predictor_params, *given, refine=refine)
    values = faithfulness.predicted(explainer, *given)
    return maps, classes, answers if with_prediction else None, values


def weights(explainer: "Explainer") -> tuple[Params, Params]:
    """f's parameters and the network's, on each device."""
    f, own = sharding.copied((explainer.predictor.params, explainer.params))
    return f, own | {"backbone": f["backbone"]} if explainer.shares_backbone else own


def placed(batch: Any) -> Any:
    """Split over the devices; pixels as float32, so that whole numbers need no other program."""
    pixels = getattr(batch, "dtype", None) == np.uint8
    return sharding.spread(np.asarray(batch, np.float32) if pixels else batch)


def jitted(explainer: "Explainer") -> tuple[Any, ...]:
    """`answer`, `scores`, `explanation` and `faithfulness`, in the order of their numbers."""
    return (
        jax.jit(explainer.answer),
        jax.jit(explainer.scores, static_argnames="refine"),
        jax.jit(
            functools.partial(explanation, explainer), static_argnames=("refine", "with_prediction")
        ),
        jax.jit(functools.partial(faithfulness.predicted, explainer)),
    )


@jax.enable_x64(False)
def run(explainer: "Explainer", program: int, *args: Any, **options: Any) -> Any:
    """Calls one of them; what a black box says against it comes out as it was said."""
    if explainer.predictor.inside:
        return explainer.programs[program](*args, **options)
    with plain_errors():
        return jax.block_until_ready(explainer.programs[program](*args, **options))
