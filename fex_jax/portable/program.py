"""What is exported: one function of arrays, the names and shapes of these, and a description."""

import dataclasses
import json
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.extend import core

from fex_jax import modalities, programs
from fex_jax.portable import resizing

BATCH = "batch"  # the symbol of its size
SIDES = "height", "width"  # of pictures of any size
OUTPUTS = ("attributions", "logits", "targets", "probabilities")


class Program(NamedTuple):
    """function(*arrays) → the `OUTPUTS`."""

    function: Callable[..., tuple[jax.Array, ...]]
    inputs: dict[str, tuple[tuple[Any, ...], Any]]  # shapes without the batch, and dtypes
    description: dict[str, Any]  # JSON
    resizes: bool = False

    def trace(self, batch: int | None = None) -> tuple[core.ClosedJaxpr, list[Any]]:
        """What the function computes, and the shapes of its inputs; of any batch by default.

        Only what the outputs depend on: of a black box, nothing that asks it.
        """
        names = BATCH, *SIDES
        known = dict(zip(names, jax.export.symbolic_shape(", ".join(names)), strict=True))
        shapes = [
            jax.ShapeDtypeStruct((batch or known[BATCH], *(known.get(n, n) for n in s)), dtype)
            for s, dtype in self.inputs.values()
        ]
        traced = jax.make_jaxpr(self.function)(*shapes)
        wanted, live = {id(variable) for variable in traced.jaxpr.outvars}, []
        for equation in reversed(traced.eqns):
            if wanted & {id(variable) for variable in equation.outvars}:
                wanted |= {id(variable) for variable in equation.invars}
                live.append(equation)
        return traced.replace(jaxpr=traced.jaxpr.replace(eqns=live[::-1])), shapes

    def lowered(self, platforms: Sequence[str], batch: int | None = None) -> jax.export.Exported:
        """The function for XLA's platforms; outputs have their names' order."""
        jaxpr, shapes = self.trace(batch)
        return jax.export.export(jax.jit(core.jaxpr_as_fun(jaxpr)), platforms=platforms)(*shapes)

    def describe(self, path: pathlib.Path) -> None:
        """Writes the description beside a file that has no place for it, as .json."""
        text = json.dumps(self.description, indent=2, ensure_ascii=False)
        path.with_suffix(".json").write_text(text + "\n", encoding="utf-8")


def of(explainer: Any, length: int | None = None, *, resize: bool = False) -> Program:
    """The program of an explainer, of texts of `length` tokens; see `portable.export`.

    Its description says, of pictures, how they are resized and cropped before (normalised they are
    by the program), and of texts how their tokens are found.

    Raises:
      ValueError: a length of pictures, or a longer one than the network reads; texts to resize, or
        pictures by another kernel than a file can.
    """
    predictor = explainer.predictor
    if not (predictor.inside or explainer.estimates):
        raise ValueError(
            f"{predictor.name} stays where it is, and this explainer does not know its answers: "
            "only explainers of probabilities by the preset contrast are exported without f"
        )
    if not predictor.inside:  # f itself stays where it is
        explainer = dataclasses.replace(explainer, predictor=dataclasses.replace(predictor, f=None))
    given = modalities.of(predictor).arrays(explainer, length)

    f, network = explainer.weights

    def function(*arrays: jax.Array) -> tuple[jax.Array, ...]:
        *things, classes = arrays
        found = programs.explanation(explainer, f, network, given.batch(*things), classes[:, None])
        maps, targets, answers = found[:3]
        logits = maps.reshape(-1, *given.shape)
        attributions = jax.nn.sigmoid(logits) if explainer.logits else logits
        return attributions, logits, targets[:, 0], answers

    description = {
        "made_by": "fex_jax",
        "method": explainer.method,
        "modality": predictor.modality,
        "labels": list(predictor.labels),
        "output": predictor.output,
        "probabilities_are": "the explainer's estimate"
        if predictor.absence
        else "the classifier's",
        "classes": "int32 [B]; -1: the most probable",
        "attributions": "sigmoid(logits)" if explainer.logits else "logits",
    }
    inputs = given.inputs | {"classes": ((), np.int32)}
    found = Program(function, inputs, description | given.description)
    if not resize:
        return found
    if not hasattr(predictor, "preprocessing"):
        raise ValueError(f"resize is True; {predictor.modality} have no size: leave it out")
    how = predictor.preprocessing
    resizing.check(how)
    pixels = "uint8 [B, height, width, 3], RGB, of any size: the file resizes and crops"
    return Program(
        lambda pixels, classes: function(resizing.resized(pixels, how), classes),
        inputs | {"pixels": ((*SIDES, 3), np.uint8)},
        found.description | {"pixels": pixels},
        resizes=True,
    )
