"""A job of one process: items in, parts out, each item exactly once however often it is killed."""

import contextlib
import dataclasses
import hashlib
import itertools
import os
import pathlib
import queue
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import pyarrow as pa
from tqdm import tqdm

from fex_jax import checks, explain, locks
from fex_jax.batch import parts
from fex_jax.batch.items import Input, Item, open_input
from fex_jax.batch.rows import Rows
from fex_jax.data.ahead import ahead
from fex_jax.targets import Target
from fex_jax.training import run
from fex_jax.training.identity import digest

# Of what starts several processes: its names for the number of a process and how many there are.
_LAUNCHERS = (
    ("SLURM_PROCID", "SLURM_NTASKS"),
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("PMI_RANK", "PMI_SIZE"),
    ("RANK", "WORLD_SIZE"),
)
_MANY = 64  # files for each process, from which on they are shared out whole


class Summary(NamedTuple):
    """What a process did."""

    items: int  # of it, that are in the folder now
    before: int  # of them, that were there when it began
    errors: int  # of the others, that could not be explained
    first: str  # of these the first, and why; or ""
    stopped: bool  # by a signal, and not at the end


def explain_files(
    explainer: "explain.Explainer | str | os.PathLike",
    input: str | os.PathLike,
    output: str | os.PathLike,
    *,
    targets: Target | Sequence[Target] | None = None,
    top_k: int | None = None,
    refine: int = 0,
    column: str | None = None,
    key: str | None = None,
    limit: int | None = None,
    batch_size: int | None = None,
    shard: str = "0/1",
    overlays: str | os.PathLike | None = None,
    part_seconds: float = 30.0,
    progress: bool = True,
) -> Summary:
    """Explains pictures or texts to Parquet files, each exactly once; the same call goes on.

    An item that cannot be read becomes a row with an error. All devices of this process explain;
    files are decoded by as many threads as there are cores meanwhile.

    Args:
      explainer: of images or texts, or the path that `explain.load` takes.
      input: a folder, a file or a pattern; .csv, .tsv, .jsonl, .ndjson, .parquet, .tar,
        .tar.gz and .tfrecord files hold several items; see `items.open_input`.
      output: a folder, on a disk that all processes share.
      targets, top_k, refine, batch_size, overlays: see `rows.Rows`, which also names the columns.
      column, key: of tables, what holds the items and their ids; see `items.open_input`.
      limit: items of this process, with those that are done; None: all.
      shard: "i/n" of n processes that share the work; "auto": what Slurm, MPI or torchrun say of
        this process, or JAX where it is one of several.
      part_seconds: how often rows are written: what a kill loses at most.
      progress: show a bar, if it takes more than three seconds.

    Raises:
      ValueError: what cannot be used; another job's output, or one that is at work.
      HostError: a black box failed; what it has explained is kept.
      OSError: the disk is full; what was written is kept.
    """
    checks.require(
        {"limit": limit, "part_seconds": part_seconds},
        {
            "limit": checks.either(checks.integer(1, 2**62), checks.nothing()),
            "part_seconds": checks.number(0, 1e6),
        },
        "explain_files",
    )
    if not isinstance(explainer, explain.Explainer):
        explainer = explain.load(explainer)
    rows = Rows(explainer, targets, top_k, refine, batch_size, overlays)
    found = open_input(input, explainer.predictor.modality, column, key)
    index, count = shard_of(shard)
    for name, place in (("output", output), ("overlays", overlays)):
        _check_apart(name, place, found, os.fspath(input))
    settings = {
        "explainer": digest_of(explainer),
        "input": os.fspath(input),
        "targets": None if targets is None else rows.classes.tolist(),
        "top_k": top_k,
        "refine": refine,
        "column": column,
        "key": key,
        "overlays": None if overlays is None else os.fspath(overlays),
        "processes": count,
    }
    whole = key is None and len(found.names) >= _MANY * count
    folder, settings = parts.open_folder(
        output, settings, {"shares": "files" if whole else "items"}
    )
    busy = f"is at work on {index}/{count} of {folder}: wait for it, end it, or choose another"
    with locks.hold(folder / f"_lock-{index}", busy), run.catch_signals() as stopped:
        mine = _share(found, index, count, settings["shares"] == "files")
        writer = parts.Writer(folder, f"part-{index:05}-of-{count:05}-", part_seconds)
        return _work(rows, itertools.islice(mine, limit), writer, stopped, progress)


