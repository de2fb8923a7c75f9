"""Every Orbax call: the state of a training run, written, verified and read back.

A checkpoint holds a checksum of each array beside it. What is read is compared with them, so that
a damaged checkpoint is named and the one before it is used.
"""

import functools
import os
import pathlib
import shutil
import sys
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils


def open_manager(directory: str | pathlib.Path, keep: int) -> ocp.CheckpointManager:
    """Checkpoints of one run: written asynchronously and atomically, the newest `keep` kept."""
    options = ocp.CheckpointManagerOptions(
        max_to_keep=keep, cleanup_tmp_directories=True, enable_async_checkpointing=True
    )
    return ocp.CheckpointManager(pathlib.Path(directory).absolute(), options=options)


def save(manager: ocp.CheckpointManager, state: Any) -> None:
    """Starts writing a `updates.TrainState`; its arrays may be donated once this returns.

    Raises:
      FloatingPointError: an array is not finite; nothing is written.
      OSError: this checkpoint or the one before it could not be written, as on a full disk.
    """
    step = int(state.step)
    if manager.latest_step() == step:
        return
    items = _items(state)
    needed = sum(x.nbytes for x in jax.tree.leaves(items))
    free = shutil.disk_usage(manager.directory).free
    if needed > free:  # Orbax's threads would print a thousand lines first
        found = OSError(f"it has {needed / 2**20:,.0f} MiB, and {free / 2**20:,.0f} MiB are free")
        raise _unwritten(manager, found)
    finite, sums = _inspect(items)
    if not finite:
        raise FloatingPointError(f"the parameters are not finite at step {step}")
    # On CPU device memory is host memory: a copy keeps the writer apart from the next step.
    args = {
        name: ocp.args.StandardSave(jax.tree.map(lambda x: x.copy(), item))
        for name, item in items.items()
    }
    checksums = ocp.args.JsonSave(sums | {"step": step})
    try:
        manager.save(step, args=ocp.args.Composite(checksums=checksums, **args))
    except (OSError, ValueError) as error:
        raise _unwritten(manager, error) from error


def close(manager: ocp.CheckpointManager) -> None:
    """Waits until the last checkpoint is on disk.

    Raises:
      OSError: it could not be written.
    """
    try:
        manager.wait_until_finished()
    except (OSError, ValueError) as error:
        raise _unwritten(manager, error) from error
    finally:
        manager.close()


def restore(manager: ocp.CheckpointManager, state: Any) -> Any | None:
    """The newest checkpoint that is whole, or None if there is none at all.

    Damaged newer ones are named and moved to `<directory>.damaged`.

    Args:
      state: a `updates.TrainState` of jax.ShapeDtypeStruct with the shardings wanted.

    Raises:
      ValueError: no checkpoint is whole, or they are of another network or optimiser.
    """
    items = _items(state)
    found = _newest_whole(manager, items)
    if found is None:
        return None
    step, restored, damaged = found
    for number, reason in damaged.items():
        place = pathlib.Path(f"{manager.directory}.damaged") / str(number)
        _say(f"checkpoint {number} is damaged ({reason}): it is moved to {place}")
        if jax.process_index() == 0:
            shutil.rmtree(place, ignore_errors=True)
            place.parent.mkdir(exist_ok=True)
            os.replace(manager.directory / str(number), place)
    if damaged:
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices("damaged checkpoints are moved")
        manager.reload()
        _say(f"continuing from checkpoint {step}")
    number = jax.device_put(jnp.asarray(step, state.step.dtype), state.step.sharding)
    return state._replace(**restored, step=number)


def restore_params(directory: str | pathlib.Path, params: Any, step: int | None = None) -> dict:
    """Parameters only, of `step` or the newest whole checkpoint; `params` is a tree of shapes.

    Raises:
      ValueError: there is none, or none that is whole and of this network.
    """
    with ocp.CheckpointManager(pathlib.Path(directory).absolute()) as manager:
        steps = None if step is None else [step]
        found = _newest_whole(manager, {"params": params}, steps)
    if found is None:
        raise ValueError(f"{directory} holds no finished checkpoint")
    number, restored, damaged = found
    for other, reason in damaged.items():
        _say(f"checkpoint {other} is damaged ({reason}): {number} is used")
    return restored["params"]


