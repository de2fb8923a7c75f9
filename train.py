"""Trains an explainer: FEX, or FastSHAP with the configs that say so.

    python train.py --config=configs/digit_scenes.py --workdir=runs/digits

Any setting can be overridden: `--config.batch_size=64`. The same command run again continues from
the last checkpoint. The result, `<workdir>/export`, is opened by `fex_jax.explain.load`.
"""

import json
import pathlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
from absl import app, flags, logging
from ml_collections import config_flags
from tqdm import tqdm

from fex_jax import (
    checkpoint,
    data,
    export,
    fastshap,
    logs,
    ppo,
    predictors,
    pretrained,
    sharding,
    text_data,
    updates,
)
from fex_jax.models.policy import Policy, functional_policy, make_backbone

Predictor = pretrained.Checkpoint | pretrained.TextCheckpoint


def backbone_scale(config: ml_collections.ConfigDict) -> float:
    """Of the learning rate, for the backbone; one that starts from nothing learns as heads do."""
    return 1.0 if config.policy == "unet" else config.optimizer.backbone_scale


def make_optimizer(
    config: ml_collections.ConfigDict, num_steps: int
) -> optax.GradientTransformation:
    """Adam on clipped gradients; warm-up, then a cosine to zero over all updates."""
    num_updates = num_steps * config.objective.num_updates * config.objective.num_passes
    warmup = max(1, round(config.optimizer.warmup_fraction * num_updates))
    schedule = optax.warmup_cosine_decay_schedule(
        0.0, config.optimizer.learning_rate, warmup, max(num_updates, warmup + 1)
    )
    return optax.chain(
        optax.clip_by_global_norm(config.optimizer.clip_norm),
        optax.adam(schedule),
        updates.scale_backbone(backbone_scale(config)),
    )


def make_objective(config: ml_collections.ConfigDict) -> ppo.Objective | fastshap.Objective:
    """The objective of the config's method, checked."""
    methods = {"fex": ppo.Objective, "fastshap": fastshap.Objective}
    if config.method not in methods:
        raise ValueError(f"method {config.method!r} is unknown; choose {' or '.join(methods)}")
    return methods[config.method](**config.objective)


def load_queried(config: ml_collections.ConfigDict, predictor: Predictor) -> Predictor:
    """What training asks about masked inputs: the predictor, or its surrogate."""
    if not config.predictor.surrogate:
        return predictor
    surrogate = pretrained.load(config.predictor.surrogate, config.predictor.image_size or None)
    for name in ("labels", "preprocessing"):
        if getattr(surrogate, name, None) != getattr(predictor, name, None):
            raise ValueError(
                f"the surrogate {config.predictor.surrogate} has other {name} than the predictor "
                f"{config.predictor.path}"
            )
    if surrogate.config != predictor.config:
        raise ValueError(
            f"the surrogate is {surrogate.config}, but the predictor {predictor.config}"
        )
    return surrogate


def open_inputs(
    config: ml_collections.ConfigDict, predictor: Predictor
) -> tuple[int, Callable[[int], Iterator]]:
    """Number of training examples, and stream(start): this process's batches from that one on.

    A batch is a pytree: uint8 images, or token ids.
    """
    split, path, limit = config.data.train_split, config.data.path, config.data.limit
    options = {
        "seed": config.seed,
        "limit": limit or None,
        "process": (jax.process_index(), jax.process_count()),
    }
    batch_size = config.batch_size // jax.process_count()
    if isinstance(predictor, pretrained.TextCheckpoint):
        source = text_data.open_source(config.data.name, split, path, predictor.labels)
        window = predictor.config.max_length
        length = min(config.text.max_length or window, window)
        options |= {"unit": config.text.unit, "too_long": config.text.too_long}

        def stream(start: int) -> Iterator:
            batches = text_data.train_stream(
                source, predictor.tokenizer, length, batch_size, start=start, **options
            )
            return (batch["inputs"] for batch in batches)

    else:
        source = data.open_source(config.data.name, split, path, predictor.config.image_size)

        def stream(start: int) -> Iterator:
            batches = data.train_stream(
                source, predictor.preprocessing, batch_size, start=start,
                augment=config.data.augment, **options,
            )  # fmt: skip
            return (batch["image"] for batch in batches)

    return min(limit or source.size, source.size), stream


