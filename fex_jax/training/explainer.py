"""Training an explainer of a classifier: FEX's objectives, or its rivals', on one loop."""

import contextlib
import itertools
import json
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import ml_collections
import numpy as np

from fex_jax import (
    algorithm,
    checkpoint,
    checks,
    export,
    faithfulness,
    feeding,
    logs,
    objectives,
    predictors,
    pretrained,
    settings,
    sharding,
)
from fex_jax.export import Predictor
from fex_jax.feeding import Source
from fex_jax.host import Bank, HostError, HostPredictor, black_box
from fex_jax.models import ONCE, Params
from fex_jax.models.policy import Backbone
from fex_jax.training import asking, counting, held_out, identity, loop, overlap, run
from fex_jax.training import step as steps
from fex_jax.training.opening import open_backbone, open_predictor
from fex_jax.updates import TrainState

# Settings that may differ when a run continues, and the one that is said when it does. Of the
# predictor the digest counts, wherever it lies.
_FREE = (
    "eval.", "attributions.", "checkpoint.", "mesh.", "log_every", "predictor.path",
    "predictor.labels", "predictor.price", "distributed.", "data.cache", "data.name",
    "data.column", "data.eval_split",
)  # fmt: skip
_LEARNING_RATE = "optimizer.learning_rate"
_FEW_UPDATES = 200  # fewer teach a map head next to nothing


@jax.enable_x64(False)
def train(
    config: ml_collections.ConfigDict,
    workdir: pathlib.Path,
    predictor: Predictor | HostPredictor | None = None,
    source: Source | None = None,
    queries: int | None = None,
) -> None:
    """From the last checkpoint or the start to the end; for FEX, Algorithm 1 of the paper.

    Writes `<workdir>/export`, which `fex_jax.load` opens.

    Args:
      config: as `fex_jax.settings.default` returns it.
      predictor: what is explained; by default what the config names.
      source: the training data; by default what the config names.
      queries: of a black box: answers that the run may ask for in all; None: any number.

    Raises:
      ValueError: settings that do not go together, a folder of another run, or in use.
      OSError: a file that cannot be read or written.
      FloatingPointError: training diverged; the last good checkpoint is kept.
      HostError: a black box failed; its answers are kept, and none is asked for again.
    """
    settings.check(config)
    sharding.connect(**config.distributed)
    workdir = checks.folder(workdir, "workdir").absolute()  # wherever f goes
    mesh = sharding.make_mesh(config.mesh.fsdp)
    objective = steps.make_objective(config)
    num_updates = objective.num_updates
    devices, batch_size = jax.device_count(), config.batch_size
    if batch_size < 1 or batch_size % (devices * num_updates):
        raise ValueError(
            f"batch_size={batch_size} must be a multiple of devices x objective.num_updates = "
            f"{devices} x {num_updates}"
        )
    if predictor is None:
        predictor = open_predictor(config)
    if not isinstance(predictor, HostPredictor):
        steps.make_objective(config, predictor.output, predictor.modality)
        if queries is not None:
            raise ValueError("queries are counted of a black box; leave them out")
        queried = load_queried(config, predictor)
        source = source or feeding.of(predictor).open_source(
            predictor, config, config.data.train_split
        )
        kept, source = held_out.split(config, source)
        warn_of_few_updates(config, source)
        backbone, start, reads = open_backbone(config, queried)
        if predictor.modality == "images":
            predictor, queried = predictor.read_as(reads), queried.read_as(reads)
        with run.lock(workdir):
            _train(config, workdir, mesh, predictor, queried, source, kept, backbone, start)
        return
    kind = black_box.kind_of(predictor)
    steps.make_objective(config, predictor.output, kind.modality, inside=False)
    box = black_box.of(predictor)
    source = source or feeding.of(box).open_source(box, config, config.data.train_split)
    kept, source = held_out.split(config, source)
    warn_of_few_updates(config, source)
    config = asking.with_network(config, predictor, workdir)
    backbone, start, reads = kind.policy(config, predictor, source)
    planned = num_steps(config, source) * batch_size * counting.of_input(config)
    planned += counting.of_held_out(config, predictor, source, kept.size if kept else 0)
    with run.lock(workdir):
        try:
            given = predictor, reads, config, workdir, source, planned, queries
            with asking.settled(*given) as box:
                _train(config, workdir, mesh, box, box, source, kept, backbone, start)
        except HostError as error:
            raise HostError(f"{error}. The same call continues") from error


