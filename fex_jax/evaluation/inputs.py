"""What people have to score methods on, as a task: arrays, lists, folders, sources."""

import pathlib
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from fex_jax import explain, metrics, pictures, tokens
from fex_jax.evaluation import tasks
from fex_jax.predictors import Bind
from fex_jax.targets import class_numbers

_ENDINGS = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}


class Reading(NamedTuple):
    """How inputs are read."""

    protocol: metrics.Protocol
    batch_size: int
    limit: int  # the first so many; 0: all
    unit: tokens.Unit  # of texts: what a feature is
    max_length: int  # of texts, in tokens; 0: the classifier's window
    too_long: str  # of texts beyond it: "refuse" or "cut"


def open_task(
    predictor: tasks.Predictor,
    bind: Bind,
    predict: tasks.Predict,
    data: Any,
    labels: Sequence[int | str] | np.ndarray | None,
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
    common = reading.protocol, reading.batch_size
    if predictor.modality == "texts":
        options = {name: getattr(reading, name) for name in ("max_length", "unit", "too_long")}
        source = _texts(predictor, data, labels)
        return tasks.of_texts(predictor, predict, source, *common, reading.limit, **options)
    if hasattr(data, "records"):
        _no_labels(labels)
        return tasks.of_images(predictor, bind, predict, data, *common, reading.limit)
    names = predictor.labels
    if isinstance(data, str | pathlib.Path):
        files, numbers, names = _folder(pathlib.Path(data).expanduser(), labels, names)
    else:
        files, numbers = pictures.as_list(data), _numbers(labels, _count(data), names, "images")
    if reading.limit:
        files = files[: reading.limit]
        numbers = None if numbers is None else numbers[: reading.limit]
    pixels = np.stack(
        [
            _smallest(pictures.prepare(file, f"image {i}", predictor.preprocessing))
            for i, file in enumerate(tqdm(files, "images", leave=False))
        ]
    )
    return tasks.of_pixels(predictor, bind, predict, pixels, numbers, names, None, *common)


def open_source(predictor: tasks.Predictor, config: Any) -> Any:
    """The evaluation split that a config of configs/ names, for a predictor of either modality."""
    name, split, path = config.data.name, config.data.eval_split, config.data.path
    if predictor.modality == "texts":
        from fex_jax import text_data

        return text_data.open_source(name, split, path, predictor.labels)
    from fex_jax import data

    return data.open_source(name, split, path, predictor.config.image_size)


def load_task(explainer: explain.Explainer, config: Any) -> tuple[Bind, tasks.Predict, tasks.Task]:
    """bind, predict and the evaluation split of a config, as an explainer was trained to see it."""
    predictor = explainer.predictor
    predict = tasks.make_prediction(explainer.bind, predictor.params)
    protocol = metrics.PROTOCOLS[config.eval.protocol]
    text = explainer.unit, config.text.max_length, config.text.too_long
    reading = Reading(protocol, config.eval.batch_size, config.eval.num_images, *text)
    source = open_source(predictor, config)
    task = open_task(predictor, explainer.bind, predict, source, None, reading)
    return explainer.bind, predict, task


def _smallest(pixels: np.ndarray) -> np.ndarray:
    """Pixels in 0..255, as bytes where they are whole: a quarter of the memory."""
    whole = pixels.astype(np.uint8)
    return whole if (whole == pixels).all() else pixels


def _texts(predictor: tasks.Predictor, data: Any, labels: Any) -> Any:
    """A source of texts, labelled or not."""
    if hasattr(data, "rationales"):
        _no_labels(labels)
        return data
    if isinstance(data, str | pathlib.Path):
        from fex_jax import text_data

        _no_labels(labels)
        return text_data.texts_source(str(data), "all", predictor.labels)
    listed = list(data)
    if not listed:
        raise ValueError("there are no texts to score on: the list is empty")
    numbers = _numbers(labels, len(listed), predictor.labels, "texts")
    return SimpleNamespace(
        texts=listed, labels=numbers, names=predictor.labels, rationales=None, size=len(listed)
    )


def _folder(
    root: pathlib.Path, labels: Any, names: tuple[str, ...]
) -> tuple[list[pathlib.Path], np.ndarray | None, tuple[str, ...]]:
    """Files below a folder in a fixed random order; labelled if all are in class folders."""
    if not root.is_dir():
        raise ValueError(f"{root} is no folder: expected one of images, or the images themselves")
    found = sorted(
        path
        for path in root.rglob("*")
        if path.suffix.lower() in _ENDINGS and not _is_hidden(path.relative_to(root))
    )
    if not found:
        raise ValueError(f"{root} holds no images: expected {', '.join(sorted(_ENDINGS))}")
    order = np.random.default_rng(0).permutation(len(found))
    files = [found[i] for i in order]
    if labels is not None:
        numbers = _numbers(labels, len(found), names, "images")  # of the files as they are sorted
        return files, numbers[order], names
    classes = sorted({path.relative_to(root).parts[0] for path in found})
    if any(path.parent == root for path in found):
        return files, None, names
    numbers = np.array([classes.index(path.relative_to(root).parts[0]) for path in files])
    return files, numbers, tuple(classes)


def _is_hidden(path: pathlib.Path) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in path.parts)


def _numbers(labels: Any, count: int, names: tuple[str, ...], what: str) -> np.ndarray | None:
    return None if labels is None else class_numbers(labels, count, names, what)


def _count(images: Any) -> int:
    return len(pictures.as_list(images))


def _no_labels(labels: Any) -> None:
    if labels is not None:
        raise ValueError("labels came beside data that has its own: leave them out")
