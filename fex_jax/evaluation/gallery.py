"""Pictures of a comparison: curves, maps side by side, and a gallery of the first inputs."""

import pathlib
from typing import TYPE_CHECKING

import jax
import numpy as np

from fex_jax import explain, metrics, page, plotting, report
from fex_jax.evaluation.cache import Result
from fex_jax.evaluation.tasks import Document, Task

if TYPE_CHECKING:
    from fex_jax.evaluation.table import Table

_GALLERY_ITEMS = 16
_GRID_ITEMS = 6
_TOP_WORDS = 10


def write(path: pathlib.Path, table: "Table", name: str) -> None:
    """gallery.html: the first inputs with what explains their two most probable classes."""
    items = _image_items if table.task.documents is None else _text_items
    of = f" on {name}" if name else ""
    page.gallery(
        path,
        items(table.explainers[0], table.task, table.results),
        _fractions(table.protocol),
        f"{next(iter(table.results)).upper()}{of}",
        table.facts,
        report.quality(table.methods),
        "Value" if table.predictor.output == "value" else "Probability",
    )


def draw(directory: pathlib.Path, table: "Table", name: str) -> None:
    """curves.png, but for values, and probabilities.png; maps.png, or of texts top_words.png."""
    task, fractions = table.task, _fractions(table.protocol)
    drawn = [
        ("curves", "correct", "Unchanged predictions"),
        ("probabilities", "probability", "Probability of the explained class"),
    ]
    if table.predictor.output == "value":
        drawn = [("probabilities", "probability", "Explained value")]
    for file, field, ylabel in drawn:
        means = {
            method: {
                direction: np.mean([found[f"{direction}_{field}"].mean(0) for _, found in runs], 0)
                for direction in fractions
            }
            for method, runs in table.results.items()
        }
        plotting.curves(directory / f"{file}.png", means, fractions, name, ylabel)
    if task.documents is None:
        shown = slice(0, min(_GRID_ITEMS, task.size))
        maps = {}
        for method, runs in table.results.items():
            scores = runs[0][0].targets[shown].reshape(-1, *task.grid)
            maps[method] = np.asarray(jax.nn.sigmoid(scores)) if method in table.logits else scores
        labels = [table.predictor.labels[target] for target in task.targets[shown]]
        plotting.comparison(directory / "maps.png", _images(task, shown), labels, maps)
    elif panels := report.by_top(table.results):
        plotting.curves_by_top(directory / "top_words.png", panels, metrics.TOP, name)


def write_inputs(path: pathlib.Path, task: Task) -> None:
    """What a method from elsewhere needs: images, or texts with their features, and classes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if task.documents is None:
        np.savez(path, images=task.inputs, targets=task.targets)
    else:
        texts = np.array([document.text for document in task.documents])
        arrays = task.inputs._asdict()
        del arrays["raw"]  # the texts say it
        if arrays["types"] is None:
            del arrays["types"]
        np.savez(path, texts=texts, targets=task.targets, **arrays)


def _fractions(protocol: metrics.Protocol) -> dict[str, tuple[float, ...]]:
    return {"positive": protocol.fractions, "negative": protocol.negative_fractions}


def _images(task: Task, shown: slice) -> np.ndarray:
    return np.rint(task.inputs[shown]).astype(np.uint8)


def _image_items(
    explainer: explain.Explainer, task: Task, results: dict[str, list[Result]]
) -> list[page.GalleryItem]:
    """The first images with the maps of their two most probable classes."""
    images = _images(task, slice(0, _GALLERY_ITEMS))
    found = next(iter(results.values()))[0][1]
    result = explainer(images, top_k=min(2, len(explainer.predictor.labels)))
    return [
        page.GalleryItem(
            image=images[i],
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
        for i in range(len(images))
    ]


def _text_items(
    explainer: explain.Explainer, task: Task, results: dict[str, list[Result]]
) -> list[page.TextItem]:
    """The first texts with their two most probable classes, and every method's highest words."""
    documents = task.documents[:_GALLERY_ITEMS]
    texts = [document.given for document in documents]
    both = [explainer(texts, classes[: len(texts)]) for classes in (task.targets, task.second)]
    found = next(iter(results.values()))[0][1]

    def strongest(scores: np.ndarray, document: Document) -> str:
        order = np.argsort(-scores[: len(document.spans)], kind="stable")[:_TOP_WORDS]
        return ", ".join(document.text[a:b] for a, b in document.spans[order])

    return [
        page.TextItem(
            label=task.label(i),
            explanations=explanations,
            positive=found["positive_probability"][i],
            negative=found["negative_probability"][i],
            strongest={
                name: strongest(runs[0][0].targets[i], document) for name, runs in results.items()
            },
        )
        for i, (document, explanations) in enumerate(
            zip(documents, zip(*both, strict=True), strict=True)
        )
    ]