def _train(
    config: ml_collections.ConfigDict,
    workdir: pathlib.Path,
    mesh: jax.sharding.Mesh,
    predictor: Predictor,
    queried: Predictor,
    source: Source,
    kept: Source | None,
    backbone: Backbone,
    start: Params | None,
) -> None:
    """`train`, of a policy with this backbone, whose first parameters are `start`; `kept` inputs
    are held out."""
    objective = steps.make_objective(config, predictors.output(predictor))
    batch_size, total = config.batch_size, num_steps(config, source)

    # The policy, its optimiser and where their arrays live.
    init, network = steps.make_network(config, backbone, predictor.config.num_classes, objective)
    optimizer = steps.make_optimizer(config, total)
    own = jax.tree.map(np.asarray, queried.params)  # the same in every process
    frozen = jax.device_put(own, sharding.split_parameters(own, mesh))
    beside = objectives.beside(config.method, own)
    overlaps = overlap.suits(config, predictor)
    older = overlaps and overlap.draws_by_policy(config)
    initial_state = steps.make_initial_state(config, init, optimizer, older)
    shapes = jax.eval_shape(initial_state, start, own)
    shardings = sharding.split_parameters(shapes, mesh)
    whole = sharding.replicated(mesh)
    key = jax.jit(lambda: jax.random.key(config.seed), out_shardings=whole)()
    placed = shardings, whole

    # Continue, or begin.
    manager = checkpoint.open_manager(workdir / "checkpoints", config.checkpoint.keep)
    identities = {
        "predictor": identity.of_predictor(predictor),
        "surrogate": identity.of_predictor(queried) if config.predictor.surrogate else None,
        "data": identity.of_data(source, predictor),
    }
    exported, best = workdir / "export", workdir / "best"
    if manager.latest_step() is not None:
        check_same_run(config, identities, workdir, finished=manager.latest_step() == total)
        state = checkpoint.restore(manager, sharding.with_shardings(shapes, shardings))
    elif (exported / "explainer.safetensors").is_file():
        raise ValueError(
            f"{exported} holds a finished explainer, but its checkpoints are gone: training "
            "would begin anew and overwrite it. Choose another --workdir, or move it away"
        )
    else:
        start = jax.tree.map(np.asarray, start)  # the same in every process
        first = jax.jit(initial_state, out_shardings=shardings, compiler_options=ONCE)
        state = first(start, own)
        held_out.forget(best)
    if jax.process_index() == 0 and (
        not (exported / "explainer.json").is_file() or state.step == 0
    ):
        save_description(config, objective, predictor, backbone, exported)
    run.write_json(workdir / "config.json", config.to_dict())
    rates = learning_rates(workdir / "run.json", int(state.step), config)
    run.write_json(workdir / "run.json", identities | {"learning_rates": rates})
    run.say(f"{workdir}: steps {state.step} to {total} of {batch_size} inputs")

    def save(folder: pathlib.Path, params: Params) -> None:
        """All processes have a part in it, and one writes; of what learns beside it nothing."""
        params = sharding.gather({n: p for n, p in params.items() if n not in beside}, mesh)
        if jax.process_index() == 0:
            export.save_weights(folder, params)

    # Step after step.
    stream = feeding.open_stream(predictor, source, config)
    revise = None
    if kept is not None:
        revise = held_out.make_revise(
            steps.make_bind(config, queried),
            network,
            frozen,
            feeding.of(predictor).in_order(predictor, kept, config),
            objective,
            key,
            best,
            frozen=steps.backbone_scale(config) == 0,
            keep=save,
        )
    bank = predictor.f if isinstance(getattr(predictor, "f", None), Bank) else None
    with contextlib.ExitStack() as stack:
        if not predictor.inside:
            stack.enter_context(jax.set_mesh(mesh))  # says which rows are whose to ask about
        if overlaps:
            given = config, predictor, network, optimizer, key, total, placed
            step = stack.enter_context(overlap.stepping(*given))
        else:
            fused = steps.make_step(config, queried, network, optimizer)
            fused = jax.jit(fused, donate_argnums=0, out_shardings=placed)

            def step(state: TrainState, batch: Any) -> tuple[TrainState, dict]:
                return fused(state, frozen, batch, key)

        def feed(start: int) -> Iterator[Any]:
            found = (sharding.global_batch(batch, mesh) for batch in stream(start))
            return itertools.pairwise(found) if overlaps else found

        state = loop.train(
            step,
            state,
            feed,
            total,
            manager,
            make_report(workdir, int(state.step), bank),
            revise,
            batch_size=batch_size,
            log_every=config.log_every,
            checkpoint_every=config.checkpoint.every,
            revise_every=held_out.interval(total),
        )
    if kept is None:
        save(exported, state.params)
    elif jax.process_index() == 0:
        print(held_out.conclude(best, exported, total))


