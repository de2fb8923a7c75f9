"""Before a black box is explained: its removal, how many queries, who keeps the answers."""

import contextlib
import dataclasses
import pathlib
import sys
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import ml_collections
import numpy as np
from jax.experimental import multihost_utils

from fex_jax import checks, feeding, probing, surrogate
from fex_jax.data.tables import Source as Table
from fex_jax.families import hub
from fex_jax.feeding import Source
from fex_jax.host import black_box
from fex_jax.host.bank import Bank
from fex_jax.host.black_box import BlackBox, Reads
from fex_jax.host.model import plain_errors
from fex_jax.host.predictor import HostPredictor
from fex_jax.probing import Probe
from fex_jax.removal import Removal, Words
from fex_jax.training import banks, counting, overlap, run

_PHOTOGRAPHS, _LARGE = "facebook/dinov2-small", 112  # what reads them; their least side, pixels


def candidates(config: ml_collections.ConfigDict, f: HostPredictor) -> list[Removal] | list[Words]:
    """The removals that the config leaves to the probe; see `Pictures` and `Strings`."""
    return black_box.kind_of(f).candidates(config, f)


def left_of(queries: int, f: HostPredictor, workdir: pathlib.Path) -> int:
    """Of the queries of a run those that the probe has left for its other bank."""
    if f.modality == "tables":  # which have no probe
        return queries
    with banks.of_probe(workdir, f, queries) as bank:
        return max(queries - len(bank), 0)


def with_network(
    config: ml_collections.ConfigDict, f: HostPredictor, workdir: pathlib.Path
) -> ml_collections.ConfigDict:
    """The config with a network that explains pictures in the place of the policy "auto".

    It is the one that the run in `workdir` began with; of a new run DINOv2-small for pictures of at
    least 112 pixels a side, where the hub's cache has it, or else a U-Net.
    """
    if config.policy != "auto" or f.modality != "images":
        return config
    config = config.copy_and_resolve_references()
    config.policy = "unet"
    if config.policy_backbone.path:
        return config
    if (begun := workdir / "config.json").is_file():
        before = checks.read_json(begun).get("policy_backbone", {})
        config.policy_backbone.path = before.get("path", "")
    elif min(map(int, f.input[:2])) >= _LARGE and (found := hub.cached(_PHOTOGRAPHS)):
        config.policy_backbone.path = str(found)
    if config.policy_backbone.path:
        run.say(
            f"{f.name}: the explainer starts from {config.policy_backbone.path}; the policy unet "
            "starts from nothing"
        )
    return config


