"""`fex_jax.fit`: an explainer of one's own classifier from one's own data, in one call."""

import dataclasses
import difflib
import os
import pathlib
import shutil
import tempfile
import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import ml_collections
import numpy as np

from fex_jax import attributions, checks, explain, feeding, host, metrics, predictors, pretrained
from fex_jax.evaluation import tasks
from fex_jax.feeding import Source
from fex_jax.host import HostPredictor, black_box
from fex_jax.training import asking, counting
from fex_jax.training import held_out as yardstick
from fex_jax.training.explainer import Predictor, train

# What a comparison at the end measures: lower is better, higher is better.
_AREAS = {"class": ("positive_auc", "negative_auc"), "value": ("deletion", "insertion")}
_SECONDS = 20  # that the comparison at the end may take, about
_SILENT = "{} is not asked more: fex_jax.evaluate says what the explainer is worth"
_OPTIONS = {
    "epochs": checks.either(checks.number(1e-6, 1e6), checks.nothing()),
    "batch_size": checks.either(checks.integer(1, 2**24), checks.nothing()),
    "limit": checks.either(checks.integer(1, 2**62), checks.nothing()),
    "column": checks.either(checks.text(), checks.several(checks.text(), 2), checks.nothing()),
    "seed": checks.integer(0, 2**32 - 1),
    "settings": checks.either(checks.mapping(), checks.nothing()),
}


@jax.enable_x64(False)
def fit(
    predictor: str | os.PathLike | Predictor | HostPredictor,
    data: Any,
    *,
    labels: Sequence[str] | str | os.PathLike | None = None,
    backbone: str | None = None,
    queries: int | None = None,
    workdir: str | os.PathLike | None = None,
    preset: str | None = None,
    epochs: float | None = None,
    batch_size: int | None = None,
    limit: int | None = None,
    column: str | tuple[str, str] | None = None,
    groups: Mapping[str, Sequence[str]] | None = None,
    background: Any = None,
    unit: str | None = None,
    seed: int = 0,
    settings: Mapping[str, Any] | None = None,
) -> explain.Explainer:
    """Trains an explainer of a classifier, compares it on held-out items, and returns it.

    No labels are needed. A few per cent of the items are held out; on them the positive and
    negative AUC of the explainer are printed beside those of Random and Occlusion; of Shapley
    values of tables, how near they are to exact ones.

    Args:
      predictor: a Hugging Face directory or hub id, or what `fex_jax.pretrained.load` returns; or a
        black box: what `fex_jax.host` returns, a name that `fex_jax.host.open` takes, such as
        "model.onnx", or an object that it takes: a Keras model, an ONNX Runtime session, a pipeline
        of Hugging Face, or a fitted estimator or pipeline with scikit-learn's interface.
      data: of images, a folder with or without class folders, an array [B, H, W, 3] of uint8 or of
        floats in [0, 1], a list or an iterator of paths, PIL images or arrays; of texts, a list or
        an iterator of strings or of pairs of them, a .csv, .tsv, .jsonl, .parquet or .txt file, or
        a folder; of both, a table of `datasets`, pandas or Arrow, or a `Source`; of arrays, one, or
        .npy.
      labels: of a black box that `fex_jax.host.open` opens: its classes, or a file of them.
      backbone: the directory or hub id of a network that explains a classifier of images, or of a
        BERT that explains a black box of texts: docs/black_boxes.md, "What reads the inputs".
      queries: of a black box: answers that may be asked for in all; None: any number. Where
        `epochs` is None, as many epochs are trained as they suffice for.
      workdir: where checkpoints, logs and the export go; the same call continues there after an
        interruption. None: a temporary folder, which is removed at the end.
      preset: the objective: "contrast" (None), "authors" or "paper" of FEX, "fastshap", "l2x"
        or "cortx"; of tables "shapley" (None), "fastshap", "contrast", and of classifiers "paper"
        or "authors".
      epochs, batch_size: None: chosen from the number of items and the device.
      limit: items to use; None: all, of an iterator 10,000 pictures or 100,000 texts.
      column: of a table of images or texts; by default "image" or "text", or the only one. Two of
        pairs of texts; by default ("premise", "hypothesis") or ("sentence1", "sentence2").
      groups: of tables: columns that are one feature, by its name; see `fex_jax.data.tables`.
      background: of tables: rows that take the place of removed features, a table of one (a fixed
        baseline) or more, or how many are drawn from the data, None for 100; or "surrogate", a
        network that learns what f says in the mean where only some features are known.
      unit: of tables: "log-odds" (None) or "probability" of a class.
      seed: of the explainer's first parameters, and of what training draws.
      settings: others of `fex_jax.settings`, by dotted names: {"optimizer.learning_rate": 5e-5}.

    Returns:
      The explainer, as `fex_jax.load` opens it.

    Raises:
      ValueError: what cannot be used, and why.
      FloatingPointError: training diverged; with a `workdir` and a lower learning rate the same
        call continues.
      KeyboardInterrupt: Ctrl-C; the state is saved first, and it is said where.
    """
    given = {
        "epochs": epochs, "batch_size": batch_size, "limit": limit, "column": column, "seed": seed,
        "settings": settings,
    }  # fmt: skip
    checks.require(given, _OPTIONS, "fit")
    if workdir is not None:
        workdir = checks.folder(workdir, "fit: workdir").absolute()  # wherever f goes
    path, predictor = _open(predictor, labels, settings or {})
    f = None
    if isinstance(predictor, HostPredictor):
        f = predictor
        if workdir is None and not f.digest:  # nothing is kept that could be taken for another's
            f = dataclasses.replace(f, digest=f"of this process, {uuid.uuid4().hex}")
        predictor = black_box.of(f)
    elif queries is not None:
        raise ValueError("queries are counted of a black box; leave them out")
    options = {"column": column, "groups": groups, "background": background, "unit": unit}
    source, own, skipped = feeding.open_data(predictor, data, limit, **options)
    settings = own | ({"policy_backbone.path": backbone} if backbone else {}) | dict(settings or {})
    preset = preset or feeding.of(predictor).PRESET
    held_out, training = feeding.held_out(source)
    config = _configure(predictor, training, preset, epochs, batch_size, settings)
    if f is not None and queries is not None and epochs is None:
        config.batch_size = batch_size or counting.batch_size(config, f, training, queries)
        config.epochs = counting.affordable(config, f, training, queries)
    config.seed = int(seed)
    config.predictor.path = path
    _describe(config, predictor, training.size, held_out.size, skipped)

    folder = pathlib.Path(tempfile.mkdtemp(prefix="fex-") if workdir is None else workdir)
    try:
        train(config, folder, predictor if f is None else f, training, queries)
        explainer = explain.load(folder, f)
        finish(explainer, held_out, config, folder, f, queries)
    except BaseException:
        if workdir is None and any(folder.glob("checkpoints/[0-9]*")):
            print(f"the same call with workdir={str(folder)!r} continues what was begun")
        elif workdir is None:
            shutil.rmtree(folder)
        raise
    if workdir is None:
        shutil.rmtree(folder)
        print("Nothing is kept on disk: workdir= names a folder that fex_jax.load opens")
    else:
        print(f"Kept: fex_jax.load({str(workdir)!r}) opens it")
    return explainer


