"""What people have to score methods on, as a task: arrays, lists, folders, sources."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fex_jax import explain, feeding, metrics
from fex_jax.evaluation import tasks
from fex_jax.evaluation.tasks import Reading
from fex_jax.predictors import Bind
from fex_jax.targets import class_numbers


def open_task(
    predictor: tasks.Predictor,
    bind: Bind,
    predict: tasks.Predict,
    data: Any,
    true_classes: Sequence[int | str] | np.ndarray | None,
    reading: Reading,
) -> tasks.Task:
    """Inputs with the predictor's answers; see `evaluate` for what `data` may be.

    Raises:
      ValueError: what cannot be used, and why.
    """
    if isinstance(data, tasks.Task):
        return data
    if isinstance(data, Callable):
        data = data()
    if isinstance(data, str) and not data.strip():
        raise ValueError(f"the data is {data!r}; expected the path of a file or a folder")
    return tasks.of(predictor).open_task(predictor, bind, predict, data, true_classes, reading)


def load_task(explainer: explain.Explainer, config: Any) -> tuple[Bind, tasks.Predict, tasks.Task]:
    """bind, predict and the evaluation split of a config, as an explainer was trained to see it."""
    predictor = explainer.predictor
    predict = tasks.make_prediction(explainer.bind, predictor.params)
    protocol = metrics.PROTOCOLS[config.eval.protocol]
    text = explainer.unit, config.text.max_length, config.text.too_long
    size, limit = config.eval.batch_size, config.eval.num_images
    reading = Reading(protocol, size, limit, *text, config.eval.match_classes)
    source = feeding.open_split(predictor, config)
    task = open_task(predictor, explainer.bind, predict, source, None, reading)
    return explainer.bind, predict, task


def numbers(true_classes: Any, count: int, names: tuple[str, ...], what: str) -> np.ndarray | None:
    """True classes as numbers of `names`, [count]; `what` they are of is for the error."""
    if true_classes is None:
        return None
    try:
        return class_numbers(true_classes, count, names, what)
    except ValueError as error:
        raise ValueError(f"true_classes: {error}") from None


def no_classes(true_classes: Any) -> None:
    """Refuses true classes beside data that has its own."""
    if true_classes is not None:
        raise ValueError("true classes came beside data that has its own: leave them out")
