"""Attribution methods, and running them on a task: every one asked, and timed, in the same way."""

import dataclasses
import functools
import inspect
import math
import pathlib
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from fex_jax import attributions, explain, modalities, sharding
from fex_jax.evaluation.tasks import Predict, Task
from fex_jax.host.model import counted
from fex_jax.predictors import Bind

# What tracing raises of a function that needs its arrays' values: NumPy, `if`, a call elsewhere.
_UNTRACEABLE = (jax.errors.ConcretizationTypeError, jax.errors.TracerArrayConversionError)

Run = Callable[[Any, Any, jax.Array], Any]  # batch, targets [B], key → scores [B, N]


@dataclasses.dataclass(frozen=True)
class Method:
    """A way to attribute, as a row of a table."""

    name: str
    # prepare(batch, targets, key) → what to call for batches of this shape, what of it is timed,
    # and its peak of bytes
    prepare: Callable[[Any, Any, jax.Array], tuple[Run, Run, float]]
    settings: dict[str, Any]  # what decides the result beside the data, code and weights included
    logits: bool = False  # scores are logits of λ
    own_keys: bool = False  # takes a key for each input, [B], and not one for all
    # groups(inputs, rows, batch_size) → batches, where `explain` makes them of several shapes
    groups: Callable[[Any, np.ndarray, int], Iterator[tuple[np.ndarray, int, Any]]] | None = None


class Scores(NamedTuple):
    """What a method says of a task."""

    targets: np.ndarray  # [n, N] of each input's most probable class
    pairs: np.ndarray | None  # [P, 2, N] of both classes of the scenes in `Task.pairs`
    # Seconds and predictions an input, and peak bytes of a batch; of a black box queries an input.
    cost: dict[str, float]


def of_function(
    name: str,
    function: Callable,
    options: Mapping[str, Any],
    bind: Bind,
    params: Any,
) -> Method:
    """A function (model, inputs, targets, key, **options), as those of `fex_jax.attributions`.

    It is compiled; one that cannot be, because it computes with NumPy, runs as it is.

    Raises:
      ValueError: a function of other parameters, or an option that it does not have.
    """
    options = _all_options(name, function, options)
    params = sharding.copied(params)

    @jax.jit
    def program(params: Any, batch: Any, targets: jax.Array, key: jax.Array) -> jax.Array:
        model, inputs = bind(params, batch)
        return _numbers(name, function(model, inputs, targets, key, **options))

    def as_it_is(batch: Any, targets: Any, key: jax.Array) -> Any:
        model, inputs = bind(params, batch)
        return _numbers(name, function(model, inputs, targets, key, **options))

    def prepare(batch: Any, targets: Any, key: jax.Array) -> tuple[Run, Run, float]:
        try:
            compiled = program.lower(params, batch, targets, key).compile()
        except _UNTRACEABLE:
            return as_it_is, as_it_is, math.nan

        def run(*rows: Any) -> jax.Array:
            return compiled(params, *rows)

        return run, run, _peak_bytes(compiled.memory_analysis())

    own_keys = function in attributions.METHODS.values()
    return Method(name, prepare, {"function": function, "options": options}, own_keys=own_keys)


def trained(explainer: explain.Explainer, refine: int = 0) -> Method:
    """What `explainer` gives its users, bit for bit; with `refine`, "fex+100" of 100 queries.

    What is timed are its maps, without f(x), which users get beside them.
    """

    def explained(batch: Any, targets: Any, key: jax.Array) -> Any:
        return explainer.explain(batch, targets[:, None], refine=refine)[0][:, 0]

    def maps(batch: Any, targets: Any, key: jax.Array) -> jax.Array:
        return explainer.attribute(batch, targets[:, None], refine=refine)[:, 0]

    def prepare(batch: Any, targets: Any, key: jax.Array) -> tuple[Run, Run, float]:
        jax.block_until_ready(maps(batch, targets, key))
        memory = explainer.memory(batch, targets[:, None], refine=refine)
        return explained, maps, _peak_bytes(memory)

    groups = getattr(modalities.of(explainer.predictor), "groups", None)
    return Method(
        explainer.name + (f"+{refine}" if refine else ""),
        prepare,
        {"explainer": explainer, "refine": refine},
        logits=explainer.logits,
        groups=groups and functools.partial(groups, explainer.predictor),
    )


def external(path: pathlib.Path, task: Task) -> Scores:
    """Scores computed elsewhere, an .npy file [n, N] or [n, *grid], in the task's order.

    Raises:
      ValueError: no such array, another shape, NaN or infinity.
    """
    try:
        array = np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path} is no .npy file of numbers: {error}") from None
    shapes = (task.size, math.prod(task.grid)), (task.size, *task.grid)
    if getattr(array, "shape", None) not in shapes:
        expected = " or ".join(map(str, dict.fromkeys(shapes)))
        raise ValueError(
            f"{path} has shape {getattr(array, 'shape', 'of an .npz')}; expected {expected}: one "
            "score a feature of each input that --write_inputs writes, in its order"
        )
    if array.dtype.kind not in "fiub" or not np.isfinite(array).all():
        raise ValueError(f"{path} holds NaN, infinite or other scores than numbers")
    return Scores(array.reshape(shapes[0]).astype(np.float32), None, {})


