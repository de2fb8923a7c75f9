"""The folder of a run: one process at a time, and never two experiments in one."""

import contextlib
import json
import os
import pathlib
import re
import signal
import sys
import threading
from collections.abc import Iterator

import jax
from flax import traverse_util
from jax.experimental import multihost_utils

from fex_jax import checks, locks


@contextlib.contextmanager
def lock(folder: pathlib.Path) -> Iterator[None]:
    """Holds `<folder>/lock`, which the kernel releases when the process ends, however it ends.

    Raises:
      ValueError: another process holds it, or checkpoints in it could not be read back.
      OSError: the disk is full.
    """
    if odd := re.search(r"\[.+\]|\\", str(folder.absolute())):  # Orbax takes it for a pattern
        raise ValueError(
            f"{folder} has {odd[0]!r} in its path, where checkpoints can be written, but not read "
            "back: choose another folder, without brackets and backslashes"
        )
    folder.mkdir(parents=True, exist_ok=True)
    if jax.process_index() > 0:  # processes of one run share its folder
        yield
        return
    busy = f"is training in {folder}: wait for it, end it, or choose another --workdir"
    with locks.hold(folder / "lock", busy):
        yield


@contextlib.contextmanager
def catch_signals() -> Iterator[list[int]]:
    """A list that is filled with every SIGTERM and Ctrl-C: they ask for one last checkpoint.

    Other threads than the main one cannot catch signals. Of several processes JAX catches them,
    see `agree`.
    """
    stopped: list[int] = []
    alone = jax.process_count() == 1
    if not alone or threading.current_thread() is not threading.main_thread():
        yield stopped
        return
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = [signal.signal(n, lambda number, _: stopped.append(number)) for n in numbers]
    try:
        yield stopped
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def agree(stopped: list[int], step: int) -> None:
    """Of several processes: fills the list in each after the same step, if one got SIGTERM."""
    if jax.process_count() > 1 and multihost_utils.reached_preemption_sync_point(step):
        stopped.append(signal.SIGTERM)


def say(words: str) -> None:
    """Prints in the first of several processes."""
    if jax.process_index() == 0:
        print(words)


def exit_if_stopped(stopped: list[int], step: int) -> None:
    """Ends as the signal would have, if one came; the last checkpoint is on disk."""
    if stopped:
        name = signal.Signals(stopped[0]).name
        say(f"stopped by {name} at step {step}; the same command continues")
        if stopped[0] == signal.SIGINT:
            raise KeyboardInterrupt
        sys.exit(128 + stopped[0])


def check_same(
    path: pathlib.Path, settings: dict, free: tuple[str, ...] = (), may_change: str | None = None
) -> None:
    """Refuses to continue a run under settings that would make it another one.

    Args:
      path: the JSON file of the run's settings.
      settings: what is wanted now.
      free: beginnings of dotted names that do not matter.
      may_change: the dotted name of a setting whose change is only said.

    Raises:
      ValueError: names the settings that differ.
    """
    try:
        old = checks.read_json(path)
    except ValueError as error:
        raise ValueError(
            f"{error}; so it is unknown what the checkpoints there are of: choose another folder, "
            "or delete them to begin anew"
        ) from None
    old, new = (
        traverse_util.flatten_dict(values, sep=".", keep_empty_nodes=True)
        for values in (old, json.loads(json.dumps(settings)))
    )
    changed = [
        name
        for name in sorted(old | new)
        if old.get(name) != new.get(name) and not name.startswith(free)
    ]
    if may_change in changed:
        changed.remove(may_change)
        if not changed:
            say(f"{may_change} is {new[may_change]} from here on; it was {old[may_change]}")
    if changed:
        raise ValueError(
            f"{path.parent} has a run with other settings of {', '.join(changed)} (see {path.name} "
            "there): continue with those, choose another folder, or move what is there away to "
            "begin anew"
        )


def write_json(path: pathlib.Path, values: dict) -> None:
    """Whole or not at all: a run that is killed meanwhile leaves the old file."""
    if jax.process_index() > 0:
        return
    part = path.with_name(f"{path.name}.part")
    part.write_text(json.dumps(values, indent=2) + "\n")
    os.replace(part, path)