def learning_policy(
    config: ml_collections.ConfigDict, network: Callable[[dict], Policy]
) -> Callable[[dict], Policy]:
    """The network; of a frozen backbone without gradients, and so without their backward pass."""
    if backbone_scale(config) > 0:
        return network
    return lambda params: network(params | {"backbone": jax.lax.stop_gradient(params["backbone"])})


def make_step(
    config: ml_collections.ConfigDict,
    predictor: Predictor,
    network: Callable,
    optimizer: optax.GradientTransformation,
) -> Callable:
    """step(state, predictor's parameters, batch, key) → (state, metrics), to be jitted."""
    objective = make_objective(config)
    bind = predictors.from_checkpoint(
        predictor, config.predictor.fill, config.text.removal, jnp.dtype(config.dtype)
    )
    policy = learning_policy(config, network)

    def step(state: updates.TrainState, predictor_params: dict, batch: Any, key: jax.Array):
        model, inputs = bind(predictor_params, batch)
        key = jax.random.fold_in(key, state.step)
        if config.method == "fastshap":
            return fastshap.train_step(
                state,
                inputs,
                key,
                predict=model.predict,
                mask=model.mask,
                features=model.features,
                explainer=lambda params, x, y: policy(params).maps(x, y),
                optimizer=optimizer,
                objective=objective,
            )
        return ppo.train_step(
            state,
            inputs,
            key,
            predict=model.predict,
            mask=model.mask,
            policy=lambda params, x, y: ppo.PolicyOutput(*policy(params)(x, y, objective.kl)),
            optimizer=optimizer,
            objective=objective,
        )

    return step


def make_initial_state(
    config: ml_collections.ConfigDict,
    init: Callable,
    optimizer: optax.GradientTransformation,
) -> Callable[[dict], updates.TrainState]:
    """initial_state(predictor's parameters): a policy of its kind starts from its backbone."""

    def initial_state(predictor_params: dict) -> updates.TrainState:
        params = init(jax.random.key(config.seed))
        if config.policy != "unet":
            params["backbone"] = jax.tree.map(jnp.copy, predictor_params["backbone"])
        return updates.TrainState(params, optimizer.init(params), jnp.zeros((), jnp.int32))

    return initial_state


def check_same_experiment(config: ml_collections.ConfigDict, path: pathlib.Path) -> None:
    """Refuses to continue a run under settings that would make it another experiment."""
    free = ("eval", "attributions", "checkpoint", "mesh", "log_every")
    old, new = json.loads(path.read_text()), config.to_dict()
    changed = [name for name in new if name not in free and old.get(name) != new[name]]
    if changed:
        raise ValueError(
            f"{path.parent} was trained with other settings of {', '.join(changed)} (see {path}): "
            "continue with those, or choose another --workdir"
        )


