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

from fex_jax import checks, feeding, objectives, probing, surrogate
from fex_jax.data import tables
from fex_jax.families import hub
from fex_jax.feeding import Source
from fex_jax.host import black_box
from fex_jax.host.bank import Bank
from fex_jax.host.black_box import BlackBox, Reads
from fex_jax.host.model import plain_errors
from fex_jax.host.predictor import HostPredictor
from fex_jax.host.rows import Rows
from fex_jax.host.strings import Strings
from fex_jax.probing import Probe
from fex_jax.removal import Own, Removal, Words
from fex_jax.training import banks, held_out, overlap, run

PROBED = 32  # inputs that the probe asks about
COMPARED = 8  # inputs that a comparison within a budget asks about
_PHOTOGRAPHS, _LARGE = "facebook/dinov2-small", 112  # what reads them; their least side, pixels
_SHARES = (0.9, 0.7, 0.5, 0.3, 0.1)


def candidates(config: ml_collections.ConfigDict, f: HostPredictor) -> list[Removal] | list[Words]:
    """The removals that the config leaves to the probe; see `Pictures` and `Strings`."""
    return black_box.kind_of(f).candidates(config, f)


def queries_of_probe(found: Sequence[Removal | Words], inputs: int) -> int:
    """How many queries choosing among removals takes at most, and looking at the chosen one.

    Some whole inputs are asked about twice.
    """
    return inputs * (1 + 2 * len(found) + len(_SHARES)) + min(inputs, banks.AGAIN)


def queries_of_input(config: ml_collections.ConfigDict) -> int:
    """What a step asks of f about one input: the whole one, its masks, of some the blank."""
    return config.objective.num_masks + objectives.trait(config.method, "UNMASKED", 1)


def queries_of_comparison(removal: Removal | Words | Own, longest: int) -> int:
    """What `fit.compare` asks about `COMPARED` things, texts of so many tokens, at most.

    Of each the whole one and the blank, two curves of three methods in tenths, and Occlusion.
    """
    occluded = longest if isinstance(removal, Words) else removal.num_features
    return COMPARED * (2 + 3 * 2 * 9 + occluded)


def left_of(queries: int, f: HostPredictor, workdir: pathlib.Path) -> int:
    """Of the queries of a run those that the probe has left for its other bank."""
    with banks.of_probe(workdir, f, queries) as bank:
        return max(queries - len(bank), 0)


def affordable(
    config: ml_collections.ConfigDict, f: HostPredictor, size: int, queries: int
) -> float:
    """As many of the config's epochs over `size` inputs as so many queries suffice for.

    The comparison at the end has its own, if it takes no more than a tenth.
    """
    kept, found = held_out.count(config.method, size), candidates(config, f)
    asked = queries_of_probe(found, min(size, PROBED)) + held_out.queries(kept)
    compared = queries_of_comparison(found[0], config.text.max_length)
    asked += compared if compared <= queries / 10 else 0
    batches = (queries - asked) // (config.batch_size * queries_of_input(config))
    return min(config.epochs, max(batches, 1) * config.batch_size / (size - kept))


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
    again = config.predictor.bank
    if not reads.banked:
        if again:
            raise ValueError(
                f"predictor.bank is {again!r}; answers about {reads.modality} are not kept"
            )
        if queries is not None:
            raise ValueError(f"queries of {reads.modality} are not counted; leave them out")
        with plain_errors():
            if config.removal.kind == "surrogate":
                reads = _conditional(f, reads, config.seed, workdir, source)
            yield black_box.of(f, reads.removed, reads)
        return
    # Each process asks about its own inputs, has its share of the queries, and keeps the answers.
    count, index = jax.process_count(), jax.process_index()
    training, queries = -(-training // count), None if queries is None else queries // count
    folder = pathlib.Path(again) if again else workdir
    folder = folder / f"process_{index}" if index else folder
    apart = f", in each of {count} processes" if count > 1 else ""
    box, found = black_box.of(f, reads=reads), candidates(config, f)
    needed = queries_of_probe(found, min(source.size, PROBED)) + training
    if again:
        _require_bank(config, box, folder)
        queries = 0
    elif queries is not None and needed > queries:
        raise ValueError(
            f"training takes up to {needed:,} queries, {needed - training:,} of them to choose a "
            f"removal, and {queries:,} may be asked{apart}: allow more, or lower epochs, "
            "data.limit or objective.num_masks"
        )
    price = config.predictor.price
    if price and not again:
        cost = f"{needed:,} queries at {price:g} each, {needed * price:,.2f} in all"
        run.say(f"{f.name}: up to {cost}{apart}")
    with banks.of_probe(folder, f, queries, price) as bank:
        asked = dataclasses.replace(box, f=banks.remembering(f, bank))
        chosen, about = choose(asked, found, feeding.of(box).first(box, source, config, PROBED))
        left = None if queries is None else max(queries - len(bank), 0)
    less = "Less what it says of nothing, " if f.output == "value" else ""
    run.say(f"{f.name}: {chosen}. {less}{about.sentence}")
    where = reads.kept_by(chosen)
    with (
        banks.keep(folder / black_box.ANSWERS, f, left, price, **where) as bank,
        banks.of_masks(folder, f, reads, chosen, config) as notes,
    ):
        budget = "" if left is None else f"; {bank.left:,} of {queries:,} are left"
        run.say(
            f"{f.name}: learns again from {len(bank):,} answers in {bank.path}, and asks nothing"
            if again
            else f"{f.name}: training takes up to {training:,} queries{apart}; {bank.path} holds "
            f"{len(bank):,} answers, which are not asked again{budget}"
        )
        with plain_errors():
            yield dataclasses.replace(box, removal=chosen, f=bank, notes=notes, probe=about)


def _conditional(
    f: HostPredictor, reads: Rows, seed: int, workdir: pathlib.Path, source: tables.Source
) -> Reads:
    """With a surrogate that has learned from the source, or, of a run that goes on, has it."""
    kept = workdir / "export" / "predictor"
    if any((workdir / "checkpoints").glob("[0-9]*")) and black_box.is_saved(kept):
        return black_box.read(kept).reads
    answers = reads.ask_all(f, source.values)
    first = source.values[:1]  # in the place of a background
    reads = dataclasses.replace(reads, background=first, answers=answers.mean(0, keepdims=True))
    scaled, standard = reads.steps.scaled(source.values), reads.standard(answers)
    learned, explained = surrogate.train(reads.steps, scaled, standard, reads.owner, seed)
    run.say(
        f"{f.name}: a surrogate learned from {source.size:,} rows; of held-out rows with features "
        f"hidden it explains {explained:.0%} of the variance of f"
    )
    return dataclasses.replace(reads, surrogate=learned)


def countdown(bank: Bank) -> str:
    """The state of a bank, for a line of the log."""
    spent = f" for {len(bank) * bank.price:,.2f}" if bank.price else ""
    left = "" if bank.left is None else f", {bank.left:,} queries left"
    return f"{len(bank):,} answers{spent}{left}"


def _require_bank(config: ml_collections.ConfigDict, box: BlackBox, folder: pathlib.Path) -> None:
    """Raises a ValueError where a run cannot learn from the answers of another alone."""
    if not overlap.suits(config, box):
        raise ValueError(
            "predictor.bank is for the presets contrast and fastshap, one process and "
            "predictor.overlap=True: other objectives ask who drew the masks"
        )
    files = [black_box.ANSWERS] + [black_box.MASKS] * isinstance(box.reads, Strings)
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
        about = probe(chosen, _SHARES)
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
