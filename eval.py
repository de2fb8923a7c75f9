"""Scores a trained explainer, and other attribution methods beside it, on the same images.

    python eval.py --config=configs/digit_scenes.py --workdir=runs/digits
    python eval.py --config=configs/digit_scenes.py --workdir=runs/digits --methods=all

Writes results.json, results.md, curves.png, probabilities.png, maps.png and gallery.html to
`<workdir>/eval`. Methods that are done are kept there: the same command continues after an
interruption. `--trained` adds other explainers (several of one method are its seeds), `--scores`
adds scores computed elsewhere, for the images that `--write_inputs` writes. The protocol is
`--config.eval.protocol=fex`, chefer or authors.
"""

import json
import pathlib
import platform
import sys
from importlib.metadata import version

import jax
import ml_collections
import numpy as np
from absl import app, flags, logging
from ml_collections import config_flags
from tqdm import tqdm

from fex_jax import attributions, data, evaluation, explain, metrics, plotting, pretrained, report

_GALLERY_ITEMS = 16
_GRID_ITEMS = 6


def load_task(
    predictor: pretrained.Checkpoint, config: ml_collections.ConfigDict
) -> tuple[evaluation.Task, tuple[str, ...], float | None]:
    """The config's evaluation images with the predictor's answers; class names; accuracy."""
    protocol = metrics.PROTOCOLS[config.eval.protocol]
    source = data.open_source(
        config.data.name, config.data.eval_split, config.data.path, predictor.config.image_size
    )
    classes = class_numbers(source.labels, predictor.labels)
    if classes is None and protocol.reference == "label":
        raise ValueError(
            f"protocol {protocol.name} needs labels, but the classes of {config.data.name} are not "
            "the predictor's; use --config.eval.protocol=fex"
        )
    total = min(config.eval.num_images or source.size, source.size)
    stream = data.eval_stream(source, predictor.preprocessing, config.eval.batch_size, limit=total)
    batches = list(tqdm(stream, "images", -(-total // config.eval.batch_size), leave=False))
    arrays = {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}
    images, segmentation = arrays["image"], arrays.get("segmentation")
    probabilities = evaluation.predict(predictor, images, config.eval.batch_size)
    pair = np.argsort(-probabilities, -1, kind="stable")[:, :2]
    shown = np.zeros(len(images), bool)
    if segmentation is not None and pair.shape[1] == 2:
        shown = evaluation.both_shown(segmentation, pair)
    known = np.full(len(images), -1) if classes is None else classes[arrays["label"]]
    right = known == pair[:, 0]
    if segmentation is not None:  # a scene's prediction is right if it names any of its objects
        right = (segmentation == 1 + pair[:, :1, None]).any((1, 2))
    task = evaluation.Task(
        images=images,
        labels=arrays["label"],
        targets=pair[:, 0],
        second=pair[:, -1],
        reference=known if protocol.reference == "label" else pair[:, 0],
        segmentation=segmentation,
        pairs=np.flatnonzero(shown),
    )
    unknown = classes is None and segmentation is None
    return task, source.labels, None if unknown else float(right.mean())


def class_numbers(names: tuple[str, ...], labels: tuple[str, ...]) -> np.ndarray | None:
    """The predictor's class for each label of the data: the same name, or else the same number.

    None where neither can be: other names, and not as many.
    """
    if set(names) <= set(labels):
        return np.array([labels.index(name) for name in names])
    return np.arange(len(names)) if len(names) == len(labels) else None


def choose_methods(
    names: list[str], explainers: list[explain.Explainer], config: ml_collections.ConfigDict
) -> list[evaluation.Method]:
    """The explainers, of which several may share a name, then the methods asked for."""
    chosen = [evaluation.trained(explainer) for explainer in explainers]
    names = list(attributions.METHODS) if "all" in names else names
    predictor, options = explainers[0].predictor, config.attributions.to_dict()
    for name in names:
        if name not in attributions.METHODS:
            raise ValueError(
                f"method {name!r} is unknown; choose all, or some of "
                + ", ".join(attributions.METHODS)
            )
        function = attributions.METHODS[name]
        chosen.append(
            evaluation.baseline(
                name, function, options.get(name, {}), predictor, config.predictor.fill
            )
        )
    return chosen


def evaluate(
    methods: list[evaluation.Method],
    external: dict[str, pathlib.Path],
    predictor: pretrained.Checkpoint,
    task: evaluation.Task,
    config: ml_collections.ConfigDict,
    output: pathlib.Path,
) -> dict[str, list[tuple[evaluation.Scores, dict[str, np.ndarray]]]]:
    """Name → scores and statistics of its explainers; what `output` holds is not computed again."""
    common = {
        "protocol": config.eval.protocol,
        "batch_size": config.eval.batch_size,
        "seed": config.seed,
        "images": evaluation.digest(task.images),
        "predictor": evaluation.digest(predictor.params),
        "fill": config.predictor.fill,
    }
    perturb = evaluation.make_perturbation(predictor, metrics.PROTOCOLS[config.eval.protocol])
    size, grid = config.eval.batch_size, predictor.config.grid
    results: dict[str, list] = {}
    with tqdm(total=len(methods) + len(external), unit="method") as progress:
        for method in methods:
            runs = results.setdefault(method.name, [])
            path = output / "methods" / f"{method.name}{len(runs) or ''}.npz"
            settings = common | method.settings
            done = evaluation.load(path, settings)
            if done is None:
                progress.set_description(method.name)
                scores = evaluation.attribute(method, predictor, task, size, config.seed)
                found = evaluation.statistics(scores, task, grid, perturb, size, method.logits)
                evaluation.save(path, settings, scores, found)
                done = scores, found
            runs.append(done)
            progress.update()
        for name, path in external.items():
            scores = evaluation.external(path, task, grid)
            found = evaluation.statistics(scores, task, grid, perturb, size)
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
    }


def gallery_items(
    explainer: explain.Explainer,
    task: evaluation.Task,
    names: tuple[str, ...],
    found: dict[str, np.ndarray],
) -> list[plotting.GalleryItem]:
    """The first images with the maps of their two most probable classes."""
    images = task.images[:_GALLERY_ITEMS]
    result = explainer(images, top_k=min(2, len(explainer.predictor.labels)))
    return [
        plotting.GalleryItem(
            image=images[i],
            label=names[task.labels[i]],
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


def draw(
    output: pathlib.Path,
    results: dict[str, list],
    logits: set[str],
    task: evaluation.Task,
    predictor: pretrained.Checkpoint,
    config: ml_collections.ConfigDict,
) -> None:
    """curves.png, probabilities.png and maps.png."""
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
    shown = slice(0, min(_GRID_ITEMS, len(task.images)))
    maps = {}
    for name, runs in results.items():
        scores = runs[0][0].targets[shown].reshape(-1, *predictor.config.grid)
        maps[name] = np.asarray(jax.nn.sigmoid(scores)) if name in logits else scores
    plotting.comparison(
        output / "maps.png",
        task.images[shown],
        [predictor.labels[target] for target in task.targets[shown]],
        maps,
    )


def main(_: list[str]) -> None:
    logging.set_verbosity(logging.WARNING)
    config, workdir = flags.FLAGS.config, pathlib.Path(flags.FLAGS.workdir)
    if config.eval.protocol not in metrics.PROTOCOLS:
        sys.exit(
            f"error: config.eval.protocol={config.eval.protocol!r} is unknown; choose one of "
            + ", ".join(metrics.PROTOCOLS)
        )
    output = workdir / "eval"
    try:
        explainers = [explain.load(path) for path in (workdir, *flags.FLAGS.trained)]
        external = dict(_named_path(given) for given in flags.FLAGS.scores)
        predictor = explainers[0].predictor
        if isinstance(predictor, pretrained.TextCheckpoint):
            raise ValueError(f"{workdir} explains texts; eval.py scores explainers of images")
        for explainer, path in zip(explainers[1:], flags.FLAGS.trained, strict=True):
            if evaluation.digest(explainer.predictor.params) != evaluation.digest(predictor.params):
                raise ValueError(f"{path} explains another predictor than {workdir}")
        methods = choose_methods(flags.FLAGS.methods, explainers, config)
        task, names, accuracy = load_task(predictor, config)
        output.mkdir(exist_ok=True)
        if flags.FLAGS.write_inputs:
            np.savez(output / "inputs.npz", images=task.images, targets=task.targets)
        results = evaluate(methods, external, predictor, task, config, output)
    except (ValueError, FileNotFoundError) as error:
        sys.exit(f"error: {error}")

    summary = summarise(results)
    packages = ("jax", "jaxlib", "flax", "numpy")
    facts = {
        "Data": f"{config.data.name}, {len(task.images)} {config.data.eval_split} images",
        "Predictor": config.predictor.path,
        "Protocol": config.eval.protocol,
        "Grid": "×".join(map(str, predictor.config.grid)),
    }
    if accuracy is not None:
        facts["Predictor's accuracy"] = f"{accuracy:.1%}"
    if len(task.pairs):
        facts["Two-object scenes"] = f"{len(task.pairs)} show just the two most probable classes"
    facts["Versions"] = ", ".join(f"{name} {version(name)}" for name in packages)
    facts["Device"] = f"{jax.devices()[0].device_kind}, {platform.machine()}"
    results_json = {
        "config": config.to_dict(),
        "protocol": config.eval.protocol,
        "num_images": len(task.images),
        "num_pairs": len(task.pairs),
        "accuracy": accuracy,
        "facts": facts,
        **summary,
    }
    (output / "results.json").write_text(json.dumps(results_json, indent=2) + "\n")
    (output / "results.md").write_text(report.markdown(results_json, facts))
    draw(output, results, {m.name for m in methods if m.logits}, task, predictor, config)
    protocol = metrics.PROTOCOLS[config.eval.protocol]
    first = methods[0].name
    plotting.gallery(
        output / "gallery.html",
        gallery_items(explainers[0], task, names, results[first][0][1]),
        {"positive": protocol.fractions, "negative": protocol.negative_fractions},
        f"{first.upper()} on {config.data.name}",
        facts,
        report.quality(summary["methods"]),
    )
    print(report.console(summary["methods"], summary["efficiency"]))
    for name, text in facts.items():
        print(f"{name}: {text}")
    print(f"table: {(output / 'results.md').resolve()}")
    print(f"gallery: {(output / 'gallery.html').resolve()}")


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
    flags.DEFINE_list("scores", [], "Scores from elsewhere, NAME=FILE.npy, comma-separated.")
    flags.DEFINE_bool("write_inputs", False, "Write the images and targets to eval/inputs.npz.")
    flags.mark_flags_as_required(["config", "workdir"])
    app.run(main)
