"""Learning from one batch while a black box on the host is asked about the next.

A batch's masks are drawn by the policy as it was one batch before. The regression does not ask who
drew them; so f answers while the device learns. That policy is part of the state: a run that goes
on draws what it would have drawn. FastSHAP's coalitions are drawn by no policy at all.
"""

import concurrent.futures
import contextlib
import functools
import threading
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax

from fex_jax import algorithm, contrast, fastshap, objectives, predictors
from fex_jax.host.black_box import BlackBox
from fex_jax.training import step as steps
from fex_jax.training.loop import Step
from fex_jax.updates import TrainState


class Asked(NamedTuple):
    """A batch with masks, and what f says of them."""

    inputs: Any  # of the model
    reading: Any  # what a frozen backbone says of them; None: it is not frozen
    drawn: Any  # the objective's
    answers: np.ndarray  # [S, B, K]


class Parts(NamedTuple):
    """An objective's step, in two. They are traced; `model` is of the batch."""

    # (parameters, model, inputs, f(x), key) → what a frozen backbone reads, what is drawn, and the
    # masks that f is asked about
    draw: Callable[..., tuple[Any, Any, jax.Array]]
    again: Callable[[Any, jax.Array], Any]  # what is drawn, with other masks that f is asked about
    learn: Callable[..., tuple[TrainState, dict]]  # (state, model, asked, answers [S, B, T])


def suits(config: ml_collections.ConfigDict, predictor: Any) -> bool:
    """Whether a run overlaps: f is on the host, and what is learned does not ask who drew masks.

    Of tables that have a surrogate it answers in the place of f, on the device.
    """
    alone = jax.process_count() == 1
    asks = not (predictor.inside or getattr(predictor.removal, "conditional", False))
    return config.predictor.overlap and asks and config.method in _PARTS and alone


def draws_by_policy(config: ml_collections.ConfigDict) -> bool:
    """Whether the state of a run that overlaps has the policy that draws masks."""
    return objectives.trait(config.method, "REGRESSES")


def _of_contrast(
    config: ml_collections.ConfigDict, network: Callable, optimizer: Any, objective: Any
):
    def networks(model: predictors.Model) -> dict[str, Callable]:
        return contrast.networks(steps.make_networks(config, network, model, objective))

    def draw(params: dict, model: predictors.Model, inputs: Any, answers: jax.Array, key: Any):
        own = networks(model)
        pair = inputs, own["read"](params, inputs)
        policy = functools.partial(own["policy"], params)
        drawn = contrast.draw(policy, pair, answers, key, objective, model.grid)
        return pair[1], drawn, contrast.questions(drawn.masks)

    def again(drawn: contrast.Drawn, asked: jax.Array) -> contrast.Drawn:
        masks = contrast.questions(jnp.asarray(asked, drawn.masks.dtype))
        if drawn.valid is not None:
            masks *= drawn.valid[:, 0].astype(masks.dtype)
        return drawn._replace(masks=masks)

    def learn(state: TrainState, model: predictors.Model, asked: Asked, answers: jax.Array):
        pair = asked.inputs, asked.reading
        batch, metrics = contrast.judge(asked.drawn, pair, answers, objective)
        given = networks(model)["policy"], contrast.loss, optimizer, objective
        found, losses = algorithm.learn(state, batch, *given)
        return found._replace(previous=state.params), metrics | losses

    return Parts(draw, again, learn)


def _of_fastshap(
    config: ml_collections.ConfigDict, network: Callable, optimizer: Any, objective: Any
):
    def draw(params: dict, model: predictors.Model, inputs: Any, answers: jax.Array, key: Any):
        drawn = fastshap.draw(model.features(inputs), answers, key, objective)
        return None, drawn, fastshap.questions(drawn)

    def again(drawn: fastshap.Drawn, asked: jax.Array) -> fastshap.Drawn:
        return drawn._replace(coalitions=asked[1:] & drawn.valid)

    def learn(state: TrainState, model: predictors.Model, asked: Asked, answers: jax.Array):
        own = objectives.explainer(steps.make_networks(config, network, model, objective))
        game = fastshap.judge(asked.drawn, asked.inputs, answers)
        return fastshap.learn(state, game, own["explainer"], optimizer, objective)

    return Parts(draw, again, learn)


_PARTS = {"contrast": _of_contrast, "fastshap": _of_fastshap}  # of a config's method


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
    `state.previous`, where a policy draws them. A HostError of f comes out of the step that needs
    the answers.
    """
    objective = steps.make_objective(config, predictors.output(box))
    parts = _PARTS[config.method](config, network, optimizer, objective)
    over = threading.Event()

    @jax.jit
    def whole(batch: Any, key: jax.Array) -> tuple[Any, Any]:
        model, inputs = box.bind({}, batch)
        inputs = model.drawn(inputs, jax.random.fold_in(key, 0))
        return inputs, box.show(inputs)

    @jax.jit
    def draw(params: dict, batch: Any, inputs: Any, answers: jax.Array, key: jax.Array):
        return parts.draw(params, box.bind({}, batch)[0], inputs, answers, key)

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
            asked = box.asked(number, len(asked), *map(np.asarray, shown))
            drawn = parts.again(drawn, asked)
        else:
            box.note(number, np.asarray(asked, bool), *map(np.asarray, shown))
        answers = np.stack([say(masked(batch, inputs, masks)) for masks in asked])
        return Asked(inputs, reading, drawn, answers)

    def learn(state: TrainState, batch: Any, asked: Asked):
        model, _ = box.bind({}, batch)
        of_targets = jnp.take_along_axis(asked.answers, asked.drawn.targets[None], -1)
        return parts.learn(state, model, asked, of_targets)

    learn = jax.jit(learn, out_shardings=out_shardings)
    waiting = None

    def step(state: TrainState, batches: tuple[Any, Any]) -> tuple[TrainState, dict]:
        nonlocal waiting
        (batch, following), number = batches, int(state.step)
        drawing = state.previous or state.params
        asked = waiting.result() if waiting else ask(drawing, batch, number)
        waiting = None
        if number + 1 < total:
            waiting = pool.submit(ask, state.params, following, number + 1)
        return learn(state, batch, asked)

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        try:
            yield step
        finally:
            over.set()