def _items(state: Any) -> dict[str, Any]:
    """What is written of a state, by name."""
    items = {"params": state.params, "opt_state": state.opt_state, "previous": state.previous}
    return {name: item for name, item in items.items() if item is not None}


def _newest_whole(
    manager: ocp.CheckpointManager, items: dict[str, Any], steps: list[int] | None = None
) -> tuple[int, dict[str, Any], dict[int, str]] | None:
    """(step, its items, reasons why newer steps are damaged), or None where there are no steps."""
    steps = sorted(manager.all_steps() if steps is None else steps, reverse=True)
    damaged: dict[int, str] = {}
    _ignore_orphans()  # which are reported while the file is read already
    for step in steps:
        try:
            return step, _read(manager, step, items), damaged
        except Exception as error:  # what Orbax raises at a damaged file is of many kinds
            damaged[step] = str(error).strip().split("\n")[0][:100] or type(error).__name__
    if not steps:
        return None
    raise ValueError(
        f"no checkpoint in {manager.directory} can be read ({damaged[steps[0]]} …). If the config "
        "does not fit them, continue with the one they were made with; if they are damaged, delete "
        "them to begin anew, or choose another --workdir"
    )


def _read(manager: ocp.CheckpointManager, step: int, items: dict[str, Any]) -> dict[str, Any]:
    args = {name: ocp.args.StandardRestore(item) for name, item in items.items()}
    read = manager.restore(step, args=ocp.args.Composite(checksums=ocp.args.JsonRestore(), **args))
    restored = {name: read[name] for name in items}
    finite, sums = _inspect(restored)
    expected = read["checksums"]
    if any(sums[name] != expected.get(name) for name in items):
        raise ValueError("its arrays have other checksums than when they were written")
    if expected.get("step") != step:
        raise ValueError(f"it was written as step {expected.get('step')}")
    if not finite:
        raise ValueError("its arrays are not finite")
    return restored


@functools.cache  # once a process
def _ignore_orphans() -> None:
    """Readers that Orbax leaves behind at a damaged file would report it again, at any time."""
    before = sys.unraisablehook

    def hook(unraisable: Any) -> None:
        code = getattr(unraisable.object, "cr_code", None)
        is_reader = code is not None and "orbax" in code.co_filename
        if not is_reader and str(unraisable.exc_value) != "Event loop is closed":
            before(unraisable)

    sys.unraisablehook = hook


def _inspect(items: dict[str, Any]) -> tuple[bool, dict[str, list[int]]]:
    """Whether all arrays are finite, and a checksum of each, computed where the arrays live."""
    # One after the other: several processes must run programs that they share in the same order.
    found = {
        name: [jax.device_get(_checksum(x)) for x in jax.tree.leaves(item)]
        for name, item in items.items()
    }
    finite = all(bool(ok) for pairs in found.values() for ok, _ in pairs)
    return finite, {name: [int(total) for _, total in pairs] for name, pairs in found.items()}


@jax.jit  # compiled once for all arrays of one shape: a state has hundreds, of a few shapes
def _checksum(array: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Whether all is finite, and a sum of mixed words, uint32: whole numbers, so the same on all
    devices and shardings.

    Each element is mixed with its place by murmur3's finaliser before the sum; so every flipped bit
    changes it, and other damage goes unseen once in 2³².
    """
    bits = jnp.uint32 if array.dtype.itemsize == 4 else f"uint{8 * array.dtype.itemsize}"
    words = jax.lax.bitcast_convert_type(array, bits).astype(jnp.uint32)
    place = jnp.zeros(array.shape, jnp.uint32)
    for axis, size in enumerate(array.shape):
        place = place * size + jax.lax.broadcasted_iota(jnp.uint32, array.shape, axis)
    words = words ^ (place * jnp.uint32(0x9E3779B9))
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        words = (words ^ (words >> shift)) * jnp.uint32(factor)
    return jnp.isfinite(array).all(), (words ^ (words >> 16)).sum(dtype=jnp.uint32)


def _unwritten(manager: ocp.CheckpointManager, error: Exception) -> OSError:
    reason = next((line for line in str(error).split("\n") if line.strip()), repr(error))
    return OSError(
        f"a checkpoint could not be written to {manager.directory}: {reason[:300]}\nEarlier ones "
        "are kept: make room there if the disk is full; the same command continues"
    )


def _say(words: str) -> None:
    print(f"WARNING: {words}", file=sys.stderr)
