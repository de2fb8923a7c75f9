"""The compiled step of an explainer's training: objective, optimiser, first state, update."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import optax

from fex_jax import faithfulness, objectives, predictors, updates
from fex_jax.export import Predictor
from fex_jax.models.policy import Backbone, Policy, functional_policy

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
    if hasattr(module, "MOVES") and backbone_scale(config) == 0:
        raise ValueError(
            f"optimizer.backbone_scale is 0, and {module.MOVES}: choose a number above 0"
        )
    if config.map_head == "shared" and not hasattr(module, "REGRESSES"):
        raise ValueError(
            "map_head=shared is learned by FEX's regression, the preset contrast; for this "
            "objective choose token or wide"
        )
    fields = module.Objective.__dataclass_fields__
    if unknown := [name for name in config.objective if name not in fields]:
        raise ValueError(
            f"objective.{unknown[0]} is no setting of the method {config.method}, which has "
            f"{', '.join(fields)}: leave it out"
        )
    own = {"output": output} if "output" in fields else {}
    return module.Objective(**config.objective, **own)


def make_network(
    config: ml_collections.ConfigDict, backbone: Backbone, num_classes: int, objective: Any
) -> tuple[Callable[[jax.Array], dict], Callable[[dict], Policy]]:
    """init(key) → parameters, and network(parameters) → the policy with the heads that learn."""
    return functional_policy(
        backbone,
        num_classes,
        jnp.dtype(config.dtype),
        config.remat,
        config.map_head,
        faithfulness.is_learned(objective),
        objectives.trait(config.method, "CRITIC"),
    )


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
    module, bind = objectives.of(config.method), make_bind(config, predictor)
    networks = getattr(module, "networks", objectives.explainer)
    given = config.policy_backbone.path or config.predictor.surrogate  # is not what f reads with
    own = predictor.inside and config.policy not in _NEW and not given
    shares = own and backbone_scale(config) == 0

    def step(state: updates.TrainState, predictor_params: dict, batch: Any, key: jax.Array):
        model, inputs = bind(predictor_params, batch)
        key = jax.random.fold_in(key, state.step)
        given = make_networks(config, network, model, objective)._replace(
            rebind=lambda params: bind(params, batch)[0],
            shared=predictor_params["backbone"] if shares else None,
        )
        return module.train_step(
            state, model, inputs, key, **networks(given), optimizer=optimizer, objective=objective
        )

    return step


def make_networks(
    config: ml_collections.ConfigDict,
    network: Callable[[dict], Policy],
    model: predictors.Model,
    objective: Any,
) -> objectives.Networks:
    """What an objective's `networks` takes, but for `rebind` and what is `shared`."""
    policy, frozen = learning_policy(config, network), backbone_scale(config) == 0
    return objectives.Networks(model, policy, frozen, objective)


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
