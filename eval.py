"""Scores a trained explainer, and other attribution methods beside it, on the same inputs.

    python eval.py --config=configs/digit_scenes.py --workdir=runs/digits
    python eval.py --config=configs/digit_scenes.py --workdir=runs/digits --methods=all

Writes results.json, results.md, curves.png, probabilities.png and gallery.html to `<workdir>/eval`,
of images also maps.png, of texts with labels top_words.png. Methods that are done are kept there:
the same command continues after an interruption. `--trained` adds other explainers (several of one
method are its seeds), `--scores` adds scores computed elsewhere, for the inputs that
`--write_inputs` writes. The protocol is `--config.eval.protocol=fex`, chefer or authors.
"""

import json
import pathlib
import platform
import sys
from collections.abc import Sequence
from importlib.metadata import version

import jax
import ml_collections
import numpy as np
from absl import app, flags, logging
from ml_collections import config_flags
from tqdm import tqdm

from fex_jax import (
    attributions,
    data,
    evaluation,
    explain,
    metrics,
    plotting,
    predictors,
    pretrained,
    report,
    tasks,
    text_data,
)

_GALLERY_ITEMS = 16
_GRID_ITEMS = 6
_TOP_WORDS = 10


Explainer = explain.Explainer | explain.TextExplainer


def load_task(
    predictor: tasks.Predictor,
    bind: tasks.Bind,
    predict: tasks.Predict,
    config: ml_collections.ConfigDict,
) -> tasks.Task:
    """The config's evaluation split with the predictor's answers."""
    name, split, path = config.data.name, config.data.eval_split, config.data.path
    protocol = metrics.PROTOCOLS[config.eval.protocol]
    common = protocol, config.eval.batch_size, config.eval.num_images, config.eval.match_classes
    if isinstance(predictor, pretrained.TextCheckpoint):
        source = text_data.open_source(name, split, path, predictor.labels)
        options = {name: config.text[name] for name in ("max_length", "unit", "too_long")}
        return tasks.of_texts(predictor, predict, source, *common, **options)
    source = data.open_source(name, split, path, predictor.config.image_size)
    return tasks.of_images(predictor, bind, predict, source, *common)


def load_explainers(paths: Sequence[str | pathlib.Path]) -> list[Explainer]:
    """What train.py wrote to several folders, all for one predictor.

    Raises:
      ValueError: one explains another predictor than the first.
    """
    explainers = [explain.load(path) for path in paths]
    expected, *others = (evaluation.digest(explainer.predictor.params) for explainer in explainers)
    for path, found in zip(paths[1:], others, strict=True):
        if found != expected:
            raise ValueError(f"{path} explains another predictor than {paths[0]}")
    return explainers


def choose_methods(
    names: list[str],
    explainers: list[Explainer],
    bind: tasks.Bind,
    config: ml_collections.ConfigDict,
    refine: int = 0,
) -> list[evaluation.Method]:
    """The explainers, of which several may share a name, then the methods asked for."""
    predictor, options = explainers[0].predictor, config.attributions.to_dict()
    chosen = [evaluation.trained(explainer) for explainer in explainers]
    if refine:
        chosen += [evaluation.refined(m, refine, bind, predictor.params) for m in chosen]
    if "all" in names:
        is_text = isinstance(predictor, pretrained.TextCheckpoint)
        left_out = attributions.NOT_IN_ALL | (attributions.IMAGES_ONLY if is_text else set())
        every = [name for name in attributions.METHODS if name not in left_out]
        names = [*every, *(name for name in names if name in attributions.NOT_IN_ALL)]
    for name in names:
        if name not in attributions.METHODS:
            raise ValueError(
                f"method {name!r} is unknown; choose all, or some of "
                + ", ".join(attributions.METHODS)
            )
        function = attributions.METHODS[name]
        chosen.append(
            evaluation.baseline(name, function, options.get(name, {}), bind, predictor.params)
        )
    return chosen


def evaluate(
    methods: list[evaluation.Method],
    external: dict[str, pathlib.Path],
    predictor: tasks.Predictor,
    bind: tasks.Bind,
    predict: tasks.Predict,
    task: tasks.Task,
    config: ml_collections.ConfigDict,
    output: pathlib.Path,
) -> dict[str, list[tuple[evaluation.Scores, dict[str, np.ndarray]]]]:
    """Name → scores and statistics of its explainers; what `output` holds is not computed again."""
    common = {
        "protocol": config.eval.protocol,
        "batch_size": config.eval.batch_size,
        "seed": config.seed,
        "inputs": evaluation.digest(task.inputs),
        "agreed": evaluation.digest(task.agreed),
        "predictor": evaluation.digest(predictor.params),
        "fill": config.predictor.fill,
        "removal": config.text.removal,
    }
    protocol = metrics.PROTOCOLS[config.eval.protocol]
    perturb = evaluation.make_perturbation(predictor, bind, protocol)
    size = config.eval.batch_size
    results: dict[str, list] = {}
    with tqdm(total=len(methods) + len(external), unit="method") as progress:
        for method in methods:
            runs = results.setdefault(method.name, [])
            path = output / "methods" / f"{method.name}{len(runs) or ''}.npz"
            settings = common | method.settings
            done = evaluation.load(path, settings)
            if done is None:
                progress.set_description(method.name)
                scores = evaluation.attribute(method, predict, task, size, config.seed)
                found = evaluation.statistics(scores, task, perturb, size, method.logits)
                evaluation.save(path, settings, scores, found)
                done = scores, found
            runs.append(done)
            progress.update()
        for name, path in external.items():
            scores = evaluation.external(path, task)
            found = evaluation.statistics(scores, task, perturb, size)
            results[name] = [(scores, found)]
            progress.update()
    return results


