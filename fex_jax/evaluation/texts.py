"""What methods are compared on, of texts: documents as the classifier sees them."""

import os
import pathlib
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from fex_jax import explain, metrics, page, plotting, report, tokens
from fex_jax.evaluation import tasks
from fex_jax.evaluation.cache import Result
from fex_jax.evaluation.inputs import no_classes, numbers
from fex_jax.evaluation.tasks import Reading
from fex_jax.feeding import text_files
from fex_jax.feeding.given import Named, from_table
from fex_jax.modalities import texts
from fex_jax.predictors import Bind, Model
from fex_jax.text_explanation import TextExplanation

if TYPE_CHECKING:
    from fex_jax.evaluation.table import Table

PIXELS = False
_TOP_WORDS = 10


def open_task(
    predictor: tasks.Predictor,
    bind: Bind,
    predict: tasks.Predict,
    data: Any,
    true_classes: Sequence[int | str] | np.ndarray | None,
    reading: Reading,
) -> tasks.Task:
    """Texts as a list, a file, folder or table, or a source of `fex_jax.text_data`; all in one
    length, the bucket of the longest.
    """
    source = _source(predictor, data, true_classes, reading.column)
    window = predictor.config.max_length
    lengths, split = tokens.within(
        source.texts[: reading.limit or None],
        predictor.tokenizer,
        min(reading.max_length or window, window),
        reading.unit,
        reading.too_long,
    )
    inputs = tokens.collate(split, int(lengths.max()), predictor.tokenizer)
    documents = []
    for i, part in enumerate(split):
        text = part.string if part.pair else part.string[: part.spans[-1, 1]]
        marked = source.rationales and source.rationales[i][: len(text.split())]
        documents.append(tasks.Document(text, part.spans, marked, part.pair or text, part.second))
    known = None if source.classes is None else source.classes[: len(split)]
    found = tasks.answers(predictor, predict, inputs, known, source.names, reading)
    return tasks.Task(grid=inputs.ids.shape[1:], documents=documents, **found)


def explanations(
    task: tasks.Task, scores: np.ndarray, predictor: tasks.Predictor
) -> list[TextExplanation]:
    """Scores [n, N] as words with scores."""
    return [
        TextExplanation(
            document.text,
            document.spans,
            scores[i, : len(document.spans)],
            int(task.targets[i]),
            task.probabilities[i],
            predictor.labels,
            num_windows=1,
            additive=True,
            second=document.second,
        )
        for i, document in enumerate(task.documents)
    ]


def perturbed(
    predictor: tasks.Predictor,
    protocol: metrics.Protocol,
    model: Model,
    inputs: Any,
    scores: jax.Array,
    targets: jax.Array,
) -> tuple[Callable, jax.Array, dict[str, jax.Array]]:
    """Words as they are; what ERASER measures, and f's classes as words are inserted."""
    given = model.predict, model.mask, inputs, scores
    valid = model.valid(inputs)
    found = {"inserted": metrics.insertion_predictions(*given, valid)}
    erasure = metrics.erasure(*given, targets, valid)
    found |= {name: values.mean(-1) for name, values in erasure._asdict().items()}  # AOPC
    return model.mask, scores, found


def scored(task: tasks.Task, predictor: tasks.Predictor, unit: str) -> str:
    """What scores are of."""
    return f"{unit}s, in texts of up to {task.grid[0]} tokens"


def written(task: tasks.Task) -> dict[str, np.ndarray]:
    """The inputs, for methods from elsewhere."""
    found = task.inputs._asdict()
    del found["raw"]  # the texts say it
    if found["types"] is None:
        del found["types"]
    return {"texts": np.array([document.text for document in task.documents])} | found


def draw(directory: pathlib.Path, table: "Table", name: str) -> None:
    """top_words.png, of labelled texts: f's classes as words are inserted."""
    if panels := report.by_top(table.results):
        plotting.curves_by_top(directory / "top_words.png", panels, metrics.TOP, name)


def gallery_items(
    explainer: explain.Explainer, task: tasks.Task, results: dict[str, list[Result]], count: int
) -> list[page.TextItem]:
    """The first texts with their two most probable classes, and every method's highest words."""
    documents = task.documents[:count]
    given = [document.given for document in documents]
    both = [explainer(given, classes[: len(given)]) for classes in (task.targets, task.second)]
    found = next(iter(results.values()))[0][1]

    def strongest(scores: np.ndarray, document: tasks.Document) -> str:
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


def _source(predictor: tasks.Predictor, data: Any, true_classes: Any, column: Named) -> Any:
    """A source of texts, labelled or not."""
    if hasattr(data, "rationales"):
        no_classes(true_classes)
        return data
    if isinstance(data, str | os.PathLike):
        from fex_jax import text_data

        if true_classes is not None:
            raise ValueError("true_classes came beside a file: write them into its column label")
        return text_data.texts_source(str(data), "all", predictor.labels, column)
    listed = texts.as_list(from_table(data, column, texts.COLUMNS, text_files.PAIRS))
    known = numbers(true_classes, len(listed), predictor.labels, "texts")
    return SimpleNamespace(
        texts=listed, classes=known, names=predictor.labels, rationales=None, size=len(listed)
    )
