"""Every Orbax call: saving and restoring the state of a training run; and what stops one."""

import pathlib
import signal
import sys
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp


def open_manager(directory: str | pathlib.Path, keep: int) -> ocp.CheckpointManager:
    """Checkpoints of one run: written asynchronously and atomically, the newest `keep` kept."""
    options = ocp.CheckpointManagerOptions(
        max_to_keep=keep, cleanup_tmp_directories=True, enable_async_checkpointing=True
    )
    return ocp.CheckpointManager(pathlib.Path(directory).absolute(), options=options)


def save(manager: ocp.CheckpointManager, state: Any) -> None:
    """Starts writing a `updates.TrainState`; its arrays may be donated once this returns."""
    step = int(state.step)
    if manager.latest_step() == step:
        return
    # On CPU device memory is host memory: a copy keeps the writer apart from the next step.
    params, opt_state = jax.tree.map(lambda x: x.copy(), (state.params, state.opt_state))
    manager.save(
        step,
        args=ocp.args.Composite(
            params=ocp.args.StandardSave(params), opt_state=ocp.args.StandardSave(opt_state)
        ),
    )


def restore(manager: ocp.CheckpointManager, state: Any) -> Any | None:
    """The newest checkpoint, or None if there is none.

    Args:
      state: a `updates.TrainState` of jax.ShapeDtypeStruct with the shardings wanted.

    Raises:
      ValueError: the checkpoint is of another network or optimiser.
    """
    step = manager.latest_step()
    if step is None:
        return None
    args = ocp.args.Composite(
        params=ocp.args.StandardRestore(state.params),
        opt_state=ocp.args.StandardRestore(state.opt_state),
    )
    try:
        restored = manager.restore(step, args=args)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"the checkpoint in {manager.directory} does not fit this config: {error}\n"
            "Continue with the config it was made with, or choose another --workdir."
        ) from error
    number = jax.device_put(jnp.asarray(step, state.step.dtype), state.step.sharding)
    return state._replace(params=restored.params, opt_state=restored.opt_state, step=number)


def restore_params(directory: str | pathlib.Path, params: Any, step: int | None = None) -> dict:
    """Parameters only, of `step` or the newest checkpoint; `params` is a tree of shapes."""
    with ocp.CheckpointManager(pathlib.Path(directory).absolute()) as manager:
        step = manager.latest_step() if step is None else step
        if step is None:
            raise ValueError(f"{directory} holds no finished checkpoint")
        args = ocp.args.Composite(params=ocp.args.StandardRestore(params))
        return manager.restore(step, args=args).params


def catch_signals() -> list[int]:
    """Filled with every SIGTERM and Ctrl-C from now on: they ask for one last checkpoint."""
    stopped: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: stopped.append(number))
    return stopped


def exit_if_stopped(stopped: list[int], step: int) -> None:
    """Ends the process as its signal would have, if one came; the last checkpoint is on disk."""
    if stopped:
        name = signal.Signals(stopped[0]).name
        print(f"stopped by {name} at step {step}; the same command continues")
        sys.exit(128 + stopped[0])