def num_steps(config: ml_collections.ConfigDict, source: Source) -> int:
    """Batches of a whole run."""
    num_examples = min(config.data.limit or source.size, source.size)
    return max(1, int(config.epochs * num_examples) // config.batch_size)


def warn_of_few_updates(config: ml_collections.ConfigDict, source: Source) -> None:
    """Says so before anything is asked or learned."""
    updates = num_steps(config, source) * config.objective.num_updates * config.objective.num_passes
    if updates < _FEW_UPDATES:
        run.say(
            f"WARNING: {updates} updates are too few to learn anything; {_FEW_UPDATES} are the "
            "least. Give more items or epochs, or a smaller batch_size"
        )


def load_queried(config: ml_collections.ConfigDict, predictor: Predictor) -> Predictor:
    """What training asks about masked inputs: the predictor, or its surrogate."""
    if not config.predictor.surrogate:
        return predictor
    surrogate = pretrained.load(config.predictor.surrogate, config.predictor.image_size or None)
    for name in ("labels", "output", "preprocessing"):
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


def check_same_run(
    config: ml_collections.ConfigDict, identities: dict, workdir: pathlib.Path, finished: bool
) -> None:
    """Refuses to continue with other settings, another predictor, surrogate or other data."""
    run.check_same(
        workdir / "config.json",
        config.to_dict(),
        _FREE,
        may_change=None if finished else _LEARNING_RATE,
    )
    run.check_same(workdir / "run.json", identities, ("learning_rates.",))


def learning_rates(path: pathlib.Path, step: int, config: ml_collections.ConfigDict) -> dict:
    """Step from which on → the learning rate, of the run so far and from `step` on."""
    rates = json.loads(path.read_text()).get("learning_rates", {}) if step else {}
    if config.optimizer.learning_rate not in list(rates.values())[-1:]:
        rates[str(step)] = config.optimizer.learning_rate
    return rates


def save_description(
    config: ml_collections.ConfigDict,
    objective: Any,
    predictor: Predictor,
    backbone: Any,
    directory: pathlib.Path,
    faithful: bool | None = None,
) -> None:
    """All of the export but the explainer's weights, so that an unfinished run can be opened."""
    module = objectives.of(config.method)
    own = {}
    if hasattr(module, "exported"):
        own = module.exported(objective, predictor.config.num_classes)
    export.save_description(
        directory,
        predictor,
        backbone,
        method=objectives.METHODS[config.method],
        **own,
        critic=objectives.trait(config.method, "CRITIC"),
        map_head=config.map_head,
        faithful=faithfulness.is_learned(objective) if faithful is None else faithful,
        fill=config.predictor.fill,
        unit=config.text.unit,
        removal=config.text.removal,
    )


def make_report(
    workdir: pathlib.Path, start: int, bank: Bank | None = None
) -> Callable[[dict[str, float], dict], str]:
    """report(metrics, parameters) → a line for people; the first collapse is said, once."""
    log = logs.open_log(workdir, start) if jax.process_index() == 0 else lambda metrics: None
    warned = False

    def report(metrics: dict[str, float], _: dict) -> str:
        nonlocal warned
        log(metrics)
        line = logs.console_line(metrics) + (f"  {asking.countdown(bank)}" if bank else "")
        if not warned and (warning := algorithm.collapse_warning(metrics)):
            warned = True
            line += f"\nWARNING at step {metrics['step']}: {warning}"
        return line

    return report