def attribute(
    method: Method, predict: Predict | None, task: Task, batch_size: int, seed: int
) -> Scores:
    """Runs a method on every input, compiled once, and takes its time beside a prediction's.

    Without `predict` f is on the host, and its queries for a map are counted instead, without the
    one for f(x) that an explainer gives beside it.

    What is drawn for an input depends on its number in the task, and not on the batch it is in:
    so the errors of two inputs are independent, as intervals over inputs take them to be. A
    function of one's own gets one key for all batches.

    Raises:
      ValueError: scores of another shape, NaN or infinity.
    """
    if "function" in method.settings:  # which may ask f hundreds of times about each row
        batch_size = min(batch_size, task.size)
    prepared: dict[tuple[int, ...], tuple[Run, Run, float]] = {}
    seconds, predictions, queries = [], [], []

    def one_batch(batch: Any, targets: np.ndarray, key: jax.Array) -> np.ndarray:
        shape = jax.tree.leaves(batch)[0].shape
        if shape not in prepared:
            prepared[shape] = method.prepare(batch, targets, key)
            if predict is not None:
                jax.block_until_ready(predict(batch))  # warm
        call, timed, _ = prepared[shape]
        if predict is None:
            with counted() as count:
                found = np.asarray(call(batch, targets, key))
            queries.append(count[0] / shape[0] - (call is not timed))
            return found
        began = time.perf_counter()
        jax.block_until_ready(predict(batch))
        middle = time.perf_counter()
        found = jax.block_until_ready(timed(batch, targets, key))
        taken = time.perf_counter() - middle
        seconds.append(taken / shape[0])
        predictions.append(taken / (middle - began))
        return np.asarray(found if call is timed else call(batch, targets, key))

    def run(rows: np.ndarray, classes: np.ndarray, number: int, title: str) -> np.ndarray:
        key = jax.random.fold_in(jax.random.key(seed), number)
        keys = jax.vmap(lambda row: jax.random.fold_in(key, row))(rows)  # [n]
        scores = np.zeros((len(rows), math.prod(task.grid)), np.float32)
        size = batch_size
        if "explainer" in method.settings:  # the last bits are those of a batch's shape
            size = modalities.padded(len(rows), batch_size)
        groups = list((method.groups or _groups)(task.inputs, rows, size))
        for places, kept, batch in tqdm(groups, title, unit="batch", leave=False):
            own = keys[places] if method.own_keys else key
            found = one_batch(sharding.spread(batch), classes[rows[places]], own)
            _write(scores, places[:kept], found, method)
        return scores

    scores = run(np.arange(task.size), task.targets, 0, method.name)
    pairs = None
    if len(task.pairs):
        second = run(task.pairs, task.second, 1, f"{method.name}, second class")
        pairs = np.stack([scores[task.pairs], second], 1)
    if predict is None:
        return Scores(scores, pairs, {"queries": float(np.mean(queries))})
    cost = {
        "seconds_per_1000": 1000 * float(np.median(seconds)),
        "predictions": float(np.median(predictions)),
        "peak_bytes": max(peak for *_, peak in prepared.values()),
    }
    return Scores(scores, pairs, cost)


def _groups(
    inputs: Any, rows: np.ndarray, batch_size: int
) -> Iterator[tuple[np.ndarray, int, Any]]:
    """Places in `rows` [batch_size], how many are no repetitions, and the batch of their inputs."""
    for start in range(0, len(rows), batch_size):
        places = np.arange(start, start + batch_size) % len(rows)
        batch = jax.tree.map(lambda x, places=places: x[rows[places]], inputs)
        yield places, min(batch_size, len(rows) - start), batch


def _write(scores: np.ndarray, rows: np.ndarray, found: np.ndarray, method: Method) -> None:
    """What a method gave of a batch, into scores [n, N]; a shorter batch has fewer features."""
    size = scores.shape[-1]
    if found.ndim == 3:  # maps on their grid
        found = found.reshape(len(found), -1)
    fits = method.groups is not None or found.shape[-1:] == (size,)
    if found.ndim != 2 or len(found) < len(rows) or not fits:
        raise ValueError(
            f"{method.name} gave scores of shape {found.shape}; expected (batch, {size}), one for "
            "each feature"
        )
    kept = found[: len(rows), :size]
    if not np.isfinite(kept).all():
        raise ValueError(f"{method.name} gave NaN or infinite scores")
    scores[rows, : kept.shape[1]] = kept


def _numbers(name: str, found: Any) -> Any:
    """What a function of one's own gave, as an array: also of lists, or of torch."""
    values = found
    if not isinstance(found, jax.Array):
        found = found.detach() if hasattr(found, "detach") else found
        try:
            values = np.asarray(found)
        except (TypeError, ValueError):  # rows of several lengths; on a device of torch's
            values = np.array(None)
    if not any(jnp.issubdtype(values.dtype, kind) for kind in (bool, np.integer, np.floating)):
        kind = "an array" if hasattr(found, "dtype") else type(found).__name__
        of = f" of {found.dtype}" if hasattr(found, "dtype") else ""
        raise ValueError(
            f"{name} gave {kind}{of}; expected an array of real numbers, one for each input and "
            "feature"
        )
    return values


def _all_options(name: str, function: Callable, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options with the function's own defaults of the others."""
    try:
        signature = inspect.signature(function)
    except ValueError as error:  # of a class that is written in C
        raise ValueError(
            f"{name}: {error}; a method is a function (model, inputs, targets, key, **options)"
        ) from None
    parameters = list(signature.parameters.values())
    own = {p.name: p.default for p in parameters[4:] if p.default is not p.empty}
    free = any(p.kind is p.VAR_KEYWORD for p in parameters)
    try:
        signature.bind(*(None,) * 4, **options)
    except TypeError as error:
        takes = ", ".join(p.name for p in parameters[4:]) or "no options"
        raise ValueError(
            f"{name}: {error}; a method is (model, inputs, targets, key, **options)"
            + ("" if free else f", and this one takes {takes}")
        ) from None
    return own | dict(options)


def _peak_bytes(memory: Any) -> float:
    if memory is None:
        return math.nan
    return float(
        memory.temp_size_in_bytes + memory.argument_size_in_bytes + memory.output_size_in_bytes
    )
