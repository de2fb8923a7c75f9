"""Attribution methods on the same images: their scores, what those are worth, and their price."""

import dataclasses
import functools
import hashlib
import json
import pathlib
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from fex_jax import explain, metrics, predictors, pretrained
from fex_jax.models.unet import UNetConfig


class Task(NamedTuple):
    """n images to explain, what f says of them, and what is known of them."""

    images: np.ndarray  # [n, S, S, 3] uint8
    labels: np.ndarray  # [n] in the data's own numbers
    targets: np.ndarray  # [n] the most probable class, which is explained
    second: np.ndarray  # [n] the class after it
    reference: np.ndarray  # [n] the class that counts as correct
    segmentation: np.ndarray | None  # [n, S, S] 0 or 1 + class of the object at each pixel
    pairs: np.ndarray  # [P] scenes that show just the two most probable classes


@dataclasses.dataclass(frozen=True)
class Method:
    """A way to attribute: scores(params, normalised images, targets, key) → [B, N], jittable."""

    name: str
    scores: Callable[[Any, jax.Array, jax.Array, jax.Array], jax.Array]
    params: Any  # every array that `scores` needs, so that none is baked into the program
    settings: dict  # what decides the result beside the data: options, or a digest of weights
    logits: bool = False  # scores are logits of λ


class Scores(NamedTuple):
    """What a method says of a task."""

    targets: np.ndarray  # [n, N] of each image's most probable class
    pairs: np.ndarray | None  # [P, 2, N] of both classes of the scenes in `Task.pairs`
    cost: dict[str, float]  # seconds and predictions an image, and peak bytes of a batch


# ---------------------------------------------------------------- methods


def baseline(
    name: str,
    method: Callable,
    options: Mapping[str, Any],
    predictor: pretrained.Checkpoint,
    fill: float = 0.0,
) -> Method:
    """A function (model, inputs, targets, key, **options), as those of `fex_jax.attributions`."""

    def scores(params: Any, images: jax.Array, targets: jax.Array, key: jax.Array) -> jax.Array:
        model = predictors.vit(predictor.config, params, fill)
        return method(model, images, targets, key, **options)

    return Method(name, scores, predictor.params, dict(options))


def trained(explainer: explain.Explainer) -> Method:
    """A trained explainer, "fex" or "fastshap", "-unet" if it is one: a pass of its network."""

    def scores(params: Any, images: jax.Array, targets: jax.Array, key: jax.Array) -> jax.Array:
        return explainer.maps(params, images, targets[:, None])[:, 0]

    settings = {"weights": digest(explainer.params)}
    name = explainer.method + ("-unet" if isinstance(explainer.backbone, UNetConfig) else "")
    return Method(name, scores, explainer.params, settings, logits=explainer.method == "fex")


def digest(params: Any) -> str:
    """A short fingerprint of a pytree of arrays."""
    found = hashlib.sha256()
    for leaf in jax.tree.leaves(params):
        found.update(np.ascontiguousarray(leaf).tobytes())
    return found.hexdigest()[:16]


def external(path: pathlib.Path, task: Task, grid: tuple[int, int]) -> Scores:
    """Scores computed elsewhere, an .npy file [n, N] or [n, rows, cols], in the task's order.

    Raises:
      ValueError: another shape, NaN or infinity.
    """
    array = np.load(path, allow_pickle=False)
    size = grid[0] * grid[1]
    if array.shape not in ((len(task.images), size), (len(task.images), *grid)):
        raise ValueError(
            f"{path} has shape {array.shape}; expected ({len(task.images)}, {size}) or "
            f"({len(task.images)}, {grid[0]}, {grid[1]}): one score a patch of each image that "
            "--write_inputs writes, in its order"
        )
    if not np.isfinite(array).all():
        raise ValueError(f"{path} holds NaN or infinite scores")
    return Scores(array.reshape(len(array), size).astype(np.float32), None, {})


# ---------------------------------------------------------------- running them


def in_batches(
    call: Callable[[np.ndarray], Any], count: int, batch_size: int, title: str
) -> dict[str, np.ndarray] | np.ndarray:
    """call(numbers [batch_size]) → arrays [batch_size, ...], for all numbers below `count`.

    The last batch is filled up with numbers from the start, so that every batch has one shape, and
    what they gave is dropped.
    """
    parts = []
    for start in tqdm(range(0, count, batch_size), title, unit="batch", leave=False):
        found = call(np.arange(start, start + batch_size) % count)
        parts.append(jax.tree.map(lambda x, kept=count - start: np.asarray(x)[:kept], found))
    return jax.tree.map(lambda *arrays: np.concatenate(arrays), *parts)


def make_prediction(predictor: pretrained.Checkpoint) -> Callable[[Any, jax.Array], jax.Array]:
    """prediction(params, uint8 images) → f(x) [B, K], jitted."""

    @jax.jit
    def prediction(params: Any, pixels: jax.Array) -> jax.Array:
        inputs = predictor.preprocessing.normalize(pixels)
        return predictors.vit(predictor.config, params).predict(inputs)

    return prediction


