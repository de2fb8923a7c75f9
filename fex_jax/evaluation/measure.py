"""What scores are worth: perturbation curves, segmentation, pairs of classes, rationales."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fex_jax import metrics, sharding
from fex_jax.evaluation.run import Scores
from fex_jax.evaluation.tasks import Predictor, Task, in_batches, object_masks, of
from fex_jax.predictors import Bind


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
    module = of(predictor)
    takes = module.PIXELS and predictor.inside
    if not takes and (protocol.unit == "pixel" or protocol.fill == "black"):
        what = "black boxes" if module.PIXELS else predictor.modality
        raise ValueError(f"protocol {protocol.name} removes pixels; {what} take fex or authors")

    @jax.jit
    def perturb(params: Any, batch: Any, scores, targets, reference):
        model, inputs = bind(params, batch)
        valid = model.valid and model.valid(inputs)
        mask, found = model.mask, {}
        if hasattr(module, "perturbed"):
            given = predictor, protocol, model, inputs, scores, targets
            mask, scores, found = module.perturbed(*given)
        curves = metrics.perturbation_curves(
            model.predict, mask, inputs, scores, targets, reference, protocol, valid, model.output
        )
        found |= metrics.areas(curves, protocol)
        if model.output == "value":  # which has no prediction that could stand
            found = {k: x for k, x in found.items() if not k.endswith(("_auc", "_correct"))}
        for direction in ("positive", "negative"):
            for field, values in getattr(curves, direction)._asdict().items():
                found[f"{direction}_{field}"] = values
        return found

    return functools.partial(perturb, sharding.copied(predictor.params))


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