@contextlib.contextmanager
def settled(
    f: HostPredictor,
    reads: Reads,
    config: ml_collections.ConfigDict,
    workdir: pathlib.Path,
    source: Source,
    training: int,
    queries: int | None,
) -> Iterator[BlackBox]:
    """The black box to train on, with a removal chosen, and a bank open that keeps its answers.

    Args:
      f: what is explained.
      reads: how the policy reads its inputs.
      config: its `removal` is used.
      workdir: where probe.bank and answers.bank are; those of further processes in folders of it.
      source: inputs for the probe.
      training: queries that training takes at most.
      queries: those that may be asked in all; None: any number.

    Raises:
      ValueError: more queries are needed than may be asked, or `predictor.bank` cannot be learned
        from again.
      HostError: f failed; what it answered is kept. Or it may not be asked what `predictor.bank`
        does not know.
    """
    # Each process asks about its own inputs, has its share of the queries, and keeps the answers.
    count, index = jax.process_count(), jax.process_index()
    training, queries = -(-training // count), None if queries is None else queries // count
    again, price = config.predictor.bank, config.predictor.price
    folder = pathlib.Path(again) if again else workdir
    folder = folder / f"process_{index}" if index else folder
    apart = f", in each of {count} processes" if count > 1 else ""
    box, tables = black_box.of(f, reads=reads), reads.modality == "tables"
    if not (again or black_box.keeps(f, reads, folder, queries, price)):
        with plain_errors():
            yield _with_answers(box, config, workdir, source)
        return
    first = counting.before(config, f, source)
    needed = first + training
    if again:
        _require_bank(config, box, folder)
        queries = 0
    elif queries is not None and needed > queries:
        what = "know the background" if tables else "choose a removal"
        raise ValueError(
            f"training takes up to {needed:,} queries, {first:,} of them to {what}, and "
            f"{queries:,} may be asked{apart}: allow more, or lower epochs, data.limit or "
            "objective.num_masks"
        )
    if price and not again:
        cost = f"{needed:,} queries at {price:g} each, {needed * price:,.2f} in all"
        if config.method == "shapley":
            more = counting.at_end(config, box.removal, source, queries)
            cost += f"; {more:,} more to compare values with true ones at the end"
        run.say(f"{f.name}: up to {cost}{apart}")
    left = queries
    if tables:
        box = dataclasses.replace(box, removal=reads.removed)
    else:
        with banks.of_probe(folder, f, queries, price) as bank:
            asked = dataclasses.replace(box, f=banks.remembering(f, bank))
            batch = feeding.of(box).first(box, source, config, counting.PROBED)
            chosen, about = choose(asked, candidates(config, f), batch)
            left = None if queries is None else max(queries - len(bank), 0)
        less = "Less what it says of nothing, " if f.output == "value" else ""
        run.say(f"{f.name}: {chosen}. {less}{about.sentence}")
        box = dataclasses.replace(box, removal=chosen, probe=about)
    where = reads.kept_by(box.removal)
    with (
        banks.keep(folder / black_box.ANSWERS, f, left, price, **where) as bank,
        banks.of_masks(folder, f, box, config) as notes,
    ):
        budget = "" if left is None else f"; {bank.left:,} of {queries:,} are left"
        run.say(
            f"{f.name}: learns again from {len(bank):,} answers in {bank.path}, and asks nothing"
            if again
            else f"{f.name}: training takes up to {training:,} queries{apart}; {bank.path} holds "
            f"{len(bank):,} answers, which are not asked again{budget}"
        )
        box = dataclasses.replace(box, f=bank, notes=notes)
        with plain_errors():
            yield _with_answers(box, config, workdir, source) if tables else box


def _with_answers(
    box: BlackBox, config: ml_collections.ConfigDict, workdir: pathlib.Path, source: Table
) -> BlackBox:
    """A box of a table, with what f says before training."""
    reads = box.reads.with_answers(box.ask, source)
    if config.removal.kind == "surrogate":
        reads = _conditional(dataclasses.replace(box, reads=reads), config.seed, workdir, source)
    return dataclasses.replace(box, removal=reads.removed, reads=reads)


def _conditional(box: BlackBox, seed: int, workdir: pathlib.Path, source: Table) -> Reads:
    """With a surrogate that has learned from the source, or, of a run that goes on, has it."""
    kept, reads = workdir / "export" / "predictor", box.reads
    if any((workdir / "checkpoints").glob("[0-9]*")) and black_box.is_saved(kept):
        return black_box.read(kept).reads
    answers = reads.ask_all(box.ask, source.values)
    first = source.values[:1]  # in the place of a background
    reads = dataclasses.replace(reads, background=first, answers=answers.mean(0, keepdims=True))
    scaled, standard = reads.steps.scaled(source.values), reads.standard(answers)
    learned, explained = surrogate.train(reads.steps, scaled, standard, reads.owner, seed)
    run.say(
        f"{box.name}: a surrogate learned from {source.size:,} rows; of held-out rows with "
        f"features hidden it explains {explained:.0%} of the variance of f"
    )
    return dataclasses.replace(reads, surrogate=learned)


def countdown(bank: Bank) -> str:
    """The state of a bank, for a line of the log."""
    spent = f" for {len(bank) * bank.price:,.2f}" if bank.price else ""
    left = "" if bank.left is None else f", {bank.left:,} queries left"
    return f"{len(bank):,} answers{spent}{left}"


def _require_bank(config: ml_collections.ConfigDict, box: BlackBox, folder: pathlib.Path) -> None:
    """Raises a ValueError where a run cannot learn from the answers of another alone."""
    # What f is asked is drawn by chance alone, or is all about whole rows.
    by_chance = config.method == "shapley" or config.removal.kind == "surrogate"
    if not (by_chance or overlap.suits(config, box)):
        raise ValueError(
            "predictor.bank is for the presets contrast and fastshap, of tables shapley, one "
            "process and predictor.overlap=True: other objectives ask who drew the masks"
        )
    files = [black_box.ANSWERS] + [black_box.MASKS] * banks.notes_masks(box, config)
    for file in files:
        if not (folder / file).is_file():
            raise ValueError(
                f"predictor.bank is {config.predictor.bank!r}, where no {file} is: name the folder "
                "of a run"
            )


def choose(
    box: BlackBox, found: Sequence[Removal | Words], batch: Any
) -> tuple[Removal | Words, Probe]:
    """A removal that f can stand, with what survives it; said, and warned about where it does not.

    The others are probed with half of the features removed.
    """

    def probe(one: Removal | Words, shares: tuple[float, ...]) -> Probe:
        with plain_errors():
            model, inputs = dataclasses.replace(box, removal=one).bind({}, batch)
            return probing.probe(model, inputs, shares=shares)

    chosen = found[0]
    if len(found) > 1:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it is the chosen one that matters
            probes = {one: probe(one, (0.5,)) for one in found}
        chosen = found[_agreed(found.index(probing.choose(probes)))]
        run.say(_table(probes, box))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        about = probe(chosen, counting.SHARES)
    for warning in said:
        print(f"WARNING: {warning.message}", file=sys.stderr)
    return chosen, about


def _agreed(choice: int) -> int:
    """The first process's, in all of them."""
    if jax.process_count() == 1:
        return choice
    return int(multihost_utils.broadcast_one_to_all(np.int32(choice)))


def _table(probes: dict[Removal | Words, Probe], box: BlackBox) -> str:
    """Kinds of removal, or words, by rows, edges by columns: what survives."""

    def row(one: Removal | Words) -> str:
        return getattr(one, "word", "") or one.kind

    edges = sorted({one.softness for one in probes})
    clean = next(iter(probes.values())).clean
    lines = [
        f"{box.name} says {clean:.3f} of whole {box.modality}; of that survives, with half of "
        "their features removed:",
        "  edges   "
        + "".join(f"{f'{edge:.2g} cell' if edge else 'hard':>11}" for edge in edges)
        + f"{'nothing left':>15}",
    ]
    for kind in dict.fromkeys(map(row, probes)):
        of = {one.softness: probe for one, probe in probes.items() if row(one) == kind}
        shares = "".join(f"{probing.percent(of[edge].at_half):>11}" for edge in edges)
        blank = max(probe.blank for probe in of.values()) / clean if clean else 0.0
        lines.append(f"  {kind:8}{shares}{blank:15.0%}")
    return "\n".join(lines)
