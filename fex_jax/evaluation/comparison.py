"""`fex_jax.evaluate`: attribution methods compared on one's own predictor and data."""

import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from fex_jax import checks, explain, host, metrics, modalities, predictors, tokens
from fex_jax.evaluation import cache, fingerprint, gallery, inputs, measure, run, tasks
from fex_jax.evaluation.methods import (
    Given,
    check_comparable,
    check_rows,
    choose,
    open_predictor,
    settled,
)
from fex_jax.evaluation.table import Table, describe

_OPTIONS = modalities.OPTIONS | {
    "protocol": checks.one_of(*metrics.PROTOCOLS),
    "limit": checks.integer(0, 2**62),
    "seed": checks.integer(0, 2**32 - 1),
    "fill": checks.either(checks.number(-1e3, 1e3), checks.nothing()),
    "removal": checks.either(checks.one_of("mask", "delete"), checks.nothing()),
    "unit": checks.either(checks.one_of(*get_args(tokens.Unit)), checks.nothing()),
    "max_length": checks.integer(0, 2**20),
    "too_long": checks.one_of("refuse", "cut"),
    "classes_by": checks.one_of(*get_args(tasks.By)),
    "write_inputs": checks.flag(),
    "column": checks.either(checks.text(), checks.several(checks.text(), 2), checks.nothing()),
    "options": checks.mapping(),
    "scores": checks.mapping(),
}


