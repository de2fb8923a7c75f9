"""The files of a run that keep what a black box said."""

import contextlib
import dataclasses
import pathlib
import sys
from typing import Any

import ml_collections
import numpy as np

from fex_jax import host
from fex_jax.host import black_box
from fex_jax.host.answers import same
from fex_jax.host.bank import Bank, identify
from fex_jax.host.black_box import BlackBox
from fex_jax.host.predictor import HostPredictor
from fex_jax.host.rows import Rows
from fex_jax.host.strings import Strings
from fex_jax.training import overlap

AGAIN = 8  # inputs of the probe that are asked about twice


def keep(
    path: pathlib.Path, f: HostPredictor, queries: int | None, price: float, **where: Any
) -> Bank:
    """A bank of a run, of whatever `where` says."""
    # A crash of the process loses nothing. One of the machine loses seconds: waiting for the disk
    # costs more than a query that has no price.
    return Bank(path, f, queries=queries, price=price, sync=price > 0, **where)


def of_probe(
    workdir: pathlib.Path, f: HostPredictor, queries: int | None, price: float = 0.0
) -> Bank:
    """What f said to the probe, by what it saw."""
    return keep(workdir / "probe.bank", f, queries, price, removal="as it is", grid=(1,))


def notes_masks(box: BlackBox, config: ml_collections.ConfigDict) -> bool:
    """Whether masks are kept, which a policy draws and answers are kept without."""
    alone = config.removal.kind != "surrogate" and overlap.suits(config, box)
    return isinstance(box.reads, Strings) or (isinstance(box.reads, Rows) and alone)


def of_masks(
    folder: pathlib.Path, f: HostPredictor, box: BlackBox, config: ml_collections.ConfigDict
) -> contextlib.AbstractContextManager[Bank | None]:
    """Of texts and tables, whose answers are kept by what f saw: a bank of their masks.

    It is one of a black box of no classes.
    """
    if not notes_masks(box, config):
        return contextlib.nullcontext()
    nothing = dataclasses.replace(
        f, call=lambda asked: np.empty((len(asked), 0)), input="text", labels=(), output="value",
        logits=False,
    )  # fmt: skip
    where = box.reads.noted_by(box.removal, config)
    return keep(folder / black_box.MASKS, nothing, None, config.predictor.price, **where)


def remembering(f: HostPredictor, bank: Bank) -> HostPredictor:
    """f, whose answers to whatever inputs are kept by what they show.

    The first inputs are asked about again: a mask of 0 marks what f says the second time.
    """
    untried = True

    def ask(inputs: Any, first: bool) -> np.ndarray:
        times = np.full((len(inputs), 1), first)
        return bank.ask(identify(inputs), times, lambda rows: [inputs[row] for row in rows])

    def call(inputs: Any) -> np.ndarray:
        nonlocal untried
        answers = ask(inputs, True)
        if untried:
            untried = False
            again = ask(inputs[:AGAIN][::-1], False)[::-1]
            if not same(answers[:AGAIN], again):
                worst = np.abs(answers[:AGAIN] - again).max()
                print(
                    f"WARNING: {f.name} answers the same inputs differently when asked again, in "
                    f"reverse order, by up to {worst:.3g}: rows come back in another order, or f "
                    "is random, or it reads its batch. Maps will be of what it says first",
                    file=sys.stderr,
                )
        return answers

    return host.host(
        call, labels=f.labels, input=f.input, output=f.output, tolerance=f.tolerance, name=f.name,
        features=f.features,
    )  # fmt: skip
