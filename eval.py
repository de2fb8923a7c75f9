"""Scores a trained explainer and shows its maps.

    python eval.py --config=configs/digit_scenes.py --workdir=runs/digits

Writes results.json, curves.png, probabilities.png and gallery.html to `<workdir>/eval`. The
protocol is `--config.eval.protocol=fex`, chefer or authors.
"""

import functools
import json
import pathlib
import sys
from collections.abc import Callable

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from absl import app, flags, logging
from ml_collections import config_flags
from tqdm import tqdm

from fex_jax import data, explain, metrics, plotting, predictors

_GALLERY_ITEMS = 16
# Metrics by their names in results.json, with headings that say which way is better.
COLUMNS = {
    "positive_auc": "Positive AUC ↓",
    "negative_auc": "Negative AUC ↑",
    "insertion": "Insertion ↑",
    "deletion": "Deletion ↓",
    "pixel_accuracy": "Pixel acc. ↑",
    "map": "mAP ↑",
    "miou": "mIoU ↑",
}
_SEGMENTATION = {
    "pixel_accuracy": metrics.pixel_accuracy,
    "map": metrics.mean_average_precision,
    "miou": metrics.mean_iou,
}


def make_perturbation(explainer: explain.Explainer, protocol: metrics.Protocol) -> Callable:
    """perturb(pixels, scores, targets, reference) → (areas, curves) of each image, jitted."""
    predictor = explainer.predictor
    preprocessing = predictor.preprocessing
    side = (preprocessing.image_size,) * 2

    @jax.jit
    def perturb(params: dict, pixels, scores, targets, reference):
        model = predictors.vit(predictor.config, params)
        images = preprocessing.normalize(pixels)
        black = preprocessing.normalize(jnp.zeros(3))
        mask, scores = metrics.image_features(protocol, scores, explainer.grid, side, black)
        curves = metrics.perturbation_curves(
            model.predict, mask, images, scores, targets, reference, protocol
        )
        return metrics.areas(curves, protocol), curves

    return functools.partial(perturb, predictor.params)


def class_numbers(names: tuple[str, ...], labels: tuple[str, ...]) -> np.ndarray | None:
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


def evaluate_batch(
    explainer: explain.Explainer,
    perturb: Callable,
    batch: data.Batch,
    labels: np.ndarray,
    protocol: metrics.Protocol,
    key: jax.Array,
) -> tuple[explain.Explanation, dict]:
    """Explanations of a batch's most probable classes, and every statistic by image.

    Args:
      labels: [B] the predictor's class of each image's label, -1 where there is none.
    """
    size = len(labels)
    top_k = min(2, len(explainer.predictor.labels))
    found = explainer(batch["image"], top_k=top_k, batch_size=size)
    targets = found.targets[:, 0]
    reference = labels if protocol.reference == "label" else targets
    random = jax.random.uniform(key, (size, *explainer.grid))
    scores = {"fex": (found.logits[:, 0], found.attributions[:, 0]), "random": (random, random)}
    statistics = {"methods": {}, "correct": targets == labels}
    for name, (logits, maps) in scores.items():
        areas, curves = perturb(batch["image"], logits.reshape(size, -1), targets, reference)
        statistics["methods"][name] = {**areas, "curves": curves}
        if "segmentation" in batch:
            masks = object_masks(batch["segmentation"], targets)
            segmented = metrics.segmentation_statistics(maps, masks)
            statistics["methods"][name]["segmentation"] = segmented
    if "segmentation" in batch:
        scene = batch["segmentation"]
        # A scene's prediction is right if it names any of its objects.
        statistics["correct"] = (scene == 1 + targets[:, None, None]).any((1, 2))
        statistics["both_shown"] = both_shown(scene, found.targets)
        statistics["class_specific"] = metrics.class_specificity(
            *(found.attributions[:, i] for i in (0, 1)),
            *(scene == 1 + found.targets[:, i, None, None] for i in (0, 1)),
        )
    return found, statistics


