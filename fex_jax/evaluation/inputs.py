"""What people have to score methods on, as a task: arrays, lists, folders, sources."""

import os
import pathlib
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from fex_jax import explain, feeding, metrics, tokens
from fex_jax.data import decode, folders
from fex_jax.evaluation import tasks
from fex_jax.modalities import images, texts
from fex_jax.predictors import Bind
from fex_jax.targets import class_numbers


class Reading(NamedTuple):
    """How inputs are read."""

    protocol: metrics.Protocol
    batch_size: int
    limit: int  # the first so many; 0: all
    unit: tokens.Unit  # of texts: what a feature is
    max_length: int  # of texts, in tokens; 0: the classifier's window
    too_long: str  # of texts beyond it: "refuse" or "cut"
    classes_by: tasks.By = "name"  # how the data's classes are found among the predictor's


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
    if isinstance(data, str) and not data.strip():
        raise ValueError(f"the data is {data!r}; expected the path of a file or a folder")
    common, by = (reading.protocol, reading.batch_size), reading.classes_by
    if predictor.modality == "texts":
        options = {name: getattr(reading, name) for name in ("max_length", "unit", "too_long")}
        source = _texts(predictor, data, labels)
        return tasks.of_texts(predictor, predict, source, *common, reading.limit, by, **options)
    if hasattr(data, "records"):
        _no_labels(labels)
        return tasks.of_images(predictor, bind, predict, data, *common, reading.limit, by)
    names = predictor.labels
    if isinstance(data, str | os.PathLike):
        files, numbers, names = _folder(pathlib.Path(data).expanduser(), labels, names)
    else:
        files = decode.as_list(data)
        numbers = _numbers(labels, len(files), names, "images")
    if reading.limit:
        files = files[: reading.limit]
        numbers = None if numbers is None else numbers[: reading.limit]
    bar = tqdm(
        images.prepared(predictor, files, images.BATCH_SIZE), "images", len(files), leave=False
    )
    pixels = np.stack([picture.astype(np.uint8) for picture in bar])
    return tasks.of_pixels(predictor, bind, predict, pixels, numbers, names, None, *common, by)


def load_task(explainer: explain.Explainer, config: Any) -> tuple[Bind, tasks.Predict, tasks.Task]:
    """bind, predict and the evaluation split of a config, as an explainer was trained to see it."""
    predictor = explainer.predictor
    predict = tasks.make_prediction(explainer.bind, predictor.params)
    protocol = metrics.PROTOCOLS[config.eval.protocol]
    text = explainer.unit, config.text.max_length, config.text.too_long
    size, limit = config.eval.batch_size, config.eval.num_images
    reading = Reading(protocol, size, limit, *text, config.eval.match_classes)
    source = feeding.of(predictor).open_source(predictor, config, config.data.eval_split)
    task = open_task(predictor, explainer.bind, predict, source, None, reading)
    return explainer.bind, predict, task


def _texts(predictor: tasks.Predictor, data: Any, labels: Any) -> Any:
    """A source of texts, labelled or not."""
    if hasattr(data, "rationales"):
        _no_labels(labels)
        return data
    if isinstance(data, str | os.PathLike):
        from fex_jax import text_data

        _no_labels(labels)
        return text_data.texts_source(str(data), "all", predictor.labels)
    listed = texts.as_list(data)
    numbers = _numbers(labels, len(listed), predictor.labels, "texts")
    return SimpleNamespace(
        texts=listed, labels=numbers, names=predictor.labels, rationales=None, size=len(listed)
    )


def _folder(
    root: pathlib.Path, labels: Any, names: tuple[str, ...]
) -> tuple[list[pathlib.Path], np.ndarray | None, tuple[str, ...]]:
    """Pictures of a folder in a fixed random order; labelled if all are in class folders.

    Labels that are given are of the pictures in the order of their paths.
    """
    if not root.is_dir():
        raise ValueError(f"{root} is no folder: expected one of images, or the images themselves")
    files = sorted(path for path in root.rglob("*") if _is_picture(path.relative_to(root)))
    numbers = _numbers(labels, len(files), names, "images")
    if numbers is None and not any(path.parent == root for path in files):
        classes = folders.class_files(root, decode.SUFFIXES)
        names = tuple(classes)
        files = [file for listed in classes.values() for file in listed]
        numbers = np.repeat(np.arange(len(classes)), list(map(len, classes.values())))
    order = np.random.default_rng(0).permutation(len(files))
    return [files[i] for i in order], None if numbers is None else numbers[order], names


def _is_picture(path: pathlib.Path) -> bool:
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in path.parts)
    return path.suffix.lower() in decode.SUFFIXES and not hidden


def _numbers(labels: Any, count: int, names: tuple[str, ...], what: str) -> np.ndarray | None:
    if labels is None:
        return None
    try:
        return class_numbers(labels, count, names, what)
    except ValueError as error:
        raise ValueError(f"labels: {error}") from None


def _no_labels(labels: Any) -> None:
    if labels is not None:
        raise ValueError("labels came beside data that has its own: leave them out")