def train(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> None:
    """From the last checkpoint or the start to the end; for FEX, Algorithm 1 of the paper."""
    objective = make_objective(config)
    mesh = sharding.make_mesh(config.mesh.fsdp)
    num_updates, batch_size = objective.num_updates, config.batch_size
    if batch_size % (jax.device_count() * num_updates):
        raise ValueError(
            f"batch_size={batch_size} must be a multiple of devices x objective.num_updates = "
            f"{jax.device_count()} x {num_updates}"
        )
    predictor = pretrained.load(config.predictor.path, config.predictor.image_size or None)
    queried = load_queried(config, predictor)
    num_examples, stream = open_inputs(config, predictor)
    num_steps = max(1, int(config.epochs * num_examples) // batch_size)

    # The policy, its optimiser and where their arrays live.
    backbone = make_backbone(config.policy, predictor.config)
    init, network = functional_policy(
        backbone,
        predictor.config.num_classes,
        jnp.dtype(config.dtype),
        config.remat,
        config.map_head,
    )
    optimizer = make_optimizer(config, num_steps)
    frozen = jax.device_put(queried.params, sharding.split_parameters(queried.params, mesh))
    initial_state = make_initial_state(config, init, optimizer)
    shapes = jax.eval_shape(initial_state, frozen)
    shardings = sharding.split_parameters(shapes, mesh)
    step_fn = jax.jit(
        make_step(config, queried, network, optimizer),
        donate_argnums=0,
        out_shardings=(shardings, sharding.replicated(mesh)),
    )

    # Continue, or begin.
    workdir.mkdir(parents=True, exist_ok=True)
    manager = checkpoint.open_manager(workdir / "checkpoints", config.checkpoint.keep)
    if manager.latest_step() is not None:
        check_same_experiment(config, workdir / "config.json")
        state = checkpoint.restore(manager, sharding.with_shardings(shapes, shardings))
    else:
        state = jax.jit(initial_state, out_shardings=shardings)(frozen)
        draws_budget = config.method == "fex" and objective.budget_range > 0
        export.save_description(
            workdir / "export",
            predictor,
            backbone,
            method=config.method,
            budget=-objective.budget_range if draws_budget else None,
            # Of two classes one's map is the other's mirrored: a contrast would add but noise.
            contrastive=draws_budget and objective.learns_f and predictor.config.num_classes > 2,
            map_head=config.map_head,
            fill=config.predictor.fill,
            unit=config.text.unit,
            removal=config.text.removal,
        )
        (workdir / "config.json").write_text(json.dumps(config.to_dict(), indent=2) + "\n")
    start = int(state.step)
    log = logs.open_log(workdir, start)
    batches = stream(start)
    print(f"{workdir}: steps {start} to {num_steps} of {batch_size} inputs, {backbone}")

    stopped = checkpoint.catch_signals()
    key, warned, since, since_step = jax.random.key(config.seed), False, time.monotonic(), start
    steps = range(start, num_steps)
    progress = tqdm(steps, initial=start, total=num_steps, unit="batch", smoothing=0.05)
    metrics = {}
    for step in progress:
        batch = sharding.global_batch(next(batches), mesh)
        before = metrics
        state, metrics = step_fn(state, frozen, batch, key)
        jax.block_until_ready(before)  # one step ahead at most, or the bar would run away
        done = step + 1
        if done % config.log_every == 0 or done == num_steps:
            metrics = {"step": done} | {name: float(value) for name, value in metrics.items()}
            now = time.monotonic()
            metrics["images_per_second"] = (done - since_step) * batch_size / (now - since)
            since, since_step = now, done
            log(metrics)
            progress.write(logs.console_line(metrics))
            if not np.isfinite(metrics["loss"]):
                raise FloatingPointError(
                    f"the loss is {metrics['loss']} at step {done}; the last checkpoint is of step "
                    f"{manager.latest_step()}. Lower config.optimizer.learning_rate"
                )
            warning = ppo.collapse_warning(metrics) if config.method == "fex" else None
            if warning and not warned:
                progress.write(f"WARNING at step {done}: {warning}")
                warned = True
        if done % config.checkpoint.every == 0 or done == num_steps or stopped:
            checkpoint.save(manager, state)
        if stopped:
            break
    manager.close()  # waits until the last checkpoint is on disk
    checkpoint.exit_if_stopped(stopped, int(state.step))
    export.save_weights(workdir / "export", state.params)
    print(
        f"wrote {workdir / 'export'}: open it with fex_jax.explain.load, or score it with eval.py"
    )


def main(_: list[str]) -> None:
    logging.set_verbosity(logging.WARNING)  # Orbax reports every file
    try:
        train(flags.FLAGS.config, pathlib.Path(flags.FLAGS.workdir))
    except (ValueError, OSError, FloatingPointError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    config_flags.DEFINE_config_file("config", None, "An experiment of configs/.")
    flags.DEFINE_string("workdir", None, "Folder for checkpoints, logs and the export.")
    flags.mark_flags_as_required(["config", "workdir"])
    app.run(main)