def summarise(results: dict[str, list]) -> dict[str, dict]:
    """The parts of results.json that the methods make."""
    return {
        "methods": {
            name: report.over_seeds([report.summarise(found) for _, found in runs])
            for name, runs in results.items()
        },
        "efficiency": {
            name: {key: float(np.mean([s.cost[key] for s, _ in runs])) for key in runs[0][0].cost}
            for name, runs in results.items()
            if runs[0][0].cost
        },
        "empty_map": report.empty_map([found for runs in results.values() for _, found in runs]),
    }


def write_gallery(
    output: pathlib.Path,
    explainer: Explainer,
    task: tasks.Task,
    results: dict[str, list],
    protocol: metrics.Protocol,
    facts: dict[str, str],
    rows: dict[str, dict[str, str]],
    data_name: str,
) -> None:
    """gallery.html: the first inputs with what explains their two most probable classes."""
    items = gallery_items if task.documents is None else text_items
    plotting.gallery(
        output / "gallery.html",
        items(explainer, task, results),
        {"positive": protocol.fractions, "negative": protocol.negative_fractions},
        f"{next(iter(results)).upper()} on {data_name}",
        facts,
        rows,
    )


def gallery_items(
    explainer: explain.Explainer, task: tasks.Task, results: dict[str, list]
) -> list[plotting.GalleryItem]:
    """The first images with the maps of their two most probable classes."""
    images = task.inputs[:_GALLERY_ITEMS]
    found = next(iter(results.values()))[0][1]
    result = explainer(images, top_k=min(2, len(explainer.predictor.labels)))
    return [
        plotting.GalleryItem(
            image=images[i],
            label=task.names[task.labels[i]],
            classes=tuple(
                plotting.ClassMap(
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


def text_items(
    explainer: explain.TextExplainer, task: tasks.Task, results: dict[str, list]
) -> list[plotting.TextItem]:
    """The first texts with their two most probable classes, and every method's highest words."""
    documents = task.documents[:_GALLERY_ITEMS]
    texts = [document.text for document in documents]
    both = [explainer(texts, classes[: len(texts)]) for classes in (task.targets, task.second)]
    found = next(iter(results.values()))[0][1]

    def strongest(scores: np.ndarray, document: tasks.Document) -> str:
        order = np.argsort(-scores[: len(document.spans)], kind="stable")[:_TOP_WORDS]
        return ", ".join(document.text[a:b] for a, b in document.spans[order])

    return [
        plotting.TextItem(
            label=task.names[task.labels[i]],
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


def draw(
    output: pathlib.Path,
    results: dict[str, list],
    logits: set[str],
    task: tasks.Task,
    predictor: tasks.Predictor,
    config: ml_collections.ConfigDict,
) -> None:
    """curves.png and probabilities.png; of images maps.png, of texts top_words.png."""
    protocol = metrics.PROTOCOLS[config.eval.protocol]
    fractions = {"positive": protocol.fractions, "negative": protocol.negative_fractions}
    for file, field, ylabel in (
        ("curves", "correct", "Unchanged predictions"),
        ("probabilities", "probability", "Probability of the explained class"),
    ):
        means = {
            name: {
                direction: np.mean([found[f"{direction}_{field}"].mean(0) for _, found in runs], 0)
                for direction in fractions
            }
            for name, runs in results.items()
        }
        plotting.curves(output / f"{file}.png", means, fractions, config.data.name, ylabel)
    if task.documents is None:
        shown = slice(0, min(_GRID_ITEMS, task.size))
        maps = {}
        for name, runs in results.items():
            scores = runs[0][0].targets[shown].reshape(-1, *task.grid)
            maps[name] = np.asarray(jax.nn.sigmoid(scores)) if name in logits else scores
        labels = [predictor.labels[target] for target in task.targets[shown]]
        plotting.comparison(output / "maps.png", task.inputs[shown], labels, maps)
    elif panels := report.by_top(results):
        plotting.curves_by_top(output / "top_words.png", panels, metrics.TOP, config.data.name)


def main(_: list[str]) -> None:
    logging.set_verbosity(logging.WARNING)
    config, workdir = flags.FLAGS.config, pathlib.Path(flags.FLAGS.workdir)
    output = workdir / "eval"
    try:
        if config.eval.protocol not in metrics.PROTOCOLS:
            raise ValueError(
                f"config.eval.protocol={config.eval.protocol!r} is unknown; choose one of "
                + ", ".join(metrics.PROTOCOLS)
            )
        protocol = metrics.PROTOCOLS[config.eval.protocol]
        paths = [workdir, *flags.FLAGS.trained]
        explainers = load_explainers(paths)
        external = dict(_named_path(given) for given in flags.FLAGS.scores)
        predictor = explainers[0].predictor
        for explainer, path in zip(explainers, paths, strict=True):
            unit = getattr(explainer, "unit", config.text.unit)  # of texts
            if unit != config.text.unit:
                raise ValueError(f"{path} scores {unit}s: add --config.text.unit={unit}")
        bind = predictors.from_checkpoint(predictor, config.predictor.fill, config.text.removal)
        predict = tasks.make_prediction(bind, predictor.params)
        methods = choose_methods(flags.FLAGS.methods, explainers, bind, config, flags.FLAGS.refine)
        task = load_task(predictor, bind, predict, config)
        output.mkdir(exist_ok=True)
        if flags.FLAGS.write_inputs:
            write_inputs(output / "inputs.npz", task)
        results = evaluate(methods, external, predictor, bind, predict, task, config, output)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")

    summary = summarise(results)
    packages = ("jax", "jaxlib", "flax", "numpy")
    if task.documents is None:
        inputs, features = "images", "{}×{} patches".format(*task.grid)
    else:
        inputs, features = "texts", f"{config.text.unit}s, in texts of up to {task.grid[0]} tokens"
    facts = {
        "Data": f"{config.data.name}, {task.size} {config.data.eval_split} {inputs}",
        "Predictor": config.predictor.path,
        "Protocol": config.eval.protocol,
        "Features": features,
    }
    if task.accuracy is not None:
        facts["Predictor's accuracy"] = f"{task.accuracy:.1%}"
    if len(task.pairs):
        facts["Two-object scenes"] = (
            f"{len(task.pairs)} show just the two most probable classes; in {task.agreed.sum()} f "
            "itself finds each on its own object"
        )
    facts["Versions"] = ", ".join(f"{name} {version(name)}" for name in packages)
    facts["Device"] = f"{jax.devices()[0].device_kind}, {platform.machine()}"
    results_json = {
        "config": config.to_dict(),
        "protocol": config.eval.protocol,
        "num_inputs": task.size,
        "num_pairs": len(task.pairs),
        "accuracy": task.accuracy,
        "facts": facts,
        **summary,
    }
    (output / "results.json").write_text(json.dumps(results_json, indent=2) + "\n")
    (output / "results.md").write_text(report.markdown(results_json, facts))
    draw(output, results, {m.name for m in methods if m.logits}, task, predictor, config)
    rows = report.quality(summary["methods"])
    write_gallery(output, explainers[0], task, results, protocol, facts, rows, config.data.name)
    print(report.console(summary["methods"], summary["efficiency"]))
    for name, text in facts.items():
        print(f"{name}: {text}")
    print(f"table: {(output / 'results.md').resolve()}")
    print(f"gallery: {(output / 'gallery.html').resolve()}")


def write_inputs(path: pathlib.Path, task: tasks.Task) -> None:
    """What a method from elsewhere needs: images, or texts with their features, and classes."""
    if task.documents is None:
        np.savez(path, images=task.inputs, targets=task.targets)
    else:
        texts = np.array([document.text for document in task.documents])
        np.savez(path, texts=texts, targets=task.targets, **task.inputs._asdict())


def _named_path(given: str) -> tuple[str, pathlib.Path]:
    name, _, path = given.partition("=")
    if not (name and path):
        raise ValueError(f"--scores={given} is not NAME=FILE.npy")
    return name, pathlib.Path(path)


if __name__ == "__main__":
    config_flags.DEFINE_config_file("config", None, "An experiment of configs/.")
    flags.DEFINE_string("workdir", None, "The folder that train.py wrote.")
    flags.DEFINE_list("methods", ["random"], "Methods beside the trained ones; all for all.")
    flags.DEFINE_list("trained", [], "Further folders that train.py wrote, comma-separated.")
    flags.DEFINE_integer("refine", 0, "Also score the trained ones refined by so many queries.")
    flags.DEFINE_list("scores", [], "Scores from elsewhere, NAME=FILE.npy, comma-separated.")
    flags.DEFINE_bool("write_inputs", False, "Write the images and targets to eval/inputs.npz.")
    flags.mark_flags_as_required(["config", "workdir"])
    app.run(main)