def _open(
    predictor: Any, labels: Any, settings: Mapping[str, Any]
) -> tuple[str, Predictor | HostPredictor]:
    """Its path, if it has one, and the predictor."""
    named = isinstance(predictor, str | os.PathLike)
    ready = isinstance(predictor, Predictor | HostPredictor)
    if host.is_name(str(predictor)) if named else not ready and host.is_object(predictor):
        options = host.parse_options(settings.get("predictor.options", "{}"))
        options |= {"labels": labels} if labels is not None else {}
        return str(predictor) if named else "", host.open(predictor, **options)
    if labels is not None:
        raise ValueError("labels are of a black box that is named; leave them out")
    if named:
        size = settings.get("predictor.image_size")
        return str(predictor), pretrained.load(str(predictor), size or None)
    if ready:
        return "", predictor
    raise ValueError(
        f"the predictor is of type {type(predictor).__name__}; expected a directory, a hub id, "
        "what fex_jax.pretrained.load returns, what fex_jax.host.open takes, or a function in "
        "fex_jax.host"
    )


def finish(
    explainer: explain.Explainer,
    held_out: Any,  # a source, of tables with `values`
    config: ml_collections.ConfigDict,
    folder: pathlib.Path,
    f: HostPredictor | None,
    queries: int | None,
) -> None:
    """Prints what the explainer is worth, if no budget forbids it."""
    if f is None:
        print(compare(explainer, held_out, config))
    elif config.predictor.bank:  # nothing is to be asked
        print(_SILENT.format(f.name))
    else:
        may = None if queries is None else asking.left_of(queries, f, folder)
        kept = black_box.recorded([explainer], f, folder, may, config.predictor.price)
        with kept as (asked,):
            box = asked.predictor
            needed = counting.at_end(config, box.removal, held_out, queries)
            if may is not None and box.f.left < needed:
                print(_SILENT.format(f.name))
            elif config.method == "shapley":  # the truth is known
                print(tasks.of(box).measure(asked, held_out.values, _SECONDS, needed))
            else:
                most = None if may is None else counting.COMPARED
                print(compare(asked, held_out, config, most))


