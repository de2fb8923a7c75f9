"""What methods are compared on, of images: pictures, classes, and where scenes have objects."""

import os
import pathlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from fex_jax import explain, metrics, page, plotting
from fex_jax.data import decode, folders
from fex_jax.evaluation import tasks
from fex_jax.evaluation.cache import Result
from fex_jax.evaluation.inputs import no_classes, numbers
from fex_jax.evaluation.tasks import Reading
from fex_jax.modalities import images
from fex_jax.modalities.images import Explanation
from fex_jax.predictors import Bind, Model

if TYPE_CHECKING:  # TensorFlow, which it imports, takes seconds; not all data need it
    from fex_jax import data
    from fex_jax.evaluation.table import Table

PIXELS = True
_DRAWN = 6  # images of maps.png


def open_task(
    predictor: tasks.Predictor,
    bind: Bind,
    predict: tasks.Predict,
    data: Any,
    true_classes: Sequence[int | str] | np.ndarray | None,
    reading: Reading,
) -> tasks.Task:
    """Pictures as `Explainer` takes them, a folder of them, or a source of `fex_jax.data`."""
    if hasattr(data, "records"):
        no_classes(true_classes)
        return _of_source(predictor, bind, predict, data, reading)
    names = predictor.labels
    if isinstance(data, str | os.PathLike):
        files, known, names = _folder(pathlib.Path(data).expanduser(), true_classes, names)
    else:
        files = decode.as_list(data)
        known = numbers(true_classes, len(files), names, "images")
    if reading.limit:
        files = files[: reading.limit]
        known = None if known is None else known[: reading.limit]
    bar = tqdm(
        images.prepared(predictor, files, images.BATCH_SIZE), "images", len(files), leave=False
    )
    pixels = np.stack([picture.astype(np.uint8) for picture in bar])
    return _of_pixels(predictor, bind, predict, pixels, known, names, None, reading)


def explanations(task: tasks.Task, scores: np.ndarray, predictor: tasks.Predictor) -> Explanation:
    """Scores [n, N] as maps."""
    maps = scores.reshape(-1, *task.grid)
    return Explanation(maps, maps, task.targets, task.probabilities, predictor.labels)


def perturbed(
    predictor: tasks.Predictor,
    protocol: metrics.Protocol,
    model: Model,
    inputs: Any,
    scores: jax.Array,
    targets: jax.Array,
) -> tuple[Callable, jax.Array, dict[str, jax.Array]]:
    """The protocol's patches or pixels; a black box loses cells as training removed them."""
    if not predictor.inside:
        return model.mask, scores, {}
    size = predictor.preprocessing.sides
    black = predictor.preprocessing.normalize(jnp.zeros(3))
    return *metrics.image_features(protocol, scores, model.grid, size, black), {}


def scored(task: tasks.Task, predictor: tasks.Predictor, unit: str) -> str:
    """What scores are of."""
    return "{}×{} {}".format(*task.grid, "patches" if predictor.inside else "cells")


def written(task: tasks.Task) -> dict[str, np.ndarray]:
    """The inputs, for methods from elsewhere."""
    return {"images": task.inputs}


def draw(directory: pathlib.Path, table: "Table", name: str) -> None:
    """maps.png: the first images with a map of each method."""
    task = table.task
    shown = slice(0, min(_DRAWN, task.size))
    maps = {}
    for method, runs in table.results.items():
        scores = runs[0][0].targets[shown].reshape(-1, *task.grid)
        maps[method] = np.asarray(jax.nn.sigmoid(scores)) if method in table.logits else scores
    labels = [table.predictor.labels[target] for target in task.targets[shown]]
    plotting.comparison(directory / "maps.png", _pixels(task, _DRAWN), labels, maps)


def gallery_items(
    explainer: explain.Explainer, task: tasks.Task, results: dict[str, list[Result]], count: int
) -> list[page.GalleryItem]:
    """The first images with the maps of their two most probable classes."""
    shown = _pixels(task, count)
    found = next(iter(results.values()))[0][1]
    result = explainer(shown, top_k=min(2, len(explainer.predictor.labels)))
    return [
        page.GalleryItem(
            image=shown[i],
            label=task.label(i),
            classes=tuple(
                page.ClassMap(
                    label=result.labels[target],
                    probability=float(result.probabilities[i, target]),
                    attribution=attribution,
                )
                for target, attribution in zip(
                    result.targets[i], result.attributions[i], strict=True
                )
            ),
            positive=found["positive_probability"][i],
            negative=found["negative_probability"][i],
        )
        for i in range(len(shown))
    ]


def _pixels(task: tasks.Task, count: int) -> np.ndarray:
    return np.rint(task.inputs[:count]).astype(np.uint8)


def _of_source(
    predictor: tasks.Predictor,
    bind: Bind,
    predict: tasks.Predict,
    source: "data.Source",
    reading: Reading,
) -> tasks.Task:
    from fex_jax import data

    total, size = min(reading.limit or source.size, source.size), reading.batch_size
    stream = data.eval_stream(source, predictor.preprocessing, size, limit=total)
    batches = list(tqdm(stream, "images", -(-total // size), leave=False))
    arrays = {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}
    pixels, true_classes = arrays["image"], arrays["label"] if source.labels else None
    known = pixels, true_classes, source.labels, arrays.get("segmentation")
    return _of_pixels(predictor, bind, predict, *known, reading)


def _of_pixels(
    predictor: tasks.Predictor,
    bind: Bind,
    predict: tasks.Predict,
    pixels: np.ndarray,
    true_classes: np.ndarray | None,
    names: tuple[str, ...],
    segmentation: np.ndarray | None,
    reading: Reading,
) -> tasks.Task:
    """Of preprocessed images [n, H, W, 3], their true classes and where their objects are."""
    found = tasks.answers(predictor, predict, pixels, true_classes, names, reading)
    pair = np.stack([found["targets"], found["second"]], 1)
    if segmentation is not None:
        # A scene's prediction is right if it names any of its objects.
        right = (segmentation == 1 + pair[:, :1, None]).any((1, 2))
        found["accuracy"] = float(right.mean())
        if predictor.config.num_classes > 1:
            found["pairs"] = np.flatnonzero(tasks.both_shown(segmentation, pair))
    task = tasks.Task(grid=predictor.config.grid, segmentation=segmentation, **found)
    if len(task.pairs):
        own = tasks.agreement(task, bind, predictor.params, reading.batch_size)
        task = task._replace(agreed=own)
    return task


def _folder(
    root: pathlib.Path, true_classes: Any, names: tuple[str, ...]
) -> tuple[list[pathlib.Path], np.ndarray | None, tuple[str, ...]]:
    """Pictures of a folder in a fixed random order; labelled if all are in class folders.

    True classes that are given are of the pictures in the order of their paths.
    """
    if not root.is_dir():
        raise ValueError(f"{root} is no folder: expected one of images, or the images themselves")
    files = sorted(path for path in root.rglob("*") if _is_picture(path.relative_to(root)))
    known = numbers(true_classes, len(files), names, "images")
    if known is None and not any(path.parent == root for path in files):
        classes = folders.class_files(root, decode.SUFFIXES)
        names = tuple(classes)
        files = [file for listed in classes.values() for file in listed]
        known = np.repeat(np.arange(len(classes)), list(map(len, classes.values())))
    order = np.random.default_rng(0).permutation(len(files))
    return [files[i] for i in order], None if known is None else known[order], names


def _is_picture(path: pathlib.Path) -> bool:
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in path.parts)
    return path.suffix.lower() in decode.SUFFIXES and not hidden
