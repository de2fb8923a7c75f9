"""What attribution methods are compared on: inputs, f's answers, and what is known of them.

Shapes: n inputs, N features, P pairs of classes, T tokens.
"""

import functools
import logging
from collections.abc import Callable
from types import ModuleType
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from fex_jax import metrics, modalities, sharding, tokens
from fex_jax.answers import ask, log_odds
from fex_jax.export import Predictor
from fex_jax.predictors import Bind
from fex_jax.targets import match_classes

_log = logging.getLogger(__name__)
By = Literal["name", "position"]  # how the data's classes are found among the predictor's
Predict = Callable[[Any], jax.Array]  # inputs of a task [B, ...] → f(x) [B, K]


class Reading(NamedTuple):
    """How inputs are read."""

    protocol: metrics.Protocol
    batch_size: int
    limit: int  # the first so many; 0: all
    unit: tokens.Unit  # of texts: what a feature is
    max_length: int  # of texts, in tokens; 0: the classifier's window
    too_long: str  # of texts beyond it: "refuse" or "cut"
    classes_by: By = "name"  # how the data's classes are found among the predictor's
    column: str | tuple[str, str] | None = None  # of a table of texts; see `feeding.given.choose`


class Document(NamedTuple):
    """A text as the classifier sees it: cut to the window."""

    text: str
    spans: np.ndarray  # [features, 2] where each feature begins and ends in the text
    rationale: np.ndarray | None  # bool for every word of `text.split()`: what people marked
    given: str | tuple[str, str]  # the text, or the pair of which it is both lines
    second: int = 0  # first feature of a pair's second text


class Task(NamedTuple):
    """n inputs to explain, what f says of them, and what is known of them."""

    inputs: Any  # pixels [n, H, W, 3] in 0..255, or a TokenBatch of n texts
    grid: tuple[int, ...]  # how the N features lie: (rows, columns) of patches, or (N,)
    true_classes: np.ndarray | None  # [n] in the data's own numbers; None: unknown
    names: tuple[str, ...]  # of the data's classes
    known: np.ndarray | None  # [n] the same in the predictor's numbers; None: other classes
    accuracy: float | None  # of f; None where it cannot be known
    targets: np.ndarray  # [n] the most probable class, which is explained
    second: np.ndarray  # [n] the class after it
    reference: np.ndarray  # [n] the class that counts as correct
    segmentation: np.ndarray | None = None  # [n, H, W] 0 or 1 + class of the object at each pixel
    pairs: np.ndarray = np.zeros(0, int)  # [P] scenes that show just the two most probable classes
    agreed: np.ndarray = np.zeros(0, bool)  # [P] of them, where f finds each class on its object
    documents: list[Document] | None = None  # of texts
    probabilities: np.ndarray | None = None  # [n, K] f(x)

    @property
    def size(self) -> int:
        """n."""
        return len(self.targets)

    def label(self, i: int) -> str:
        """The name of an input's true class; empty if it is unknown."""
        return "" if self.true_classes is None else self.names[self.true_classes[i]]


def of(predictor: Predictor) -> ModuleType:
    """The module of what a predictor takes, here beside this one, or of `modalities`.

    Where inputs are scored by what becomes of f's answer, it has

        open_task(predictor, bind, predict, data, true_classes, reading) -> Task
        explanations(task, scores, predictor) -> scores [n, N] as `Explainer` would return them
        PIXELS: whether a protocol may remove pixels
        scored(task, predictor, unit) -> in words, what scores are of

    and, if features are removed otherwise than `Model.mask` does, or more is measured,

        perturbed(predictor, protocol, model, inputs, scores, targets) -> mask and scores of the
            protocol's features, and statistics of this modality alone

    and, if its inputs are no array,

        written(task) -> those of a file, for methods from elsewhere

    and, if it has pictures to show,

        draw(directory, table, name): some of its own
        gallery_items(explainer, task, results, count) -> the first things, for `page.gallery`

    and where not, as of tables, `attribute`, `evaluate` and `measure`.
    """
    return modalities.named(predictor.modality, __package__)


