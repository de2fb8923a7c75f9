"""Before a black box is explained: its policy, its removal, how many queries, who keeps them."""

import contextlib
import dataclasses
import pathlib
import sys
import warnings
from collections.abc import Iterator
from typing import NamedTuple

import ml_collections
import numpy as np

from fex_jax import data, host, pretrained, removal
from fex_jax.host import black_box
from fex_jax.host.bank import Bank, identify
from fex_jax.host.black_box import BlackBox
from fex_jax.host.model import image_model, plain_errors
from fex_jax.host.predictor import HostPredictor
from fex_jax.models import Params
from fex_jax.models.policy import Backbone
from fex_jax.models.unet import UNetConfig
from fex_jax.models.vit import ViTConfig
from fex_jax.preprocessing import Preprocessing
from fex_jax.removal import Probe, Removal

PICTURES = 32  # that the probe asks about
_EDGES = (0.0, 1 / 3, 1 / 2, 1.0)  # in cells
_SHARES = (0.9, 0.7, 0.5, 0.3, 0.1)


class Policy(NamedTuple):
    """Where a policy begins, and how it sees f's picture."""

    backbone: Backbone
    start: Params | None  # the backbone's parameters; None: drawn
    looks: Preprocessing


def open_policy(config: ml_collections.ConfigDict, f: HostPredictor) -> Policy:
    """A U-Net, or the ViT of `policy_backbone.path` at the size that has a patch for each cell.

    Raises:
      ValueError: a path to something else, or a policy without it that f has no network for.
    """
    rows, columns = _grid(config, f)
    path = config.policy_backbone.path
    if path:
        found = pretrained.load(path, num_classes=2)  # the head is not used
        if not isinstance(found, pretrained.Checkpoint):
            raise ValueError(f"policy_backbone.path: {path} reads texts; f's inputs are pictures")
        if not isinstance(found.config, ViTConfig):
            raise ValueError(
                f"policy_backbone.path: {path} is a {found.config.family}, which has no tokens; "
                "give a ViT, a DeiT or a DINOv2"
            )
        if found.config.grid != (rows, columns):
            side = rows * found.config.patch_size
            found = pretrained.load(path, image_size=side, num_classes=2)
        return Policy(found.config, found.params["backbone"], found.preprocessing)
    if config.policy != "unet":
        raise ValueError(
            f"policy {config.policy!r}: a black box has no backbone to start from; choose unet, or "
            "name one with --config.policy_backbone.path"
        )
    looks = black_box.of(f, Removal(grid=(rows, columns))).looks
    return Policy(UNetConfig(looks.image_size, looks.image_size // rows), None, looks)


def candidates(config: ml_collections.ConfigDict, f: HostPredictor) -> list[Removal]:
    """The removals that the config leaves to the probe.

    Raises:
      ValueError: another kind, or a number that cannot be.
    """
    given = config.removal
    kinds = ("fill", "mean", "blur") if given.kind == "probe" else (given.kind,)
    edges = _EDGES if given.softness < 0 else (given.softness,)
    sigma = given.sigma or black_box.default_sigma(f.input[0])
    grid = _grid(config, f)
    return [Removal(kind, grid, edge, sigma=sigma) for kind in kinds for edge in edges]


def queries_of_probe(found: list[Removal], pictures: int) -> int:
    """How many queries choosing among removals takes at most, and looking at the chosen one."""
    return pictures * (1 + 2 * len(found) + len(_SHARES))


def queries_of_input(config: ml_collections.ConfigDict) -> int:
    """What a step asks of f about one input: the whole one, its masks, of FastSHAP the blank."""
    return config.objective.num_masks + (2 if config.method == "fastshap" else 1)


def affordable(
    config: ml_collections.ConfigDict, f: HostPredictor, size: int, queries: int
) -> float:
    """As many of the config's epochs over `size` pictures as so many queries suffice for."""
    left = queries - queries_of_probe(candidates(config, f), min(size, PICTURES))
    batches = left // (config.batch_size * queries_of_input(config))
    return min(config.epochs, max(batches, 1) * config.batch_size / size)


@contextlib.contextmanager
def settled(
    f: HostPredictor,
    looks: Preprocessing,
    config: ml_collections.ConfigDict,
    workdir: pathlib.Path,
    source: data.Source,
    training: int,
    queries: int | None,
) -> Iterator[BlackBox]:
    """The black box to train on, with a removal chosen, and a bank open that keeps its answers.

    Args:
      f: what is explained.
      looks: how the policy sees its pictures.
      config: its `removal` is used.
      workdir: where probe.bank and answers.bank are.
      source: pictures for the probe.
      training: queries that training takes at most.
      queries: those that may be asked in all; None: any number.

    Raises:
      ValueError: more queries are needed than may be asked.
      HostError: f failed; what it answered is kept.
    """
    first = next(data.eval_stream(source, black_box.of(f).preprocessing, PICTURES, limit=PICTURES))
    pictures, found = first["image"], candidates(config, f)
    needed = queries_of_probe(found, len(pictures)) + training
    if queries is not None and needed > queries:
        raise ValueError(
            f"training takes up to {needed:,} queries, {needed - training:,} of them to choose a "
            f"removal, and {queries:,} may be asked: allow more, or lower epochs, data.limit or "
            "objective.num_masks"
        )
    with _bank(workdir / "probe.bank", f, "as it is", (1,), queries) as bank:
        asked = _remembering(f, bank)
        chosen, about = _choose(asked, found, pictures)
        left = None if queries is None else queries - len(bank)
    print(f"{f.name}: {chosen}. {about.sentence}")
    with _bank(workdir / black_box.ANSWERS, f, str(chosen), chosen.grid, left) as bank:
        budget = "" if left is None else f"; {bank.left:,} of {queries:,} are left"
        print(
            f"{f.name}: training takes up to {training:,} queries, of which {len(bank):,} are "
            f"answered in {bank.path}{budget}"
        )
        with plain_errors():
            yield dataclasses.replace(black_box.of(f, chosen, looks), f=bank, probe=about)


def countdown(bank: Bank) -> str:
    """The state of a bank, for a line of the log."""
    return f"{len(bank):,} answers" + ("" if bank.left is None else f", {bank.left:,} queries left")


def _grid(config: ml_collections.ConfigDict, f: HostPredictor) -> tuple[int, int]:
    grid = config.removal.grid
    return (grid, grid) if grid else black_box.of(f).removal.grid


def _bank(
    path: pathlib.Path, f: HostPredictor, what: str, grid: tuple[int, ...], queries: int | None
) -> Bank:
    # A crash of the process loses nothing; waiting for the disk would cost more than most queries.
    return Bank(path, f, removal=what, grid=grid, queries=queries, sync=False)


def _remembering(f: HostPredictor, bank: Bank) -> HostPredictor:
    """f, whose answers to whatever pictures are kept by what they show."""

    def call(pixels: np.ndarray) -> np.ndarray:
        whole = np.ones((len(pixels), 1), bool)
        return bank.ask(identify(pixels), whole, lambda rows: pixels[rows])

    return host.host(
        call, labels=f.labels, input=f.input, output=f.output, tolerance=f.tolerance, name=f.name
    )


def _choose(f: HostPredictor, found: list[Removal], pictures: np.ndarray) -> tuple[Removal, Probe]:
    """A removal that f can stand, with what survives it; said, and warned about where it does not.

    The others are probed with half of the cells removed.
    """

    def probe(one: Removal, shares: tuple[float, ...]) -> Probe:
        with plain_errors():
            return removal.probe(*image_model(f, one, pictures), shares=shares)

    chosen = found[0]
    if len(found) > 1:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it is the chosen one that matters
            probes = {one: probe(one, (0.5,)) for one in found}
        chosen = removal.choose(probes)
        print(_table(probes, f.name, len(pictures)))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        about = probe(chosen, _SHARES)
    for warning in said:
        print(f"WARNING: {warning.message}", file=sys.stderr)
    return chosen, about


def _table(probes: dict[Removal, Probe], name: str, count: int) -> str:
    """Kinds of removal by rows, edges by columns: what survives."""
    edges = sorted({one.softness for one in probes})
    kinds = list(dict.fromkeys(one.kind for one in probes))
    clean = next(iter(probes.values())).clean
    lines = [
        f"{name} says {clean:.3f} of {count} whole pictures; of that survives, with half of the "
        "{}×{} cells removed:".format(*next(iter(probes)).grid),
        "  edges   "
        + "".join(f"{f'{edge:.2g} cell' if edge else 'hard':>11}" for edge in edges)
        + f"{'nothing left':>15}",
    ]
    for kind in kinds:
        of = {one.softness: probe for one, probe in probes.items() if one.kind == kind}
        shares = "".join(f"{of[edge].at_half:11.0%}" for edge in edges)
        blank = max(probe.blank for probe in of.values()) / clean if clean else 0.0
        lines.append(f"  {kind:8}{shares}{blank:15.0%}")
    return "\n".join(lines)
