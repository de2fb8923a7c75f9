"""Learning from one batch while a black box on the host is asked about the next.

A batch's masks are drawn by the policy as it was one batch before. The regression does not ask who
drew them; so f answers while the device learns. That policy is part of the state: a run that goes
on draws what it would have drawn.
"""

import concurrent.futures
import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax

from fex_jax import algorithm, predictors
from fex_jax.host.black_box import BlackBox
from fex_jax.training import step as steps
from fex_jax.training.loop import Step
from fex_jax.updates import TrainState


class Asked(NamedTuple):
    """A batch with masks, and what f says of them."""

    inputs: Any  # of the model
    reading: Any  # what a frozen backbone says of them; None: it is not frozen
    drawn: algorithm.Drawn
    answers: np.ndarray  # [S, B, K]


def suits(config: ml_collections.ConfigDict, predictor: Any) -> bool:
    """Whether a run overlaps: f is on the host, and what is learned does not ask who drew masks.

    Of tables that have a surrogate it answers in the place of f, on the device.
    """
    regression = getattr(config.objective, "surrogate", "") == "regression"
    alone = jax.process_count() == 1
    asks = not (predictor.inside or getattr(predictor.removal, "conditional", False))
    return config.predictor.overlap and asks and regression and alone


@contextlib.contextmanager
def stepping(
    config: ml_collections.ConfigDict,
    box: BlackBox,
    network: Callable,
    optimizer: optax.GradientTransformation,
    key: jax.Array,
    total: int,
    out_shardings: Any = None,
) -> Iterator[Step]:
    """step(state, (batch, the next batch)) → (state, metrics), for `total` steps.

    It is the step of `training.step.make_step` but for the parameters that masks are drawn with,
    `state.previous`. A HostError of f comes out of the step that needs the answers.
    """
    objective = steps.make_objective(config, predictors.output(box))
    read, output = steps.make_policy(config, network)
    over = threading.Event()

    @jax.jit
    def whole(batch: Any, key: jax.Array) -> tuple[Any, Any]:
        model, inputs = box.bind({}, batch)
        inputs = model.drawn(inputs, jax.random.fold_in(key, 0))
        return inputs, box.show(inputs)

    @jax.jit
    def draw(params: dict, batch: Any, inputs: Any, answers: jax.Array, key: jax.Array):
        model, _ = box.bind({}, batch)
        pair = inputs, read(params, model, inputs)
        drawn = algorithm.draw(
            lambda *args: output(model)(params, *args), pair, answers, key, objective, model.grid
        )
        return pair[1], drawn, algorithm.questions(drawn, objective)

    @jax.jit
    def masked(batch: Any, inputs: Any, masks: jax.Array):
        return box.show(box.bind({}, batch)[0].mask(inputs, masks))

    @jax.enable_x64(False)  # of this thread
    def ask(params: dict, batch: Any, number: int) -> Asked:
        def say(shown: Any) -> np.ndarray:
            if over.is_set():
                raise concurrent.futures.CancelledError
            return box.answer(*map(np.asarray, shown))

        of_key = jax.random.fold_in(key, number)
        inputs, shown = whole(batch, of_key)
        reading, drawn, asked = draw(params, batch, inputs, say(shown), of_key)
        if config.predictor.bank:  # the questions of an earlier run, and the masks behind them
            asked = box.f.masks([i.tobytes() for i in np.asarray(inputs.ids)], len(asked))
            kept = drawn._replace(masks=jnp.asarray(asked, drawn.masks.dtype))
            drawn = kept._replace(masks=algorithm.questions(kept, objective))
        answers = np.stack([say(masked(batch, inputs, masks)) for masks in asked])
        return Asked(inputs, reading, drawn, answers)

    def learn(state: TrainState, batch: Any, asked: Asked):
        model, _ = box.bind({}, batch)
        of_targets = jnp.take_along_axis(asked.answers, asked.drawn.targets[None], -1)
        pair = asked.inputs, asked.reading
        rollout, metrics = algorithm.judge(asked.drawn, pair, of_targets, objective)
        found, losses = algorithm.learn(state, rollout, output(model), optimizer, objective)
        return found._replace(previous=state.params), metrics | losses

    learn = jax.jit(learn, out_shardings=out_shardings)
    waiting = None

    def step(state: TrainState, batches: tuple[Any, Any]) -> tuple[TrainState, dict]:
        nonlocal waiting
        (batch, following), number = batches, int(state.step)
        asked = waiting.result() if waiting else ask(state.previous, batch, number)
        waiting = None
        if number + 1 < total:
            waiting = pool.submit(ask, state.params, following, number + 1)
        return learn(state, batch, asked)

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        try:
            yield step
        finally:
            over.set()
