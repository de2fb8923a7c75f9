"""What attribution methods are compared on: inputs, f's answers, and what is known of them.

Shapes: n inputs, N features, P pairs of classes, T tokens.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import ml_collections
import numpy as np
from tqdm import tqdm

from fex_jax import data, metrics, predictors, pretrained, text_data

Predictor = pretrained.Checkpoint | pretrained.TextCheckpoint
Bind = Callable[[Any, Any], tuple[predictors.Model, Any]]  # `predictors.from_checkpoint`


class Document(NamedTuple):
    """A text as the classifier sees it: cut to the window."""

    text: str
    spans: np.ndarray  # [features, 2] where each feature begins and ends in the text
    rationale: np.ndarray | None  # bool for every word of `text.split()`: what people marked


class Task(NamedTuple):
    """n inputs to explain, what f says of them, and what is known of them."""

    inputs: Any  # images [n, S, S, 3] uint8, or a TokenBatch of n texts
    labels: np.ndarray  # [n] in the data's own numbers
    names: tuple[str, ...]  # of the data's classes
    accuracy: float | None  # of f; None where it cannot be known
    targets: np.ndarray  # [n] the most probable class, which is explained
    second: np.ndarray  # [n] the class after it
    reference: np.ndarray  # [n] the class that counts as correct
    segmentation: np.ndarray | None = None  # [n, S, S] 0 or 1 + class of the object at each pixel
    pairs: np.ndarray = np.zeros(0, int)  # [P] scenes that show just the two most probable classes
    documents: list[Document] | None = None  # of texts
    known: np.ndarray | None = None  # [n] the labels in the predictor's numbers

    @property
    def size(self) -> int:
        """n."""
        return len(self.targets)


def load(
    predictor: Predictor,
    bind: Bind,
    config: ml_collections.ConfigDict,
    protocol: metrics.Protocol,
) -> Task:
    """The config's evaluation split with the predictor's answers.

    Raises:
      ValueError: data that cannot be opened, or a protocol that needs labels that there are not.
    """
    is_text = isinstance(predictor, pretrained.TextCheckpoint)
    inputs, labels, names, more = (_texts if is_text else _images)(predictor, config)
    classes = match_classes(names, predictor.labels)
    if classes is None and protocol.reference == "label":
        raise ValueError(
            f"protocol {protocol.name} needs labels, but the classes of {config.data.name} are not "
            "the predictor's; use --config.eval.protocol=fex"
        )
    prediction = make_prediction(bind)
    probabilities = in_batches(
        lambda batch: prediction(predictor.params, batch),
        inputs,
        config.eval.batch_size,
        "predictions",
    )
    pair = np.argsort(-probabilities, -1, kind="stable")[:, :2]
    known = None if classes is None else classes[labels]
    segmentation = more.get("segmentation")
    if segmentation is not None:  # a scene's prediction is right if it names any of its objects
        right = (segmentation == 1 + pair[:, :1, None]).any((1, 2))
        if pair.shape[1] == 2:
            more["pairs"] = np.flatnonzero(both_shown(segmentation, pair))
    else:
        right = None if known is None else known == pair[:, 0]
    return Task(
        inputs=inputs,
        labels=labels,
        names=names,
        accuracy=None if right is None else float(right.mean()),
        targets=pair[:, 0],
        second=pair[:, -1],
        reference=known if protocol.reference == "label" else pair[:, 0],
        known=known,
        **more,
    )


def make_prediction(bind: Bind) -> Callable[[Any, Any], jax.Array]:
    """prediction(params, batch) → f(x) [B, K], jitted."""

    @jax.jit
    def prediction(params: Any, batch: Any) -> jax.Array:
        model, inputs = bind(params, batch)
        return model.predict(inputs)

    return prediction


def in_batches(call: Callable[..., Any], arrays: Any, batch_size: int, title: str) -> Any:
    """call(rows of arrays) → arrays, over all rows of a pytree of arrays [n, ...]; with a bar.

    The last batch is filled up with rows from the start, so that every batch has one shape, and
    what they gave is dropped.
    """
    count = len(jax.tree.leaves(arrays)[0])
    parts = []
    for start in tqdm(range(0, count, batch_size), title, unit="batch", leave=False):
        rows = np.arange(start, start + batch_size) % count
        found = call(jax.tree.map(lambda x, rows=rows: x[rows], arrays))
        parts.append(jax.tree.map(lambda x, kept=count - start: np.asarray(x)[:kept], found))
    return jax.tree.map(lambda *arrays: np.concatenate(arrays), *parts)


def _images(
    predictor: pretrained.Checkpoint, config: ml_collections.ConfigDict
) -> tuple[np.ndarray, np.ndarray, tuple[str, ...], dict]:
    """Pixels, labels, their names, and masks where the data has them."""
    size = config.eval.batch_size
    source = data.open_source(
        config.data.name, config.data.eval_split, config.data.path, predictor.config.image_size
    )
    total = min(config.eval.num_images or source.size, source.size)
    stream = data.eval_stream(source, predictor.preprocessing, size, limit=total)
    batches = list(tqdm(stream, "images", -(-total // size), leave=False))
    arrays = {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}
    more = {"segmentation": arrays["segmentation"]} if "segmentation" in arrays else {}
    return arrays["image"], arrays["label"], source.labels, more


def _texts(
    predictor: pretrained.TextCheckpoint, config: ml_collections.ConfigDict
) -> tuple[Any, np.ndarray, tuple[str, ...], dict]:
    """A TokenBatch of the length that the longest text needs, labels, names, and documents."""
    source = text_data.open_source(
        config.data.name, config.data.eval_split, config.data.path, predictor.labels
    )
    window = predictor.config.max_length
    inputs, texts = text_data.one_batch(
        source,
        predictor.tokenizer,
        min(config.text.max_length or window, window),
        unit=config.text.unit,
        too_long=config.text.too_long,
        limit=config.eval.num_images or None,
    )
    documents = []
    for i, part in enumerate(texts):
        text = source.texts[i][: part.spans[-1, 1]]
        marked = source.rationales and source.rationales[i][: len(text.split())]
        documents.append(Document(text, part.spans, marked))
    return inputs, source.labels[: len(texts)], source.names, {"documents": documents}


def match_classes(names: tuple[str, ...], labels: tuple[str, ...]) -> np.ndarray | None:
    """The predictor's class for each label of the data: the same name, or else the same number.

    None where neither can be: other names, and not as many.
    """
    if set(names) <= set(labels):
        return np.array([labels.index(name) for name in names])
    return np.arange(len(names)) if len(names) == len(labels) else None


def object_masks(segmentation: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Pixels of each image's explained class, or of all objects where it is not in the scene."""
    own = segmentation == 1 + classes[:, None, None]
    return np.where(own.any((1, 2), keepdims=True), own, segmentation > 0)


def both_shown(segmentation: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Whether a scene shows just the two classes that rank first: [B, 2] → bool [B]."""
    shown = [set(np.unique(scene)) - {0} for scene in segmentation]
    return np.array([classes == set(pair + 1) for classes, pair in zip(shown, pairs, strict=True)])
