"""Fitting a classifier by gradient steps: the loop of the scripts that train predictors."""

import json
import pathlib
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import optax
from tqdm import tqdm

from fex_jax import checkpoint
from fex_jax.updates import TrainState


def fit(
    output: pathlib.Path,
    params: dict,
    optimizer: optax.GradientTransformation,
    loss: Callable[[dict, Any, jax.Array, jax.Array], jax.Array],
    batches: Callable[[int], Iterator[Any]],
    num_steps: int,
    *,
    seed: int,
    settings: dict,
    checkpoint_every: int,
    report_every: int,
    accuracy: Callable[[dict, float], float],
    save: Callable[[dict], None],
) -> None:
    """Takes `num_steps` gradient steps, from the last checkpoint or from `params` on.

    Checkpoints are under `<output>/checkpoints` until the end, the last of a stopped run from when
    SIGTERM or Ctrl-C came.

    Args:
      loss: (params, batch, key of the step, share of the steps that are done) → scalar.
      batches: batches from that number on.
      settings: what a run must share with the one it continues.
      accuracy: (params, share of the features that is removed) → held-out accuracy.
      save: writes the classifier, as `accuracy` is reported: every `report_every` steps and at
        the end.

    Raises:
      ValueError: checkpoints of other settings.
    """
    directory = output / "checkpoints"
    described = directory / "settings.json"
    wanted = json.dumps(settings, indent=2, default=lambda config: config.to_dict()) + "\n"
    if described.is_file() and described.read_text() != wanted:
        raise ValueError(
            f"{output} has a training with other settings under way (see {described}): continue "
            f"with those, choose another --output, or delete {directory}"
        )
    manager = checkpoint.open_manager(directory, keep=1)
    described.write_text(wanted)
    state = TrainState(params, optimizer.init(params), jnp.zeros((), jnp.int32))
    shapes = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
    )
    state = checkpoint.restore(manager, shapes) or state

    @jax.jit
    def step(state: TrainState, batch: Any) -> tuple[TrainState, jax.Array]:
        key = jax.random.fold_in(jax.random.key(seed), state.step)
        value, gradients = jax.value_and_grad(loss)(
            state.params, batch, key, state.step / num_steps
        )
        changes, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        return TrainState(
            optax.apply_updates(state.params, changes), opt_state, state.step + 1
        ), value

    stopped = checkpoint.catch_signals()
    start, value = int(state.step), None
    stream = batches(start)
    with tqdm(range(start, num_steps), initial=start, total=num_steps, unit="batch") as progress:
        for done in (i + 1 for i in progress):
            before = value
            state, value = step(state, next(stream))
            jax.block_until_ready(before)  # one step ahead at most, or the bar would run away
            if done % 50 == 0:
                progress.set_postfix(loss=f"{value:.3f}")
            if done % report_every == 0 or done == num_steps:
                save(state.params)
                whole, half = (accuracy(state.params, removed) for removed in (0.0, 0.5))
                progress.write(
                    f"accuracy {whole:.3f}, with half of the features removed {half:.3f}; "
                    f"saved to {output}"
                )
            if done % checkpoint_every == 0 or stopped:
                checkpoint.save(manager, state)
            if stopped:
                break
    manager.close()  # waits until the last checkpoint is on disk
    checkpoint.exit_if_stopped(stopped, int(state.step))
    shutil.rmtree(directory)