def _share(found: Input, index: int, count: int, whole: bool) -> Iterator[Item]:
    """The items of process `index`: which is told by names alone, so that more may come later."""

    def is_mine(name: str) -> bool:
        drawn = hashlib.blake2b(name.encode("utf-8", "surrogateescape"), digest_size=8).digest()
        return int.from_bytes(drawn) % count == index

    if whole or found.loose:
        return found.items(is_mine)
    return (item for item in found.items() if is_mine(item.id))


def _work(
    rows: Rows, items: Iterator[Item], writer: parts.Writer, stopped: list[int], progress: bool
) -> Summary:
    done = set(parts.ids(writer.folder, writer.prefix))
    before, new, errors, first = len(done), 0, 0, ""
    bar = tqdm(unit="item", delay=3, disable=not progress)

    def undone() -> Iterator[Item]:
        skipped = 0
        for item in items:
            if item.id not in done:
                yield item
                continue
            done.discard(item.id)
            skipped += 1
            bar.n += 1
            bar.initial = skipped  # they say nothing of the speed

    def chunks() -> Iterator[list[tuple[Item, Any]]]:
        read = ahead(lambda item: (item, rows.read(item.thing)), undone(), 2 * rows.at_once)
        while chunk := list(itertools.islice(read, rows.at_once)):
            yield chunk

    explain_chunk, devices = _on_all_devices(rows)
    # A black box may fail, and what it answered about the chunks behind would be lost.
    most = devices if rows.explainer.predictor.inside else devices - 1
    try:
        for table, chunk in ahead(explain_chunk, chunks(), most, devices):
            writer.add(table)
            new += len(chunk)
            for item, thing in chunk:
                if isinstance(thing, ValueError):
                    errors += 1
                    first = first or f"{item.id}: {thing}"
            bar.total = round((bar.n + len(chunk)) / max(chunk[-1][0].share, 1e-9))
            bar.update(len(chunk))
            if stopped:
                break
    finally:
        writer.flush()
        bar.close()
    return Summary(before + new, before, errors, first, bool(stopped))


def _on_all_devices(rows: Rows) -> tuple[Callable[[list], tuple[pa.Table, list]], int]:
    """What explains a chunk on a free device, for several threads; and how many there are."""
    devices = jax.local_devices()
    free: queue.SimpleQueue[tuple[contextlib.AbstractContextManager, Rows]] = queue.SimpleQueue()
    if len(devices) == 1:  # for which the caller has perhaps compiled already
        free.put((contextlib.nullcontext(), rows))
    else:  # each has its own copy of the weights
        for device in devices:
            own = dataclasses.replace(rows, explainer=dataclasses.replace(rows.explainer))
            free.put((jax.default_device(device), own))

    def explain_chunk(chunk: list[tuple[Item, Any]]) -> tuple[pa.Table, list]:
        within, own = free.get()
        try:
            with within:
                return own.explain([item.id for item, _ in chunk], [x for _, x in chunk]), chunk
        finally:
            free.put((within, own))

    return explain_chunk, len(devices)


def shard_of(text: str) -> tuple[int, int]:
    """(index, count) of "i/n", or of "auto" what is known of this process.

    Raises:
      ValueError: it is neither, or nothing is known.
    """
    if text == "auto":
        if jax.distributed.is_initialized():
            return jax.process_index(), jax.process_count()
        for names in _LAUNCHERS:
            if all(os.environ.get(name, "").isdecimal() for name in names):
                text = "/".join(os.environ[name] for name in names)
                break
    found = re.fullmatch(r"(\d+)/(\d+)", text)
    if not found or not int(found[1]) < int(found[2]):
        raise ValueError(
            f"shard is {text!r}; expected this process and how many there are, 0/8 to 7/8, or "
            "auto under Slurm, MPI or torchrun"
        )
    return int(found[1]), int(found[2])


def digest_of(explainer: "explain.Explainer") -> str:
    """Of all that explanations depend on."""
    fields = {f.name: getattr(explainer, f.name) for f in dataclasses.fields(explainer)}
    predictor, params = fields.pop("predictor"), fields.pop("params")
    asked = not predictor.absence  # or the explainer's own p serves for f(x)
    return digest(params, *predictor.identity, asked, repr(fields))


def _check_apart(name: str, place: str | os.PathLike | None, found: Input, given: str) -> None:
    """Refuses to write into what is read at every start."""
    if place is None or not (os.path.isdir(given) or "**" in given):
        return
    root, inside = (pathlib.Path(p).expanduser().resolve() for p in (found.root or ".", place))
    if inside.is_relative_to(root):
        raise ValueError(
            f"{name} is {place}, inside {root}, which is read: choose a folder outside it"
        )
