"""Attribution methods on the same inputs: their scores, what those are worth, and their price."""

import dataclasses
import functools
import hashlib
import json
import math
import pathlib
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fex_jax import explain, metrics, pretrained
from fex_jax.models.unet import UNetConfig
from fex_jax.refine import refine_scores
from fex_jax.tasks import Bind, Predict, Predictor, Task, in_batches, object_masks


@dataclasses.dataclass(frozen=True)
class Method:
    """A way to attribute: scores(params, batch, targets, key) → [B, N], jittable."""

    name: str
    scores: Callable[[Any, Any, jax.Array, jax.Array], jax.Array]
    params: Any  # every array that `scores` needs, so that none is baked into the program
    settings: dict  # what decides the result beside the data: options, or a digest of weights
    logits: bool = False  # scores are logits of λ


class Scores(NamedTuple):
    """What a method says of a task."""

    targets: np.ndarray  # [n, N] of each input's most probable class
    pairs: np.ndarray | None  # [P, 2, N] of both classes of the scenes in `Task.pairs`
    cost: dict[str, float]  # seconds and predictions an input, and peak bytes of a batch


# ---------------------------------------------------------------- methods


def baseline(
    name: str,
    method: Callable,
    options: Mapping[str, Any],
    bind: Bind,
    params: Any,
) -> Method:
    """A function (model, inputs, targets, key, **options), as those of `fex_jax.attributions`."""

    def scores(params: Any, batch: Any, targets: jax.Array, key: jax.Array) -> jax.Array:
        model, inputs = bind(params, batch)
        return method(model, inputs, targets, key, **options)

    return Method(name, scores, params, dict(options))


def trained(explainer: explain.Explainer | explain.TextExplainer) -> Method:
    """A trained explainer, "fex" or "fastshap", "-unet" if it is one: a pass of its network."""

    def scores(params: Any, batch: Any, targets: jax.Array, key: jax.Array) -> jax.Array:
        return explainer.maps(params, batch, targets[:, None])[:, 0]

    settings = {"weights": digest(explainer.params), "contrastive": explainer.contrastive}
    name = explainer.method + ("-unet" if isinstance(explainer.backbone, UNetConfig) else "")
    return Method(name, scores, explainer.params, settings, logits=explainer.method == "fex")


def refined(method: Method, num_queries: int, bind: Bind, params: Any) -> Method:
    """A trained explainer whose map of an input is improved by queries; "fex+100" of 100."""

    def scores(params: Any, batch: Any, targets: jax.Array, key: jax.Array) -> jax.Array:
        own, predictor_params = params
        found = method.scores(own, batch, targets, key)
        model, inputs = bind(predictor_params, batch)
        options = {"num_queries": num_queries, "logits": method.logits}
        return refine_scores(model, inputs, targets, found, key, **options)

    return dataclasses.replace(
        method,
        name=f"{method.name}+{num_queries}",
        scores=scores,
        params=(method.params, params),
        settings=method.settings | {"refine": num_queries},
    )


def digest(params: Any) -> str:
    """A short fingerprint of a pytree of arrays."""
    found = hashlib.sha256()
    for leaf in jax.tree.leaves(params):
        found.update(np.ascontiguousarray(leaf).tobytes())
    return found.hexdigest()[:16]


def external(path: pathlib.Path, task: Task) -> Scores:
    """Scores computed elsewhere, an .npy file [n, N] or [n, *grid], in the task's order.

    Raises:
      ValueError: another shape, NaN or infinity.
    """
    array = np.load(path, allow_pickle=False)
    shapes = (task.size, math.prod(task.grid)), (task.size, *task.grid)
    if array.shape not in shapes:
        expected = " or ".join(map(str, dict.fromkeys(shapes)))
        raise ValueError(
            f"{path} has shape {array.shape}; expected {expected}: one score a feature of each "
            "input that --write_inputs writes, in its order"
        )
    if not np.isfinite(array).all():
        raise ValueError(f"{path} holds NaN or infinite scores")
    return Scores(array.reshape(shapes[0]).astype(np.float32), None, {})


# ---------------------------------------------------------------- running them


