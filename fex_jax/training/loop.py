"""The one training loop: batches, checkpoints, signals, progress, and what is reported."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from tqdm import tqdm

from fex_jax import checkpoint
from fex_jax.training import run
from fex_jax.updates import TrainState

Step = Callable[[TrainState, Any], tuple[TrainState, dict[str, jax.Array]]]


def train(
    step: Step,
    state: TrainState,
    batches: Callable[[int], Iterator[Any]],
    num_steps: int,
    manager: ocp.CheckpointManager,
    report: Callable[[dict[str, float], dict], str | None],
    revise: Callable[[TrainState], tuple[TrainState, dict[str, float]]] | None = None,
    *,
    batch_size: int,
    log_every: int,
    checkpoint_every: int,
    revise_every: int = 1,
) -> TrainState:
    """Takes the steps that `state` still lacks of `num_steps`, and closes the manager.

    SIGTERM and Ctrl-C are answered by a checkpoint of the step that is under way.

    Args:
      step: (state, batch) → the next state and metrics with "loss", compiled; may donate the state.
      batches: batches from that number on.
      report: (metrics, parameters) of every `log_every`-th and of the last step → words to print.
      revise: a state → the one that takes its place, and more metrics; every `revise_every` steps
        and at the last.
      batch_size: inputs in a batch of all processes, for the rate that is reported.

    Raises:
      FloatingPointError: the loss or a parameter is not finite; such a state is never saved.
      OSError: a checkpoint cannot be written.
      KeyboardInterrupt, SystemExit: a signal came; the state is saved.
    """
    start = int(state.step)
    since, since_step, metrics = time.monotonic(), start, {}
    stream = batches(start)
    try:
        with run.catch_signals() as stopped:
            steps = range(start + 1, num_steps + 1)
            shown = {"unit": "batch", "smoothing": 0.05, "disable": jax.process_index() > 0}
            progress = tqdm(steps, initial=start, total=num_steps, **shown)
            for done in progress:
                before = metrics
                state, metrics = step(state, next(stream))
                run.agree(stopped, done)
                jax.block_until_ready(before)  # one step ahead at most, or the bar would run away
                last = done == num_steps
                revised = revise and (last or done % revise_every == 0)
                if revised:
                    state, more = revise(state)
                    metrics |= more
                if last or revised or done % log_every == 0:
                    metrics = {name: float(value) for name, value in metrics.items()}
                    if not np.isfinite(metrics["loss"]):
                        raise FloatingPointError(f"the loss is {metrics['loss']} at step {done}")
                    now = time.monotonic()
                    rate = (done - since_step) * batch_size / (now - since)
                    since, since_step = now, done
                    progress.set_postfix(loss=f"{metrics['loss']:.3f}", refresh=False)
                    words = report(
                        {"step": done} | metrics | {"images_per_second": rate}, state.params
                    )
                    if words and jax.process_index() == 0:
                        progress.write(words)
                if last or stopped or done % checkpoint_every == 0:
                    checkpoint.save(manager, state)
                if stopped:
                    break
    except FloatingPointError as error:
        manager.wait_until_finished()
        raise FloatingPointError(
            f"{error}; the last good checkpoint is of step {manager.latest_step()}. Lower the "
            "learning rate: the run continues from there"
        ) from None
    finally:
        checkpoint.close(manager)
    run.exit_if_stopped(stopped, int(state.step))
    return state
