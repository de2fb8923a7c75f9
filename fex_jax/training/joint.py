"""Fine-tuning a classifier so that it can be explained: ID-ExpO, of any map that f learns through.

With FEX the two learn in turn, from the same batch: the classifier's steps see the explainer's map
as it is, and the explainer's the classifier. What is written is the classifier, as a Hugging Face
directory, and of FEX an export beside it.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import optax

from fex_jax import (
    attributions,
    contrast,
    data,
    export,
    feeding,
    id_expo,
    linear,
    masking,
    predictors,
    pretrained,
)
from fex_jax.models import Params
from fex_jax.models.policy import functional_policy
from fex_jax.ppo import PolicyOutput
from fex_jax.training import classifier, explainer, identity
from fex_jax.training import step as steps

LINEAR = "lime", "kernel_shap"  # of fex_jax/linear.py
EXPLAINERS = "gradcam_norm1", "gradcam_attention", "gradcam_features", *LINEAR, "fex"
_TRIED = 1000  # held-out inputs of the accuracies


def train(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> None:
    """From the last checkpoint or the start to the end, of a classifier of images.

    Writes `<workdir>/predictor`, which `fex_jax.pretrained.load` opens, and of FEX
    `<workdir>/export`.

    Raises:
      ValueError: settings that do not go together, or a folder of another run.
      OSError, FloatingPointError: as `explainer.train`.
    """
    require(config, EXPLAINERS)
    checkpoint = pretrained.load(config.predictor.path, config.predictor.image_size or None)
    if checkpoint.modality != "images" or checkpoint.output != "softmax":
        raise ValueError(
            f"{config.predictor.path} is no classifier of images into classes that exclude each "
            "other: ID-ExpO fine-tunes these"
        )
    source = feeding.of(checkpoint).open_source(checkpoint, config, config.data.train_split)
    if source.labels != checkpoint.labels:
        raise ValueError(f"{config.data.name} has other classes than {config.predictor.path}")
    with_fex = config.id_expo.explainer == "fex"
    backbone = checkpoint.config if with_fex else None
    params: Params = {"f": checkpoint.params}
    policy = None
    if backbone is not None:
        objective = dataclasses.replace(steps.make_objective(_of_fex(config)), num_updates=1)
        init, policy = functional_policy(backbone, len(checkpoint.labels), map_head=config.map_head)
        params["g"] = init(jax.random.key(config.seed))
        params["g"]["backbone"] = jax.tree.map(jnp.copy, checkpoint.params["backbone"])
    loss = make_loss(config, checkpoint, policy, objective if with_fex else None)

    def batches(start: int) -> Iterator[tuple]:
        stream = data.train_stream(
            source, checkpoint.preprocessing, config.batch_size, seed=config.seed, start=start,
            augment=config.data.augment, limit=config.data.limit or None,
        )  # fmt: skip
        return (
            (batch["image"], classifier.class_targets(batch, len(checkpoint.labels)))
            for batch in stream
        )

    def save(params: Params) -> None:
        tuned = dataclasses.replace(checkpoint, params=params["f"])
        pretrained.save(workdir / "predictor", tuned)
        if backbone is not None:
            explainer.save_description(
                _of_fex(config), objective, tuned, backbone, workdir / "export", faithful=False
            )
            export.save_weights(workdir / "export", params["g"])

    fit(
        config, workdir, params, loss, batches, explainer.num_steps(config, source),
        data=identity.of_data(source, checkpoint),
        accuracy=make_accuracy(config, checkpoint),
        save=save,
    )  # fmt: skip


def require(config: ml_collections.ConfigDict, known: Sequence[str]) -> None:
    """Refuses an explanation that is not known, and more than one process or device's memory."""
    chosen, fsdp, processes = config.id_expo.explainer, config.mesh.fsdp, jax.process_count()
    if chosen not in known:
        raise ValueError(f"id_expo.explainer is {chosen!r}; choose {', '.join(known)}")
    if fsdp > 1 or processes > 1:
        raise ValueError(
            f"mesh.fsdp is {fsdp}, and there are {processes} processes; id_expo trains in one "
            "process on one device: leave mesh and distributed out"
        )


