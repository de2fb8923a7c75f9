"""The compiled step of an explainer's training: objective, optimiser, first state, update."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import optax

from fex_jax import algorithm, objectives, ppo, predictors, updates
from fex_jax.export import Predictor
from fex_jax.models.policy import Policy

_NEW = "unet", "small_bert", "mlp"  # backbones that start from nothing


def make_objective(
    config: ml_collections.ConfigDict,
    output: str = "softmax",
    modality: str | None = None,
    inside: bool = True,
) -> Any:
    """The `Objective` of the config's method, for a predictor whose answers are `output`, checked.

    Of a black box, whose network cannot be had, `inside` is False.
    """
    if config.method not in objectives.KINDS:
        known = ", ".join(objectives.KINDS)
        raise ValueError(f"method {config.method!r} is unknown; choose {known}")
    module = objectives.of(config.method)
    if modality not in (None, of := getattr(module, "MODALITY", modality)):
        raise ValueError(
            f"the preset {config.method} is of {of}, and explains no {modality}: choose fastshap"
        )
    if output not in getattr(module, "OUTPUTS", (output,)):
        raise ValueError(
            f"the predictor answers with output={output!r}, and {module.LEARNS}: use the preset "
            "contrast"
        )
    if getattr(module, "INSIDE", False) and not inside:
        raise ValueError(
            f"the predictor is a black box, and the method {config.method!r} needs its network or "
            "its masked inputs: use the preset contrast or fastshap"
        )
    if config.method == "cortx" and backbone_scale(config) == 0:
        raise ValueError(
            "optimizer.backbone_scale is 0, and CoRTX's contrast has nothing to learn but the "
            "backbone: choose a number above 0"
        )
    own = {"output": output} if config.method == "fex" else {}
    objective = module.Objective(**config.objective, **own)
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
        # What learns apart has no part in the norm.
        optax.masked(optax.clip_by_global_norm(config.optimizer.clip_norm), _learns_maps),
        optax.adam(schedule),
        updates.scale_backbone(backbone_scale(config)),
    )


def _learns_maps(params: dict) -> dict:
    """False at the head that predicts faithfulness, True elsewhere."""
    heads = {name: not name.startswith("faith") for name in params.get("heads", {})}
    return {name: heads if name == "heads" else True for name in params}


def make_initial_state(
    config: ml_collections.ConfigDict,
    init: Callable,
    optimizer: optax.GradientTransformation,
    overlaps: bool = False,
) -> Callable[[dict | None, dict], updates.TrainState]:
    """initial_state(the backbone's first parameters, f's): None has the backbone's drawn.

    What learns beside the explainer is among them. With `overlaps` the state also holds what masks
    of the first batch are drawn with: the same.
    """

    def initial_state(backbone: dict | None, f: dict) -> updates.TrainState:
        params = init(jax.random.key(config.seed))
        if backbone is not None:
            params["backbone"] = jax.tree.map(jnp.copy, backbone)
        params |= jax.tree.map(jnp.copy, objectives.beside(config.method, f))
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
    objective = make_objective(config, predictors.output(predictor))
    bind, policy = make_bind(config, predictor), learning_policy(config, network)
    read, output = make_policy(config, network)
    given = config.policy_backbone.path or config.predictor.surrogate  # is not what f reads with
    own = predictor.inside and config.policy not in _NEW and not given
    shares = own and backbone_scale(config) == 0

    def step(state: updates.TrainState, predictor_params: dict, batch: Any, key: jax.Array):
        model, inputs = bind(predictor_params, batch)
        key = jax.random.fold_in(key, state.step)

        if config.method != "fex":
            module = objectives.of(config.method)

            def explainer(params: dict, x: Any, y: jax.Array) -> jax.Array:
                return policy(params).maps(model.view(x), y)

            learned = {"explainer": explainer}
            if hasattr(module, "networks"):
                given = explainer, model, policy, lambda params: bind(params, batch)[0]
                learned = module.networks(*given)
            learned |= {"optimizer": optimizer, "objective": objective}
            return module.train_step(state, model, inputs, key, **learned)
        inputs = model.drawn(inputs, jax.random.fold_in(key, 0))
        params = state.params
        if shares:  # XLA computes once what f(x) and the policy read
            params = params | {"backbone": predictor_params["backbone"]}
        return algorithm.train_step(
            state,
            (inputs, read(params, model, inputs)),
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
            found = ppo.PolicyOutput(*network.say(reading, classes, config.objective.kl))
            return found._replace(row=_of_row(network, model, given, classes))

        return say

    return read, output


def _of_row(
    network: Policy, model: predictors.Model, inputs: Any, classes: jax.Array
) -> jax.Array | None:
    """The map of each input's background row less the mean map of all of them, [B, T, N].

    None: there is no background. Nothing learns through it.
    """
    if model.background is None or model.rows is None:
        return None
    size = len(jax.tree.leaves(model.background)[0]), len(network.heads.map_out.bias[...])
    every = jnp.broadcast_to(jnp.arange(size[1]), size)
    maps = jax.lax.stop_gradient(network.maps(model.view(model.background), every))  # [M, K, N]
    return (maps - maps.mean(0))[model.rows(inputs), classes]


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
    is_new = config.policy in _NEW and not config.policy_backbone.path
    return 1.0 if is_new else config.optimizer.backbone_scale
