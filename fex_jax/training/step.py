"""The compiled step of an explainer's training: objective, optimiser, first state, update."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import optax

from fex_jax import algorithm, fastshap, ppo, predictors, shapley, updates
from fex_jax.export import Predictor
from fex_jax.models.policy import Policy


def make_objective(
    config: ml_collections.ConfigDict, output: str = "softmax", modality: str | None = None
) -> ppo.Objective | fastshap.Objective | shapley.Objective:
    """The objective of the config's method, for a predictor whose answers are `output`, checked."""
    methods = {
        "fex": ppo.Objective, "fastshap": fastshap.Objective, "shapley": shapley.Objective,
    }  # fmt: skip
    if config.method not in methods:
        raise ValueError(f"method {config.method!r} is unknown; choose {', '.join(methods)}")
    if modality and (config.method == "shapley") != (modality == "tables"):
        raise ValueError(
            f"method {config.method!r} does not explain {modality}: choose the preset shapley for "
            "tables, and another for images and texts"
        )
    if config.method == "fastshap" and output == "value":
        raise ValueError(
            "the predictor answers with output='value', and FastSHAP learns from probabilities: "
            "use the preset contrast"
        )
    own = {"output": output} if config.method == "fex" else {}
    objective = methods[config.method](**config.objective, **own)
    if config.map_head == "shared" and getattr(objective, "surrogate", "") != "regression":
        raise ValueError(
            "map_head=shared is learned by FEX's regression, the preset contrast; for this "
            "objective choose token or wide"
        )
    return objective


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


def make_initial_state(
    config: ml_collections.ConfigDict,
    init: Callable,
    optimizer: optax.GradientTransformation,
    overlaps: bool = False,
) -> Callable[[dict | None], updates.TrainState]:
    """initial_state(the backbone's first parameters): None has them drawn.

    With `overlaps` it also holds what masks of the first batch are drawn with: the same.
    """

    def initial_state(backbone: dict | None) -> updates.TrainState:
        params = init(jax.random.key(config.seed))
        if backbone is not None:
            params["backbone"] = jax.tree.map(jnp.copy, backbone)
        zero, previous = jnp.zeros((), jnp.int32), params if overlaps else None
        return updates.TrainState(params, optimizer.init(params), zero, previous)

    return initial_state


def make_step(
    config: ml_collections.ConfigDict,
    predictor: Predictor,
    network: Callable,
    optimizer: optax.GradientTransformation,
) -> Callable:
    """step(state, predictor's parameters, batch, key) → (state, metrics), to be jitted."""
    objective = make_objective(config, predictor.output)
    bind, policy = make_bind(config, predictor), learning_policy(config, network)
    read, output = make_policy(config, network)

    def step(state: updates.TrainState, predictor_params: dict, batch: Any, key: jax.Array):
        model, inputs = bind(predictor_params, batch)
        key = jax.random.fold_in(key, state.step)

        def explainer(params: dict, x: Any, y: jax.Array) -> jax.Array:
            return policy(params).maps(model.view(x), y)

        if config.method == "shapley":
            return shapley.train_step(state, model, inputs, key, explainer, optimizer, objective)
        if config.method == "fastshap":
            return fastshap.train_step(
                state,
                inputs,
                key,
                predict=model.predict,
                mask=model.mask,
                features=model.features,
                explainer=explainer,
                optimizer=optimizer,
                objective=objective,
            )
        return algorithm.train_step(
            state,
            (inputs, read(state.params, model, inputs)),
            key,
            predict=lambda pair: model.predict(pair[0]),
            mask=lambda pair, masks: (model.mask(pair[0], masks), None),
            policy=output(model),
            optimizer=optimizer,
            objective=objective,
            grid=model.grid,
        )

    return step


def make_policy(
    config: ml_collections.ConfigDict, network: Callable[[dict], Policy]
) -> tuple[Callable, Callable]:
    """read and output of FEX's policy on pairs (inputs, what was read of them).

    read(params, model, inputs) is what a frozen backbone reads of inputs, once for all passes, or
    None. output(model) is the policy (params, pair, classes) → `ppo.PolicyOutput`.
    """
    frozen, policy = backbone_scale(config) == 0, learning_policy(config, network)

    def read(params: dict, model: predictors.Model, inputs: Any) -> Any:
        return policy(params).read(model.view(inputs)) if frozen else None

    def output(model: predictors.Model) -> Callable:
        def say(params: dict, pair: tuple, classes: jax.Array) -> ppo.PolicyOutput:
            given, reading = pair
            network = policy(params)
            if not frozen:
                reading = network.read(model.view(given))
            return ppo.PolicyOutput(*network.say(reading, classes, config.objective.kl))

        return say

    return read, output


def make_bind(config: ml_collections.ConfigDict, predictor: Predictor) -> predictors.Bind:
    """bind(params, batch) → the predictor's `Model` under the config's removal, and its inputs."""
    return predictors.from_checkpoint(
        predictor, config.predictor.fill, config.text.removal, jnp.dtype(config.dtype)
    )


def learning_policy(
    config: ml_collections.ConfigDict, network: Callable[[dict], Policy]
) -> Callable[[dict], Policy]:
    """The network; of a frozen backbone without gradients, and so without their backward pass."""
    if backbone_scale(config) > 0:
        return network
    return lambda params: network(params | {"backbone": jax.lax.stop_gradient(params["backbone"])})


def backbone_scale(config: ml_collections.ConfigDict) -> float:
    """Learning-rate factor of the backbone; 1 for one that starts from nothing."""
    is_new = config.policy in ("unet", "small_bert", "mlp") and not config.policy_backbone.path
    return 1.0 if is_new else config.optimizer.backbone_scale
