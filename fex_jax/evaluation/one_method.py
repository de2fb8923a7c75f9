"""`fex_jax.attribute`: the maps of one method, of one's own images, texts or rows."""

import os
from collections.abc import Sequence
from typing import Any, Literal, get_args

import jax
import numpy as np

from fex_jax import attributions, checks, explain, host, metrics, modalities, predictors, tokens
from fex_jax.data import decode
from fex_jax.evaluation import inputs, run, tasks
from fex_jax.evaluation.methods import Given, choose, named, open_predictor, settled
from fex_jax.host.model import plain_errors
from fex_jax.modalities import images
from fex_jax.modalities.images import Explanation
from fex_jax.table_explanation import TableExplanation
from fex_jax.targets import Target, class_numbers
from fex_jax.text_explanation import TextExplanation

_OPTIONS = modalities.OPTIONS | {
    "seed": checks.integer(0, 2**32 - 1),
    "fill": checks.either(checks.number(-1e3, 1e3), checks.nothing()),
    "removal": checks.either(checks.one_of("mask", "delete"), checks.nothing()),
    "unit": checks.either(checks.one_of(*get_args(tokens.Unit)), checks.nothing()),
    "too_long": checks.one_of("refuse", "cut"),
}


@jax.enable_x64(False)
def attribute(
    method: Given,
    predictor: explain.Explainer | tasks.Predictor | host.HostPredictor | str | os.PathLike,
    things: Any,
    targets: Target | Sequence[Target] | np.ndarray | None = None,
    *,
    batch_size: int | None = None,
    seed: int = 0,
    fill: float | None = None,
    removal: str | None = None,
    unit: tokens.Unit | None = None,
    too_long: Literal["refuse", "cut"] = "refuse",
    features: host.OwnMask | host.Superpixels | None = None,
    **options: Any,
) -> Explanation | TableExplanation | list[TextExplanation]:
    """Explains by one method: attribute("kernel_shap", f, images, num_queries=500).

    A table of `evaluate` scores these very maps, where it is given the same inputs in the same
    order, batch size and seed.

    Args:
      method: a name of `fex_jax.attributions`; a function (model, inputs, targets, key, **options)
        → scores [B, N], also as "package.module:function"; or an explainer, by its name the one
        that `predictor` is, which is then called with `things`, `targets` and `options`.
      predictor: as `evaluate` takes it, or a function of images, uint8 [B, H, W, 3] →
        probabilities [B, K], which is asked about the first image for its number of classes.
      things: images, texts or a table as `Explainer` takes them; of tables the predictor is an
        explainer, which knows the columns and what removed ones become.
      targets: the class to explain, for all or for each, as a number or a label; by default the
        predicted one.
      batch_size, seed, fill, removal, unit, too_long: see `evaluate`.
      features: what is removed of arrays of any kind, or of pictures, in place of cells or of what
        `host` was given: for
        functions and host predictors, which get the things as they are. Of an explainer's maps
        of pictures, superpixels: each pixel gets the mean attribution of its own.
      options: of the method.

    Returns:
      Of images an `Explanation`: attributions and logits are both the scores [B, rows, cols], as
      the method gives them. Of texts a `TextExplanation` each.

    Raises:
      ValueError: what cannot be used, and why.
    """
    if not (callable(method) or isinstance(method, str)) or method == "all":
        raise ValueError(f"attribute takes one method, and not {method!r}; evaluate compares many")
    if not isinstance(features, host.OwnMask | host.Superpixels | None):
        raise ValueError(
            f"features is {features!r}; expected fex_jax.host.Superpixels or fex_jax.host.OwnMask"
        )
    known = explain.Explainer | host.HostPredictor | tasks.Predictor
    if not isinstance(predictor, known) and host.is_object(predictor):
        own = {"features": features} if isinstance(features, host.OwnMask) else {}
        predictor = host.open(predictor, **own)
    elif callable(predictor) and not isinstance(predictor, known):
        predictor = _of_function(predictor, things, features)
    is_function = isinstance(predictor, host.HostPredictor)
    if features is not None and is_function and not isinstance(method, explain.Explainer):
        return _of_own(method, predictor, things, targets, seed, features, options)
    predictor, explainers, _ = open_predictor(predictor, [method])
    module = tasks.of(predictor)
    batch_size = modalities.of(predictor).BATCH_SIZE if batch_size is None else batch_size
    given = {
        "batch_size": batch_size, "seed": seed, "fill": fill, "removal": removal, "unit": unit,
        "too_long": too_long,
    }  # fmt: skip
    checks.require(given, _OPTIONS, "attribute")
    fill, removal, unit = settled(explainers, fill=fill, removal=removal, unit=unit)
    if features is not None:
        if not explainers or not isinstance(features, host.Superpixels):
            raise ValueError(
                "features of one's own are for functions and what fex_jax.host makes; about an "
                "explainer, for host.Superpixels of its own maps: give other methods the function "
                f"that it explains; got {type(features).__name__} for {method}"
            )
        return _of_superpixels(
            explainers[0], things, targets, features, {"batch_size": batch_size} | options
        )
    if explainers:
        return explainers[0](things, targets, batch_size=batch_size, **options)
    if predictor.absence:
        raise ValueError(predictor.absence)
    bind = predictors.from_checkpoint(predictor, fill, removal)
    (row,) = choose([method], (), bind, predictor, {named(method)[0]: options})
    if not hasattr(module, "open_task"):
        return module.attribute(row, predictor, things, targets, batch_size, seed)
    listed = modalities.of(predictor).as_list(things)
    batch_size = min(batch_size, len(listed))  # a call, or a query, is not spent on padding
    predict = tasks.make_prediction(bind, predictor.params)
    reading = tasks.Reading(metrics.FEX, batch_size, 0, unit, 0, too_long)
    with plain_errors():
        task = inputs.open_task(predictor, bind, predict, listed, None, reading)
        if targets is not None:
            classes = class_numbers(targets, task.size, predictor.labels, predictor.modality)
            task = task._replace(targets=classes)
        scores = run.attribute(row, None, task, batch_size, seed).targets
    return module.explanations(task, scores, predictor)


