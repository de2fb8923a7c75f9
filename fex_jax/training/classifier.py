"""Fitting a classifier by gradient steps, and how often it is right."""

import math
import os
import pathlib
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from fex_jax import checkpoint
from fex_jax.training import identity, loop, run
from fex_jax.updates import Metrics, TrainState

_LOG_EVERY = 50
_FREE = ("config.data.cache",)  # settings that change no result


def class_targets(batch: dict[str, np.ndarray], num_classes: int) -> np.ndarray:
    """[B, K] probabilities: uniform over the classes a scene shows, else the label."""
    if "segmentation" not in batch:
        return np.eye(num_classes, dtype=np.float32)[batch["label"]]
    classes = 1 + np.arange(num_classes)
    shown = np.array([np.isin(classes, scene) for scene in batch["segmentation"]], np.float32)
    return shown / shown.sum(-1, keepdims=True)


def random_masks(key: jax.Array, grid: tuple[int, int], removed: jax.Array) -> jax.Array:
    """Masks [B, rows, cols] that remove each patch with the image's probability `removed` [B]."""
    return jax.random.uniform(key, (len(removed), *grid)) >= removed[:, None, None]


def accuracy(
    stream: Iterable[dict[str, np.ndarray]],
    predicted: Callable[[np.ndarray, jax.Array], jax.Array],
    grid: tuple[int, int],
    num_classes: int,
    removed: float,
) -> float:
    """Share of images whose predicted class they show, with that share of patches removed.

    Args:
      stream: batches of them.
      predicted: (pixels, masks [B, rows, cols]) → classes [B].
    """
    right: list[bool] = []
    for number, batch in enumerate(stream):
        size = len(batch["image"])
        masks = random_masks(jax.random.key(number), grid, jnp.full(size, removed))
        classes = np.asarray(predicted(batch["image"], masks))
        right.extend(class_targets(batch, num_classes)[np.arange(size), classes] > 0)
    return float(np.mean(right))


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
    batch_size: int,
    checkpoint_every: int,
    report_every: int,
    accuracy: Callable[[dict, float], float],
    save: Callable[[dict], None],
    saved: Sequence[pathlib.Path],
) -> None:
    """Takes `num_steps` gradient steps, from the last checkpoint or from `params` on.

    Checkpoints are under `<output>/checkpoints` until the end, the last of a stopped run from when
    SIGTERM or Ctrl-C came. From the end on `<output>/training.json` holds the settings, and the
    same call does nothing.

    Args:
      loss: (params, batch, key of the step, share of the steps that are done) → scalar.
      batches: batches from that number on.
      settings: what a run must share with the one it continues, but for its learning_rate and
        where scenes are kept; for JSON.
      accuracy: (params, share of the features that is removed) → held-out accuracy.
      save: writes the classifier, as `accuracy` is reported: every `report_every` steps and at
        the end.
      saved: what `save` writes; a run that begins overwrites none of it.

    Raises:
      ValueError: a run of other settings, or of which only the result is left; or one under way in
        another process.
    """
    directory, finished = output / "checkpoints", output / "training.json"
    with run.lock(output):
        described = directory / "settings.json"
        settings = settings | {"backbone": identity.digest(params)}
        there = [path for path in saved if path.exists()]
        if there and finished.is_file():
            run.check_same(finished, settings, _FREE)
            run.say(f"{output} is finished: nothing is left to do")
            return
        if described.is_file():
            run.check_same(described, settings, _FREE, "learning_rate")
        elif there:
            raise ValueError(
                f"{there[0]} is there, but the checkpoints of its training are gone: training "
                f"would begin anew and overwrite it. Choose another folder than {output}, or move "
                "it away"
            )
        directory.mkdir(exist_ok=True)
        run.write_json(described, settings)
        manager = checkpoint.open_manager(directory, keep=2)
        state = TrainState(params, optimizer.init(params), jnp.zeros((), jnp.int32))
        shapes = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
        )
        state = checkpoint.restore(manager, shapes) or state

        @jax.jit
        def step(state: TrainState, batch: Any) -> tuple[TrainState, Metrics]:
            key = jax.random.fold_in(jax.random.key(seed), state.step)
            value, gradients = jax.value_and_grad(loss)(
                state.params, batch, key, state.step / num_steps
            )
            changes, opt_state = optimizer.update(gradients, state.opt_state, state.params)
            params = optax.apply_updates(state.params, changes)
            return TrainState(params, opt_state, state.step + 1), {"loss": value}

        def report(metrics: dict[str, float], params: dict) -> str | None:
            if metrics["step"] % report_every and metrics["step"] != num_steps:
                return None
            save(params)
            whole, half = (accuracy(params, removed) for removed in (0.0, 0.5))
            return (
                f"accuracy {whole:.3f}, with half of the features removed {half:.3f}; "
                f"saved to {output}"
            )

        loop.train(
            step, state, batches, num_steps, manager, report,
            batch_size=batch_size, log_every=math.gcd(report_every, _LOG_EVERY),
            checkpoint_every=checkpoint_every,
        )  # fmt: skip
        os.replace(described, finished)
        shutil.rmtree(directory)
