"""Trains the classifier that a config explains and saves it as a Hugging Face directory.

    python scripts/train_predictor.py --config=configs/digit_scenes.py --steps=4000

trains a small ViT from scratch and writes it to `config.predictor.path`. With `--backbone`, a
pretrained ViT, DeiT or DINOv2 gets a new head and is fine-tuned. Patches are removed at random
during training, so that masked inputs are in the classifier's distribution. With `--teacher`, what
is learned is another classifier's answer to the whole image: a surrogate for one that makes nothing
of masked inputs, for `--config.predictor.surrogate`.
"""

import dataclasses
import functools
import pathlib
import sys
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import optax
from absl import app, flags, logging
from ml_collections import config_flags

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from fex_jax import data, masking, predictors, pretrained, updates  # noqa: E402
from fex_jax.models import functional  # noqa: E402
from fex_jax.models.vit import ViTClassifier, ViTConfig  # noqa: E402
from fex_jax.preprocessing import Preprocessing  # noqa: E402
from fex_jax.training import classifier, identity  # noqa: E402

_CONFIG = config_flags.DEFINE_config_file("config", None, "An experiment of configs/.")
_OUTPUT = flags.DEFINE_string("output", None, "Directory to write; default config.predictor.path.")
_BACKBONE = flags.DEFINE_string("backbone", None, "Pretrained directory or hub id to fine-tune.")
_IMAGE_SIZE = flags.DEFINE_integer("image_size", 64, "Side of the images in pixels.")
_PATCH_SIZE = flags.DEFINE_integer("patch_size", 8, "Side of a patch, for a ViT from scratch.")
_WIDTH = flags.DEFINE_integer("width", 64, "Hidden size of a ViT from scratch.")
_LAYERS = flags.DEFINE_integer("layers", 4, "Blocks of a ViT from scratch.")
_TEACHER = flags.DEFINE_string("teacher", None, "Classifier to imitate instead of the labels.")
_STEPS = flags.DEFINE_integer("steps", 4000, "Optimiser steps.")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 128, "Images per step.")
_OPTIMIZER = flags.DEFINE_enum(
    "optimizer", "adamw", ["adamw", "muon"], "Muon, at 1e-2, suits small ViTs: far fewer steps."
)
_LEARNING_RATE = flags.DEFINE_float("learning_rate", 1e-3, "Peak of a one-cycle cosine schedule.")
_BACKBONE_SCALE = flags.DEFINE_float(
    "backbone_scale", 0.05, "Times the learning rate: that of a pretrained backbone."
)
_REMOVED = flags.DEFINE_float("removed", 0.75, "Up to this share of patches is removed per image.")
_EVAL_IMAGES = flags.DEFINE_integer("eval_images", 2000, "Held-out images of the accuracies.")


def initial_checkpoint(source: data.Source, image_size: int) -> pretrained.Checkpoint:
    """The pretrained backbone with a new head, or a random small ViT."""
    num_classes = len(source.labels)
    if _BACKBONE.value:
        loaded = pretrained.load(_BACKBONE.value, image_size=image_size, num_classes=num_classes)
        return pretrained.Checkpoint(
            loaded.config, loaded.params, source.labels, loaded.preprocessing
        )
    config = ViTConfig(
        family="vit",
        image_size=image_size,
        patch_size=_PATCH_SIZE.value,
        num_classes=num_classes,
        hidden_size=_WIDTH.value,
        num_layers=_LAYERS.value,
        num_heads=_WIDTH.value // 32,
        mlp_dim=2 * _WIDTH.value,
    )
    init, _ = functional(ViTClassifier, config)
    preprocessing = Preprocessing.from_dict(
        {
            "size": {"height": image_size, "width": image_size},
            "image_mean": [0.5] * 3,
            "image_std": [0.5] * 3,
        }
    )
    return pretrained.Checkpoint(config, init(jax.random.key(0)), source.labels, preprocessing)