def predict(predictor: pretrained.Checkpoint, images: np.ndarray, batch_size: int) -> np.ndarray:
    """f(x) of uint8 images [n, S, S, 3] → [n, K]."""
    prediction = make_prediction(predictor)
    return in_batches(
        lambda rows: prediction(predictor.params, images[rows]),
        len(images),
        batch_size,
        "predictions",
    )


def attribute(
    method: Method,
    predictor: pretrained.Checkpoint,
    task: Task,
    batch_size: int,
    seed: int,
) -> Scores:
    """Runs a method on every image, compiled once, and takes its time beside a prediction's."""
    normalize = predictor.preprocessing.normalize

    def run(params: Any, pixels: jax.Array, targets: jax.Array, key: jax.Array) -> jax.Array:
        return method.scores(params, normalize(pixels), targets, key)

    first = np.arange(batch_size) % len(task.images)
    example = task.images[first], task.targets[first], jax.random.key(seed)
    compiled = jax.jit(run).lower(method.params, *example).compile()
    prediction = make_prediction(predictor)
    jax.block_until_ready(prediction(predictor.params, example[0]))  # warm
    seconds, predictions = [], []

    def scores_of(rows: np.ndarray, targets: np.ndarray, title: str) -> np.ndarray:
        def one_batch(picked: np.ndarray) -> jax.Array:
            pixels = task.images[rows[picked]]
            key = jax.random.fold_in(jax.random.key(seed), len(seconds))
            began = time.perf_counter()
            jax.block_until_ready(prediction(predictor.params, pixels))
            middle = time.perf_counter()
            found = jax.block_until_ready(compiled(method.params, pixels, targets[picked], key))
            seconds.append(time.perf_counter() - middle)
            predictions.append(seconds[-1] / (middle - began))
            return found

        return in_batches(one_batch, len(rows), batch_size, title)

    scores = scores_of(np.arange(len(task.images)), task.targets, method.name)
    if not np.isfinite(scores).all():
        raise ValueError(f"{method.name} gave NaN or infinite scores")
    pairs = None
    if len(task.pairs):
        second = scores_of(task.pairs, task.second[task.pairs], f"{method.name}, second class")
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


def make_perturbation(predictor: pretrained.Checkpoint, protocol: metrics.Protocol) -> Callable:
    """perturb(pixels, scores, targets, reference) → (areas, curves) of each image, jitted."""
    preprocessing = predictor.preprocessing
    side = (preprocessing.image_size,) * 2

    @jax.jit
    def perturb(params: dict, pixels, scores, targets, reference):
        model = predictors.vit(predictor.config, params)
        images = preprocessing.normalize(pixels)
        black = preprocessing.normalize(jnp.zeros(3))
        mask, scores = metrics.image_features(protocol, scores, model.grid, side, black)
        curves = metrics.perturbation_curves(
            model.predict, mask, images, scores, targets, reference, protocol
        )
        return metrics.areas(curves, protocol), curves

    return functools.partial(perturb, predictor.params)


def statistics(
    scores: Scores,
    task: Task,
    grid: tuple[int, int],
    perturb: Callable,
    batch_size: int,
    logits: bool = False,
) -> dict[str, np.ndarray]:
    """Statistics by image: areas [n], curves [n, S], segmentation [n, 5]; by pair, [P]."""

    def by_image(rows: np.ndarray) -> dict[str, jax.Array]:
        areas, curves = perturb(
            task.images[rows], scores.targets[rows], task.targets[rows], task.reference[rows]
        )
        part = dict(areas)
        for direction in ("positive", "negative"):
            for field, values in getattr(curves, direction)._asdict().items():
                part[f"{direction}_{field}"] = values
        if task.segmentation is not None:
            maps = _maps(scores.targets[rows], grid, logits)
            masks = object_masks(task.segmentation[rows], task.targets[rows])
            part["segmentation"] = metrics.segmentation_statistics(maps, masks)
        return part

    found = in_batches(by_image, len(task.images), batch_size, "perturbed")
    if scores.pairs is not None:
        first, second = (_maps(scores.pairs[:, i], grid, logits) for i in (0, 1))
        scenes = task.segmentation[task.pairs]
        own, other = (
            scenes == 1 + classes[task.pairs][:, None, None]
            for classes in (task.targets, task.second)
        )
        found["class_specific"] = np.asarray(metrics.class_specificity(first, second, own, other))
        for name, metric in (
            ("pointing", metrics.pointing_game),
            ("mass", metrics.attribution_mass),
        ):
            both = metric(first, own, other), metric(second, other, own)
            found[name] = np.stack(both, -1).mean(-1)
    return found


def _maps(scores: np.ndarray, grid: tuple[int, int], logits: bool) -> jax.Array:
    maps = jnp.asarray(scores).reshape(-1, *grid)
    return jax.nn.sigmoid(maps) if logits else maps


def object_masks(segmentation: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Pixels of each image's explained class, or of all objects where it is not in the scene."""
    own = segmentation == 1 + classes[:, None, None]
    return np.where(own.any((1, 2), keepdims=True), own, segmentation > 0)


def both_shown(segmentation: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Whether a scene shows just the two classes that rank first: [B, 2] → bool [B]."""
    shown = [set(np.unique(scene)) - {0} for scene in segmentation]
    return np.array([classes == set(pair + 1) for classes, pair in zip(shown, pairs, strict=True)])


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