def attribute(
    method: Method,
    predict: Predict,
    task: Task,
    batch_size: int,
    seed: int,
) -> Scores:
    """Runs a method on every input, compiled once, and takes its time beside a prediction's."""
    first = np.arange(batch_size) % task.size
    batch, targets = jax.tree.map(lambda x: x[first], (task.inputs, task.targets))
    compiled = (
        jax.jit(method.scores).lower(method.params, batch, targets, jax.random.key(seed)).compile()
    )
    jax.block_until_ready(predict(batch))  # warm
    seconds, predictions = [], []

    def one_batch(rows: tuple[Any, np.ndarray]) -> jax.Array:
        key = jax.random.fold_in(jax.random.key(seed), len(seconds))
        began = time.perf_counter()
        jax.block_until_ready(predict(rows[0]))
        middle = time.perf_counter()
        found = jax.block_until_ready(compiled(method.params, *rows, key))
        seconds.append(time.perf_counter() - middle)
        predictions.append(seconds[-1] / (middle - began))
        return found

    scores = in_batches(one_batch, (task.inputs, task.targets), batch_size, method.name)
    if not np.isfinite(scores).all():
        raise ValueError(f"{method.name} gave NaN or infinite scores")
    pairs = None
    if len(task.pairs):
        both = jax.tree.map(lambda x: x[task.pairs], (task.inputs, task.second))
        second = in_batches(one_batch, both, batch_size, f"{method.name}, second class")
        pairs = np.stack([scores[task.pairs], second], 1)
    memory = compiled.memory_analysis()
    cost = {
        "seconds_per_1000": 1000 * float(np.median(seconds)) / batch_size,
        "predictions": float(np.median(predictions)),
        "peak_bytes": float(
            memory.temp_size_in_bytes + memory.argument_size_in_bytes + memory.output_size_in_bytes
        )
        if memory
        else float("nan"),
    }
    return Scores(scores, pairs, cost)


def make_perturbation(
    predictor: Predictor,
    bind: Bind,
    protocol: metrics.Protocol,
) -> Callable[[Any, jax.Array, jax.Array, jax.Array], dict[str, jax.Array]]:
    """perturb(batch, scores, targets, reference) → statistics of each input [B, ...], jitted.

    Areas and curves; of texts also what ERASER measures, and f's classes as words are inserted.

    Raises:
      ValueError: a protocol of pixels, for texts.
    """
    is_text = isinstance(predictor, pretrained.TextCheckpoint)
    if is_text and (protocol.unit == "pixel" or protocol.fill == "black"):
        raise ValueError(f"protocol {protocol.name} removes pixels; texts take fex or authors")

    @jax.jit
    def perturb(params: Any, batch: Any, scores, targets, reference):
        model, inputs = bind(params, batch)
        valid = model.valid and model.valid(inputs)
        mask = model.mask
        found = {}
        if is_text:
            found["inserted"] = metrics.insertion_predictions(
                model.predict, mask, inputs, scores, valid
            )
            erasure = metrics.erasure(model.predict, mask, inputs, scores, targets, valid)
            found |= {name: values.mean(-1) for name, values in erasure._asdict().items()}  # AOPC
        else:
            side = (predictor.preprocessing.image_size,) * 2
            black = predictor.preprocessing.normalize(jnp.zeros(3))
            mask, scores = metrics.image_features(protocol, scores, model.grid, side, black)
        curves = metrics.perturbation_curves(
            model.predict, mask, inputs, scores, targets, reference, protocol, valid
        )
        found |= metrics.areas(curves, protocol)
        for direction in ("positive", "negative"):
            for field, values in getattr(curves, direction)._asdict().items():
                found[f"{direction}_{field}"] = values
        return found

    return functools.partial(perturb, predictor.params)