def fit(
    config: ml_collections.ConfigDict,
    workdir: pathlib.Path,
    params: Params,
    loss: Callable[[Params, Any, jax.Array, jax.Array], jax.Array],
    batches: Callable[[int], Iterator[tuple]],
    num_steps: int,
    *,
    data: dict,
    accuracy: Callable[[Params, float], float],
    save: Callable[[Params], None],
) -> None:
    """`classifier.fit` by Adam, of f under "f" and, beside it, of FEX under "g".

    Args:
      data: what tells the data from others.
    """

    def adam(rate: float) -> optax.GradientTransformation:
        warmup = max(1, num_steps // 20)
        return optax.adam(optax.warmup_cosine_decay_schedule(0.0, rate, warmup, num_steps))

    rates = {"f": config.id_expo.learning_rate, "g": config.optimizer.learning_rate}
    each = {name: adam(rates[name]) for name in params}
    optimizer = optax.chain(
        optax.clip_by_global_norm(config.optimizer.clip_norm),
        optax.multi_transform(each, {name: name for name in params}),
    )
    classifier.fit(
        workdir,
        params,
        optimizer,
        loss,
        batches,
        num_steps,
        seed=config.seed,
        settings={"config": config.to_dict(), "data": data},
        batch_size=config.batch_size,
        checkpoint_every=config.checkpoint.every,
        report_every=config.checkpoint.every,
        accuracy=accuracy,
        save=save,
        saved=[workdir / "predictor", workdir / "export"],
    )


def weights(settings: ml_collections.ConfigDict) -> dict[str, Any]:
    """What `id_expo.loss` takes of the settings."""
    return {name: settings[name] for name in ("strength", "norm", "temperature", "points")}


def _of_fex(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """The settings with the method that the explainer beside the classifier is."""
    config = config.copy_and_resolve_references()
    config.method = "contrast"
    return config


def make_loss(
    config: ml_collections.ConfigDict,
    checkpoint: pretrained.Checkpoint,
    policy: Callable | None = None,
    objective: contrast.Objective | None = None,
) -> Callable[[Params, Any, jax.Array, jax.Array], jax.Array]:
    """loss({"f": …, "g": …}, (pixels, probabilities [B, K]), key, share that is done) → scalar.

    Cross-entropy, λ₁ and λ₂ times the regulariser of the predicted class, and of FEX its own loss.
    """
    settings, grid = config.id_expo, checkpoint.config.grid
    bind = predictors.from_checkpoint(checkpoint, config.predictor.fill)

    def keep(images: jax.Array, masks: jax.Array) -> jax.Array:
        return masking.soften(images, masks.reshape(-1, *grid), config.predictor.fill)

    def loss(params: Params, batch: tuple, key: jax.Array, _: jax.Array) -> jax.Array:
        pixels, targets = batch
        model, images = bind(params["f"], pixels)

        def log_predict(images: jax.Array) -> jax.Array:
            return jax.nn.log_softmax(model.logits(images, images))

        for_shares, for_fex = jax.random.split(key)
        for_map = jax.random.fold_in(for_fex, 0)

        def explain(classes: jax.Array) -> jax.Array:
            if settings.explainer in LINEAR:
                method = getattr(linear, settings.explainer)
                return method(model, images, classes, for_map, settings.num_queries)
            if policy is None:
                return attributions.METHODS[settings.explainer](model, images, classes, for_map)
            fixed = jax.lax.stop_gradient(params["g"])
            return policy(fixed).maps(images, classes[:, None], contrastive=True)[:, 0]

        total = id_expo.loss(
            log_predict, keep, images, targets, explain, for_shares, **weights(settings)
        )
        if policy is not None:
            total += _fex_loss(params, pixels, for_fex)
        return total

    def _fex_loss(params: Params, pixels: jax.Array, key: jax.Array) -> jax.Array:
        model, images = bind(jax.lax.stop_gradient(params["f"]), pixels)

        def output(params: Params, images: jax.Array, classes: jax.Array) -> PolicyOutput:
            return PolicyOutput(*policy(params)(images, classes))

        fixed = jax.lax.stop_gradient(params["g"])
        answered, _ = contrast.play(
            model.predict, model.mask, lambda *given: output(fixed, *given), images, key, objective,
            model.grid,
        )  # fmt: skip
        said = output(params["g"], images, answered.targets)
        return contrast.loss(said, answered, objective)[0]

    return loss


def make_accuracy(
    config: ml_collections.ConfigDict, checkpoint: pretrained.Checkpoint
) -> Callable[[Params, float], float]:
    """accuracy(params, share of the patches that is removed at random) on the evaluation split."""
    name, path = config.data.name, config.data.path
    size, grid = checkpoint.config.image_size, checkpoint.config.grid
    bind = predictors.from_checkpoint(checkpoint, config.predictor.fill)

    @jax.jit
    def predicted(params: Params, pixels: jax.Array, masks: jax.Array) -> jax.Array:
        model, images = bind(params, pixels)
        return model.predict(model.mask(images, masks.reshape(len(masks), -1))).argmax(-1)

    def accuracy(params: Params, removed: float) -> float:
        source = data.open_source(name, config.data.eval_split, path, size)
        stream = data.eval_stream(source, checkpoint.preprocessing, config.batch_size, limit=_TRIED)
        of_f = functools.partial(predicted, params["f"])
        return classifier.accuracy(stream, of_f, grid, len(checkpoint.labels), removed)

    return accuracy