@jax.enable_x64(False)
def evaluate(
    methods: Sequence[Given] | Given,
    predictor: explain.Explainer | tasks.Predictor | host.HostPredictor | str | os.PathLike,
    data: Any,
    true_classes: Sequence[int | str] | np.ndarray | None = None,
    *,
    column: str | tuple[str, str] | None = None,
    workdir: str | os.PathLike | None = None,
    protocol: str = "fex",
    limit: int = 0,
    batch_size: int | None = None,
    seed: int = 0,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    refine: int = 0,
    scores: Mapping[str, str | pathlib.Path] | None = None,
    fill: float | None = None,
    removal: str | None = None,
    unit: tokens.Unit | None = None,
    max_length: int = 0,
    too_long: Literal["refuse", "cut"] = "refuse",
    classes_by: tasks.By = "name",
    write_inputs: bool = False,
    labels: Sequence[int | str] | np.ndarray | None = None,
) -> Table:
    """Scores methods on the same inputs: what their maps are worth, and what they cost.

    Args:
      methods: each a name of `fex_jax.attributions` ("all" for all), a function (model, inputs,
        targets, key, **options) → scores [B, N], also as "package.module:function", or an
        explainer; by its name, as "fex", the one that `predictor` is. Several explainers of one
        name are its seeds.
      predictor: a classifier, an explainer of it, where to find one of them, or an object that
        `fex_jax.host.open` takes, as a pipeline of Hugging Face. Of a host predictor features are
        removed as `host.black_box.of` says.
      data: images as `Explainer` takes them, a folder of images (labelled, if all are in class
        folders) or a source of `fex_jax.data`; texts as `fex_jax.fit` takes them, where a file's
        column `label`, if there is one, has true classes; a `tasks.Task`; or a function that
        returns one of these, called when all else has been checked.
      true_classes: of each input, as numbers or labels of the predictor: needed by protocol
        chefer only.
      column: of a table of texts; see `fex_jax.fit`.
      workdir: where methods that are done are kept, so that the same call continues; and where the
        caller may `Table.write`. None: nothing is written.
      protocol: "fex", "chefer" or "authors".
      limit: the first so many inputs; 0: all.
      batch_size: inputs at a time; None: as many as an explainer takes by default. Maps of batches
        of another size differ by rounding.
      seed: of what methods draw.
      options: method → its options.
      refine: also score the explainers refined by so many queries; 0: not.
      scores: name → an .npy file [n, N] of scores computed elsewhere.
      fill, removal, unit: what becomes of a removed patch or word, and what a feature of a text is;
        those of the explainers, or else 0, "mask" and "word".
      max_length, too_long: of texts: tokens, 0 for the classifier's window, and whether to "refuse"
        longer ones or "cut" them.
      classes_by: "name" or "position": how the classes of data that have their own are found among
        the predictor's.
      write_inputs: write inputs.npz to `workdir`, for methods from elsewhere.
      labels: `true_classes`, as older calls name them.

    Raises:
      ValueError: what cannot be used, and why.
    """
    many = isinstance(methods, Iterable) and not isinstance(methods, str)
    given = list(methods) if many else [methods]
    if not given and not scores:
        raise ValueError("evaluate: there is nothing to score: no methods, and no scores")
    predictor, explainers, given = open_predictor(predictor, given)
    if predictor.absence:
        raise ValueError(predictor.absence)
    if not hasattr(tasks.of(predictor), "open_task"):
        raise ValueError(
            f"evaluate compares maps of images and texts: of {predictor.modality} eval.py says how "
            "near values are to true ones, and fex_jax.attribute has those of other methods"
        )
    if column is not None and predictor.modality != "texts":
        raise ValueError(f"column is of texts, and not of {predictor.modality}: leave it out")
    names = [f"{e.name} ({i})" for i, e in enumerate(explainers)]
    batch_size = modalities.of(predictor).BATCH_SIZE if batch_size is None else batch_size
    options, scores = options or {}, scores or {}
    given_options = {
        "protocol": protocol, "limit": limit, "batch_size": batch_size, "seed": seed,
        "refine": refine, "fill": fill, "removal": removal, "unit": unit, "max_length": max_length,
        "too_long": too_long, "classes_by": classes_by, "write_inputs": write_inputs,
        "options": options, "scores": scores, "column": column,
    }  # fmt: skip
    checks.require(given_options, _OPTIONS, "evaluate")
    checks.require(options, dict.fromkeys(options, checks.mapping()), "evaluate: options")
    if write_inputs and workdir is None:
        raise ValueError("write_inputs needs a workdir to write to")
    if refine and not explainers:
        raise ValueError(f"refine is {refine}, but there is no explainer among the methods")
    output = None if workdir is None else checks.folder(workdir, "evaluate: workdir")
    if explainers:
        check_comparable([explainers[0], *explainers], ["the predictor", *names])
        if fingerprint.of(explainers[0].predictor) != fingerprint.of(predictor):
            raise ValueError(f"{names[0]} explains another predictor than the one given")
    fill, removal, unit = settled(explainers, fill=fill, removal=removal, unit=unit)
    dtype = explainers[0].dtype if explainers else "float32"
    bind = predictors.from_checkpoint(predictor, fill, removal, jnp.dtype(dtype))
    predict = tasks.make_prediction(bind, predictor.params)
    rows = choose(given, explainers, bind, predictor, options, refine)
    external = {name: pathlib.Path(path) for name, path in scores.items()}
    check_rows(rows, external)
    for name, path in external.items():
        if not path.is_file():
            raise ValueError(f"evaluate: scores of {name!r} are to be in {path}, which is no file")
    protocol = metrics.PROTOCOLS[protocol]
    perturb = measure.make_perturbation(predictor, bind, protocol)
    reading = tasks.Reading(
        protocol, batch_size, limit, unit, max_length, too_long, classes_by, column
    )

    true_classes = labels if true_classes is None else true_classes
    task = inputs.open_task(predictor, bind, predict, data, true_classes, reading)
    if write_inputs:
        with checks.room(output):
            gallery.write_inputs(output / "inputs.npz", predictor, task)
    results: dict[str, list[cache.Result]] = {}
    common = output and cache.common(
        task, protocol=protocol, batch_size=batch_size, seed=seed, predictor=predictor,
        fill=fill, removal=removal, unit=unit, dtype=dtype,
    )  # fmt: skip
    with tqdm(total=len(rows) + len(external), unit="method") as progress:
        for method in rows:
            progress.set_description(method.name)
            runs = results.setdefault(method.name, [])
            key = common and cache.key(common, method)
            name = f"{method.name}@{len(runs)}" if runs else method.name
            path = key and output / "methods" / f"{name}.npz"
            done = cache.load(path, key) if key else None
            if done is None:
                # A black box whose answers are kept takes no time that means anything.
                timed = predict if predictor.inside else None
                found = run.attribute(method, timed, task, batch_size, seed)
                worth = measure.statistics(found, task, perturb, batch_size, method.logits)
                done = found, worth
                if key:
                    with checks.room(output):
                        cache.save(path, key, *done)
            runs.append(done)
            progress.update()
        for name, path in external.items():
            found = run.external(path, task)
            results[name] = [(found, measure.statistics(found, task, perturb, batch_size))]
            progress.update()
    facts = describe(task, predictor, protocol, unit, fingerprint.of(predictor))
    logits = frozenset(method.name for method in rows if method.logits)
    return Table(results, task, predictor, protocol, facts, logits, explainers)