def statistics(
    scores: Scores,
    task: Task,
    perturb: Callable[[Any, jax.Array, jax.Array, jax.Array], dict[str, jax.Array]],
    batch_size: int,
    logits: bool = False,
) -> dict[str, np.ndarray]:
    """What `perturb` finds by input; of scenes, segmentation [n, 5]; of pairs of classes, [P]; of
    texts, agreement with rationales [n, k, 3] and classes as words are inserted [n, k, 2].
    """
    found = in_batches(
        lambda rows: perturb(*rows),
        (task.inputs, scores.targets, task.targets, task.reference),
        batch_size,
        "perturbed",
    )
    if task.segmentation is not None:
        found["segmentation"] = in_batches(
            lambda rows: metrics.segmentation_statistics(
                _maps(rows[0], task.grid, logits), rows[1]
            ),
            (scores.targets, object_masks(task.segmentation, task.targets)),
            batch_size,
            "segmentation",
        )
    if scores.pairs is not None:
        found |= _of_pairs(scores.pairs, task, logits)
    if task.documents is not None:
        found |= _of_documents(scores.targets, found.pop("inserted"), task)
    return found


def _of_pairs(scores: np.ndarray, task: Task, logits: bool) -> dict[str, np.ndarray]:
    """Whether the maps of two classes [P, 2, N] are each on their own object."""
    first, second = (_maps(scores[:, i], task.grid, logits) for i in (0, 1))
    scenes = task.segmentation[task.pairs]
    own, other = (
        scenes == 1 + classes[task.pairs][:, None, None] for classes in (task.targets, task.second)
    )
    found = {"class_specific": np.asarray(metrics.class_specificity(first, second, own, other))}
    if task.agreed.any():
        found["class_faithful"] = found["class_specific"][task.agreed]
    for name, metric in (("pointing", metrics.pointing_game), ("mass", metrics.attribution_mass)):
        both = metric(first, own, other), metric(second, other, own)
        found[name] = np.stack(both, -1).mean(-1)
    return found


def _of_documents(scores: np.ndarray, inserted: np.ndarray, task: Task) -> dict[str, np.ndarray]:
    """Words against rationales, and f's classes [n, k] beside the true ones."""
    found = {}
    if task.known is not None:
        truth = np.broadcast_to(task.known[:, None], inserted.shape)
        found["insertion_classes"] = np.stack([inserted, truth], -1)
    if all(document.rationale is not None for document in task.documents):
        words = [
            metrics.word_scores(row[: len(document.spans)], document.spans, document.text)
            for row, document in zip(scores, task.documents, strict=True)
        ]
        rationales = [document.rationale for document in task.documents]
        found["token_counts"] = metrics.token_counts(words, rationales)
        # Of texts with marked and unmarked words only.
        precision = metrics.token_average_precision(words, rationales).compressed()
        if precision.size:
            found["token_ap"] = precision
    return found


def _maps(scores: np.ndarray, grid: tuple[int, int], logits: bool) -> jax.Array:
    maps = jnp.asarray(scores).reshape(-1, *grid)
    return jax.nn.sigmoid(maps) if logits else maps


# ---------------------------------------------------------------- keeping what is done


def save(path: pathlib.Path, settings: dict, scores: Scores, found: dict[str, np.ndarray]) -> None:
    """One method's scores and statistics, with the settings they belong to."""
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = {f"statistics/{name}": value for name, value in found.items()}
    if scores.pairs is not None:
        arrays["pairs"] = scores.pairs
    partial = path.with_suffix(".partial.npz")
    np.savez_compressed(
        partial,
        settings=_canonical(settings),
        cost=json.dumps(scores.cost),
        scores=scores.targets,
        **arrays,
    )
    partial.replace(path)  # a file of this name is always whole


def load(path: pathlib.Path, settings: dict) -> tuple[Scores, dict[str, np.ndarray]] | None:
    """What `save` wrote under the same settings, or None."""
    if not path.is_file():
        return None
    with np.load(path, allow_pickle=False) as file:
        if str(file["settings"]) != _canonical(settings):
            return None
        scores = Scores(
            file["scores"],
            file["pairs"] if "pairs" in file else None,
            json.loads(str(file["cost"])),
        )
        prefix = "statistics/"
        return scores, {n.removeprefix(prefix): file[n] for n in file if n.startswith(prefix)}


def _canonical(settings: dict) -> str:
    return json.dumps(settings, sort_keys=True, default=str)