def _of_superpixels(
    explainer: explain.Explainer,
    pictures: Any,
    targets: Any,
    superpixels: host.Superpixels,
    options: dict[str, Any],
) -> Explanation:
    """An explainer's maps, in each pixel their mean over its superpixel of what f sees."""
    modalities.require_images(explainer.predictor, "host.Superpixels")
    if options.setdefault("resolution", "pixel") != "pixel":
        raise ValueError(
            f"resolution is {options['resolution']!r}; maps of superpixels have a value for each "
            "pixel: leave it out"
        )
    listed, ahead = decode.as_list(pictures), options["batch_size"]
    read = images.prepared(explainer.predictor, listed, ahead)
    seen = np.rint(np.stack(list(read))).astype(np.uint8)
    found = explainer(seen, targets, **options)
    cut = superpixels.of(seen)
    maps = [host.features.means(of, one) for of, one in zip(found.attributions, cut, strict=True)]
    return found._replace(attributions=np.stack(maps))


def _of_own(
    method: Given,
    f: host.HostPredictor,
    things: Any,
    targets: Any,
    seed: int,
    features: host.OwnMask | host.Superpixels,
    options: dict[str, Any],
) -> Explanation:
    """`attribute` where features are one's own."""
    name, function = named(method)
    if name in attributions.LOOKS_INSIDE:
        raise ValueError(f"{name} looks inside the classifier, and {f.name} can only be queried")
    with plain_errors():
        model, part, show = features.bind(f, things)
        answers = np.asarray(model.predict(part))
        classes = answers.argmax(-1)
        if targets is not None:
            classes = class_numbers(targets, len(answers), f.labels, "things")
        key = jax.random.key(seed)
        keys = jax.vmap(lambda row: jax.random.fold_in(key, row))(part.rows)
        try:
            scores = function(model, part, classes.astype(np.int32), keys, **options)
        except TypeError as error:
            raise ValueError(f"{name}: {error}") from None
    maps = show(np.asarray(scores).reshape(len(answers), -1))
    return Explanation(maps, maps, classes, answers, f.labels)


def _of_function(function: Any, things: Any, features: Any) -> host.HostPredictor:
    """A function of images as a host predictor of what the first of them shows it to be."""
    if features is None:
        first = decode.decode(decode.as_list(things)[0], "image 0")
    else:
        arrays = np.asarray(things)
        if arrays.dtype.kind not in "fiub" or not len(arrays):
            raise ValueError(
                "features of a function are of numbers [B, ...], which it gets as they are: read "
                f"files first; got {type(things).__name__} of {arrays.dtype}"
            )
        first = arrays[0]
    answers = np.asarray(function(first[None]))
    if answers.ndim != 2 or len(answers) != 1:
        raise ValueError(
            f"the predictor gives {list(answers.shape)} of one image; expected [1, K], the "
            "probabilities of K classes"
        )
    labels = [f"class {i}" for i in range(answers.shape[1])]
    own = features if isinstance(features, host.OwnMask) else None
    return host.host(function, labels=labels, input=first.shape, features=own)