def answers(
    predictor: Predictor,
    predict: Predict,
    inputs: Any,
    true_classes: np.ndarray | None,
    names: tuple[str, ...],
    reading: Reading,
) -> dict[str, Any]:
    """What a task of any kind holds, of inputs and their true classes, numbers of `names`.

    Raises:
      ValueError: a protocol that needs true classes, and classes that are not the predictor's.
    """
    protocol, by = reading.protocol, reading.classes_by
    classes = None if true_classes is None else match_classes(names, predictor.labels, by)
    if true_classes is None and protocol.reference == "label":
        raise ValueError(
            f"protocol {protocol.name} needs true classes, but there are none; use fex"
        )
    if true_classes is not None and classes is None:
        if protocol.reference == "label":
            raise ValueError(
                f"protocol {protocol.name} needs true classes, but those of the data have not the "
                "names of the predictor's: rename them, use --config.eval.match_classes=position "
                "where they have its order, or --config.eval.protocol=fex"
            )
        _log.warning("the data's classes have not the names of the predictor's: accuracy unknown")
    size = min(reading.batch_size, len(jax.tree.leaves(inputs)[0]))  # no query is spent on padding
    probabilities = in_batches(predict, inputs, size, "predictions")
    pair = np.argsort(-probabilities, -1, kind="stable")[:, :2]
    known = None if classes is None else classes[true_classes]
    return {
        "inputs": inputs,
        "true_classes": true_classes,
        "names": names,
        "known": known,
        "accuracy": None if known is None else float((known == pair[:, 0]).mean()),
        "targets": pair[:, 0],
        "second": pair[:, -1],
        "reference": known if protocol.reference == "label" else pair[:, 0],
        "probabilities": probabilities,
    }


def agreement(task: Task, bind: Bind, params: Any, batch_size: int) -> np.ndarray:
    """Of scenes with two objects, whether f itself finds each class on its own object: bool [P].

    That is, c_y(m) = h(m⊙x) − h((1−m)⊙x), the score FEX maximises, with h the log-odds of f_y, is
    larger of the patches of y's object than of the other's, for both classes y. A patch belongs to
    the object that has most of its pixels. Where f takes a class from the other object, as a shirt
    from a T-shirt, a map that prefers the class's own object is not faithful.
    """

    @jax.jit
    def own(params: Any, batch: Any, classes: jax.Array, scenes: jax.Array) -> jax.Array:
        model, inputs = bind(params, batch)
        shown = scenes[..., None] == 1 + classes.T[:, :, None, None, None]  # [2, B, S, S, 1]
        pixels = jnp.stack([model.pool(mask.astype(int), inputs) for mask in shown])  # [2, B, N]
        masks = (pixels > 0) & (pixels == pixels.max(0))
        h = log_odds(ask(model.predict, model.mask, inputs, classes, jnp.stack([*masks, *~masks])))
        contrast = h[:2] - h[2:]  # [objects, B, classes]
        own_a = contrast[0, :, 0] > contrast[1, :, 0]
        return own_a & (contrast[1, :, 1] > contrast[0, :, 1])

    classes, params = np.stack([task.targets, task.second], 1), sharding.copied(params)
    both = (x[task.pairs] for x in (task.inputs, classes, task.segmentation))
    return in_batches(lambda rows: own(params, *rows), tuple(both), batch_size, "two objects")


def make_prediction(bind: Bind, params: Any) -> Predict:
    """predict(inputs of a task) → f(x) [B, K], jitted: once for all that ask."""

    @jax.jit
    def predict(params: Any, batch: Any) -> jax.Array:
        model, inputs = bind(params, batch)
        return model.predict(inputs)

    return functools.partial(predict, sharding.copied(params))


def in_batches(call: Callable[..., Any], arrays: Any, batch_size: int, title: str) -> Any:
    """call(rows of arrays) → arrays, over all rows of a pytree of arrays [n, ...]; with a bar.

    The last batch is filled up with rows from the start, so that every batch has one shape, and
    what they gave is dropped.
    """
    count = len(jax.tree.leaves(arrays)[0])
    parts = []
    for start in tqdm(range(0, count, batch_size), title, unit="batch", leave=False):
        rows = np.arange(start, start + batch_size) % count
        found = call(sharding.spread(jax.tree.map(lambda x, rows=rows: x[rows], arrays)))
        parts.append(jax.tree.map(lambda x, kept=count - start: np.asarray(x)[:kept], found))
    return jax.tree.map(lambda *arrays: np.concatenate(arrays), *parts)


def object_masks(segmentation: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Pixels of each image's explained class, or of all objects where it is not in the scene."""
    own = segmentation == 1 + classes[:, None, None]
    return np.where(own.any((1, 2), keepdims=True), own, segmentation > 0)


def both_shown(segmentation: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Whether a scene shows just the two classes that rank first: [B, 2] → bool [B]."""
    shown = [set(np.unique(scene)) - {0} for scene in segmentation]
    return np.array([classes == set(pair + 1) for classes, pair in zip(shown, pairs, strict=True)])