def evaluate(
    explainer: explain.Explainer, config: ml_collections.ConfigDict
) -> tuple[dict, dict, list[plotting.GalleryItem]]:
    """Results by method, mean curves by method, and the first images for the gallery."""
    protocol = metrics.PROTOCOLS[config.eval.protocol]
    predictor = explainer.predictor
    source = data.open_source(
        config.data.name, config.data.eval_split, config.data.path, predictor.config.image_size
    )
    classes = class_numbers(source.labels, predictor.labels)
    if classes is None and protocol.reference == "label":
        raise ValueError(
            f"protocol {protocol.name} needs labels, but the classes of {config.data.name} are not "
            "the predictor's; use --config.eval.protocol=fex"
        )
    perturb = make_perturbation(explainer, protocol)
    total = min(config.eval.num_images or source.size, source.size)
    batch_size = config.eval.batch_size
    stream = data.eval_stream(source, predictor.preprocessing, batch_size, limit=total)
    parts, items = [], []
    for index, batch in enumerate(tqdm(stream, total=-(-total // batch_size), unit="batch")):
        size = len(batch["image"])
        # A short last batch is filled up, so that every shape is compiled once.
        batch = {name: _fill(array, batch_size) for name, array in batch.items()}
        labels = np.full(batch_size, -1) if classes is None else classes[batch["label"]]
        key = jax.random.fold_in(jax.random.key(config.seed), index)
        found, statistics = evaluate_batch(explainer, perturb, batch, labels, protocol, key)
        parts.append(jax.tree.map(lambda x, n=size: np.asarray(x)[:n], statistics))
        if not items:
            names = [source.labels[label] for label in batch["label"]]
            curves = parts[0]["methods"]["fex"]["curves"]
            count = min(size, _GALLERY_ITEMS)
            items = gallery_items(batch["image"], names, found, curves, count)
    values = jax.tree.map(lambda *arrays: np.concatenate(arrays), *parts)
    results = {
        "num_images": len(values["correct"]),
        "accuracy": None if classes is None else float(values["correct"].mean()),
        "methods": {name: summarise(method) for name, method in values["methods"].items()},
    }
    if values.get("both_shown", np.zeros(1)).any():
        right = values["class_specific"][values["both_shown"]]
        results["class_specific"] = {"fraction": float(right.mean()), "num_scenes": len(right)}
    return results, {name: m["curves"] for name, m in values["methods"].items()}, items


def summarise(values: dict) -> dict[str, dict[str, float]]:
    """Mean and 95 % bootstrap interval over images of every metric."""
    intervals = {
        name: metrics.bootstrap_interval(values[name]) for name in COLUMNS if name in values
    }
    if "segmentation" in values:
        for name, reduce in _SEGMENTATION.items():
            intervals[name] = metrics.bootstrap_interval(values["segmentation"], reduce)
    return {
        name: dict(zip(("mean", "low", "high"), map(float, interval), strict=True))
        for name, interval in intervals.items()
    }


def gallery_items(
    images: np.ndarray,
    names: list[str],
    found: explain.Explanation,
    curves: metrics.Curves,
    count: int,
) -> list[plotting.GalleryItem]:
    """The first images with the maps of their two most probable classes."""
    return [
        plotting.GalleryItem(
            image=images[i],
            label=names[i],
            classes=tuple(
                plotting.ClassMap(
                    label=found.labels[target],
                    probability=float(found.probabilities[i, target]),
                    attribution=attribution,
                )
                for target, attribution in zip(found.targets[i], found.attributions[i], strict=True)
            ),
            positive=curves.positive.probability[i],
            negative=curves.negative.probability[i],
        )
        for i in range(count)
    ]


def table(methods: dict[str, dict]) -> dict[str, dict[str, str]]:
    """Method → heading → "mean ± half of the interval"."""
    return {
        name: {
            heading: f"{v['mean']:.3f} ± {(v['high'] - v['low']) / 2:.3f}"
            for metric, heading in COLUMNS.items()
            if (v := values.get(metric))
        }
        for name, values in methods.items()
    }


def _fill(array: np.ndarray, size: int) -> np.ndarray:
    return np.concatenate([array, np.repeat(array[-1:], size - len(array), 0)])


def main(_: list[str]) -> None:
    logging.set_verbosity(logging.WARNING)
    config, workdir = flags.FLAGS.config, pathlib.Path(flags.FLAGS.workdir)
    if config.eval.protocol not in metrics.PROTOCOLS:
        sys.exit(
            f"error: config.eval.protocol={config.eval.protocol!r} is unknown; choose one of "
            + ", ".join(metrics.PROTOCOLS)
        )
    try:
        explainer = explain.load(workdir)
        results, curves, items = evaluate(explainer, config)
    except (ValueError, FileNotFoundError) as error:
        sys.exit(f"error: {error}")
    output = workdir / "eval"
    output.mkdir(exist_ok=True)
    report = {"config": config.to_dict(), "protocol": config.eval.protocol} | results
    (output / "results.json").write_text(json.dumps(report, indent=2) + "\n")

    protocol = metrics.PROTOCOLS[config.eval.protocol]
    fractions = {"positive": protocol.fractions, "negative": protocol.negative_fractions}
    for name, field, ylabel in (
        ("curves", "correct", "Unchanged predictions"),
        ("probabilities", "probability", "Probability of the explained class"),
    ):
        means = {
            method: {
                direction: getattr(getattr(curve, direction), field).mean(0)
                for direction in fractions
            }
            for method, curve in curves.items()
        }
        plotting.curves(output / f"{name}.png", means, fractions, config.data.name, ylabel)
    shown = table(results["methods"])
    facts = {
        "Data": f"{config.data.name}, {results['num_images']} {config.data.eval_split} images",
        "Predictor": config.predictor.path,
        "Protocol": protocol.name,
    }
    if results["accuracy"] is not None:
        facts["Predictor's accuracy"] = f"{results['accuracy']:.1%}"
    if "class_specific" in results:
        facts["Two-object scenes"] = (
            f"both maps highest on their own object in {results['class_specific']['fraction']:.1%} "
            f"of {results['class_specific']['num_scenes']}"
        )
    plotting.gallery(
        output / "gallery.html", items, fractions, f"FEX on {config.data.name}", facts, shown
    )
    headings = [heading for heading in COLUMNS.values() if heading in shown["fex"]]
    print("  ".join(["method  ", *(f"{h:>14}" for h in headings)]))
    for name, row in shown.items():
        print("  ".join([f"{name:8}", *(f"{row[h]:>14}" for h in headings)]))
    for name, text in facts.items():
        print(f"{name}: {text}")
    print(f"gallery: {(output / 'gallery.html').resolve()}")


if __name__ == "__main__":
    config_flags.DEFINE_config_file("config", None, "An experiment of configs/.")
    flags.DEFINE_string("workdir", None, "The folder that train.py wrote.")
    flags.mark_flags_as_required(["config", "workdir"])
    app.run(main)