def train_classifier() -> None:
    config = _CONFIG.value
    output = _OUTPUT.value or config.predictor.path

    def source(split: str) -> data.Source:
        given = config.data
        size, kept = _IMAGE_SIZE.value, (given.cache, given.cache_gib)
        return data.open_source(given.name, split, given.path, size, *kept)

    train = source(config.data.train_split)
    checkpoint = initial_checkpoint(train, _IMAGE_SIZE.value)
    vit, preprocessing = checkpoint.config, checkpoint.preprocessing
    _, bind = functional(ViTClassifier, vit)
    schedule = optax.cosine_onecycle_schedule(_STEPS.value, _LEARNING_RATE.value, 0.1)
    steps = {
        "adamw": optax.adamw(schedule, weight_decay=0.05),
        # Matrices move by as much as AdamW would move them (arXiv 2502.16982), the rest by AdamW.
        "muon": optax.contrib.muon(
            schedule, weight_decay=0.05, adam_weight_decay=0.05, consistent_rms=0.2
        ),
    }
    optimizer = optax.chain(
        optax.clip_by_global_norm(1.0),
        steps[_OPTIMIZER.value],
        updates.scale_backbone(_BACKBONE_SCALE.value if _BACKBONE.value else 1.0),
    )

    def loss(params, batch, key, done):
        images, targets = batch
        amount, which = jax.random.split(key)
        # Whole pictures first: what an object looks like is learned faster without holes.
        most = _REMOVED.value * jnp.minimum(1, 2 * done)
        removed = jax.random.uniform(amount, (len(images),), maxval=most)
        masks = classifier.random_masks(which, vit.grid, removed)
        images = masking.patches(preprocessing.normalize(images), masks)
        return optax.softmax_cross_entropy(bind(params)(images), targets).mean()

    @jax.jit
    def predicted(params, images, masks):
        return bind(params)(masking.patches(preprocessing.normalize(images), masks)).argmax(-1)

    def accuracy(params, removed: float) -> float:
        stream = data.eval_stream(
            source(config.data.eval_split), preprocessing, _BATCH_SIZE.value,
            limit=_EVAL_IMAGES.value,
        )  # fmt: skip
        return classifier.accuracy(
            stream, functools.partial(predicted, params), vit.grid, vit.num_classes, removed
        )

    if _TEACHER.value:
        teacher = pretrained.load(_TEACHER.value, image_size=_IMAGE_SIZE.value)
        if teacher.labels != checkpoint.labels:
            raise ValueError(f"{_TEACHER.value} has other classes than {config.data.name}")
        if teacher.output != "softmax":
            raise ValueError(f"{_TEACHER.value} is a {teacher.output}; a teacher's is a softmax")

        @jax.jit
        def answers(images):
            inputs = teacher.preprocessing.normalize(images)
            return predictors.image(teacher.config, teacher.params).predict(inputs)

    def batches(start: int) -> Iterator[tuple]:
        stream = data.train_stream(
            train, preprocessing, _BATCH_SIZE.value, seed=config.seed, start=start,
            augment=config.data.augment,
        )  # fmt: skip
        for batch in stream:
            images = batch["image"]
            targets = (
                answers(images)
                if _TEACHER.value
                else classifier.class_targets(batch, vit.num_classes)
            )
            yield images, targets

    settings = {f.name: f.value for f in flags.FLAGS.get_key_flags_for_module(sys.argv[0])}
    settings |= {"config": config.to_dict(), "data": identity.of_data(train, checkpoint)}
    classifier.fit(
        pathlib.Path(output),
        checkpoint.params,
        optimizer,
        loss,
        batches,
        _STEPS.value,
        seed=config.seed,
        settings=settings,
        batch_size=_BATCH_SIZE.value,
        checkpoint_every=config.checkpoint.every,
        report_every=1000,
        accuracy=accuracy,
        save=lambda p: pretrained.save(output, dataclasses.replace(checkpoint, params=p)),
        saved=[pathlib.Path(output, "model.safetensors")],
    )


def main(_: list[str]) -> None:
    logging.set_verbosity(logging.WARNING)  # Orbax reports every file
    try:
        train_classifier()
    except (ValueError, OSError, FloatingPointError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    flags.mark_flag_as_required("config")
    app.run(main)