def _configure(
    predictor: Predictor,
    source: Source,
    preset: str,
    epochs: float | None,
    batch_size: int | None,
    settings: Mapping[str, Any] | None,
) -> ml_collections.ConfigDict:
    """The preset's settings, with a batch and epochs that suit the data and the device."""
    size, kind = source.size, feeding.of(predictor)
    config = kind.SETTINGS(preset)
    if predictor.config.num_classes <= 2:
        config.objective.num_passes = 1  # an answer is one number, soon overfitted
    kind.suit(config, predictor, source)
    config.batch_size = config.batch_size if batch_size is None else int(batch_size)
    config.epochs = config.epochs if epochs is None else float(epochs)
    if kind.ONCE and size < config.batch_size:
        raise ValueError(
            f"{size} items are left to train on, fewer than a batch of {config.batch_size}: give "
            "more items" + (", or a smaller batch_size" if batch_size else "")
        )
    known = _names(config)
    for name, value in (settings or {}).items():
        if name not in known:  # it would be added, and nothing would read it
            near = ", ".join(difflib.get_close_matches(str(name), known, 3, 0.5)) or "none"
            raise ValueError(f"settings: there is no {name!r}; near are {near}")
        try:
            config.update_from_flattened_dict({name: value})
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"settings: {name}={value!r} cannot be set: {error}") from None
    return config


def _names(config: ml_collections.ConfigDict, prefix: str = "") -> list[str]:
    """The dotted names of all settings."""
    found = []
    for name, value in config.items():
        within = isinstance(value, ml_collections.ConfigDict)
        found += _names(value, f"{prefix}{name}.") if within else [prefix + name]
    return found


def _describe(
    config: ml_collections.ConfigDict, predictor: Predictor, size: int, held_out: int, skipped: str
) -> None:
    kept = yardstick.count(config.method, size)
    steps = max(1, int(config.epochs * (size - kept)) // config.batch_size)
    updates = steps * config.objective.num_updates * config.objective.num_passes
    print(
        f"{size + held_out:,} {feeding.of(predictor).THINGS}: {size - kept:,} to train on, "
        f"{held_out + kept} held out{skipped}\n"
        f"{float(f'{config.epochs:.3g}'):,g} epochs in {steps:,} batches of {config.batch_size}, "
        f"{updates:,} updates, on {jax.device_count()} {jax.default_backend()} device(s)"
    )


def compare(
    explainer: explain.Explainer,
    source: Source,
    config: ml_collections.ConfigDict,
    most: int | None = None,
) -> str:
    """Positive and negative AUC on a source's items, of the explainer, Random and Occlusion.

    Of values, deletion and insertion. Slow classifiers are asked about fewer items; of all about
    `most`, or None.
    """
    low, high = _AREAS["value" if predictors.output(explainer.predictor) == "value" else "class"]
    rivals = {"Random": attributions.random, "Occlusion": attributions.occlusion}
    params = explainer.predictor.params

    @jax.jit
    def areas(params: Any, batch: Any, classes: jax.Array, own: jax.Array, key: jax.Array) -> dict:
        model, inputs = explainer.bind(params, batch)
        maps = {"the explainer": own} | {
            name: method(model, inputs, classes, key) for name, method in rivals.items()
        }
        valid = model.valid and model.valid(inputs)
        return {
            name: metrics.areas(
                metrics.perturbation_curves(
                    model.predict,
                    model.mask,
                    inputs,
                    scores,
                    classes,
                    classes,
                    valid=valid,
                    output=model.output,
                ),
                metrics.FEX,
            )
            for name, scores in maps.items()
        }

    found, count, compiled = [], 0, 0.0
    for number, batch in enumerate(
        feeding.of(explainer.predictor).in_order(explainer.predictor, source, config)
    ):
        late = count >= 8 and time.monotonic() - compiled > _SECONDS
        if late or (most is not None and count >= most):
            break
        classes = np.asarray(explainer.answers(batch)).argmax(-1)
        own = explainer.attribute(batch, classes[:, None])[:, 0]
        key = jax.random.fold_in(jax.random.key(config.seed), number)
        found.append(jax.device_get(areas(params, batch, classes, own, key)))
        count += len(classes)
        compiled = compiled or time.monotonic()
    if not found:
        return "The explainer is compared with nothing: so few items leave none to hold out"
    joined = jax.tree.map(lambda *parts: np.concatenate(parts), *found)
    words = [name.removesuffix("_auc") for name in (low, high)]
    kind = " AUC" if low.endswith("_auc") else ""
    lines = [
        f"On {count} held-out items ({words[0]}{kind}: lower is better; {words[1]}: higher):",
        *(
            f"  {name:13s} {words[0]} {of[low].mean():.3f}  {words[1]} {of[high].mean():.3f}"
            for name, of in joined.items()
        ),
    ]
    own = joined.pop("the explainer")
    for name, of in joined.items():
        gains = of[low] - own[low], own[high] - of[high]
        verdicts = [_verdict(gain) for gain in gains]
        lines.append(
            f"The explainer {verdicts[0]} {name} in {words[0]}{kind} and {verdicts[1]} it in "
            f"{words[1]}."
        )
        if name == "Random" and "beats" not in verdicts:
            lines.append("WARNING: it has not learned to explain: give it more items or epochs.")
    return "\n".join(lines)


def _verdict(gain: np.ndarray) -> str:
    """Whether paired differences are more than two standard errors from 0."""
    error = gain.std(ddof=1) / np.sqrt(len(gain)) if len(gain) > 1 else np.inf
    if abs(gain.mean()) <= 2 * error:
        return "is level with"
    return "beats" if gain.mean() > 0 else "is behind"
