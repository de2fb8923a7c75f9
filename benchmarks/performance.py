"""What training, explaining and every other method cost, as ratios to what they are made of.

    python benchmarks/performance.py
    python benchmarks/performance.py --turns=7 --batch_size=64   # a GPU

A ViT-Ti/16 of 1,000 classes at 224 px, whose weights are random, for no time depends on them. Two
sides are compiled and warm, and are timed in turns; a ratio is of medians. What is compared with
torch runs in a process of its own, for two frameworks in one process fight for the cores; the
processes take turns. Writes docs/results/performance.json, memory.json and growth.json, and makes
the documents anew.
"""

import dataclasses
import json
import pathlib
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from absl import app, flags

ROOT = pathlib.Path(__file__).resolve().parent.parent
RESULTS = ROOT / "docs" / "results"
_CAPTUM = ROOT / "benchmarks" / "beside_captum.py"
sys.path.insert(0, str(ROOT))

_BATCH = flags.DEFINE_integer("batch_size", 4, "Pictures at a time.")
_TURNS = flags.DEFINE_integer("turns", 5, "Times that each side is measured.")
_STEPS = flags.DEFINE_integer(
    "steps", 10, "Of methods of gradients; those that query ask ten times as often."
)
SHAPE = {
    "image_size": 224, "patch_size": 16, "hidden_size": 192, "num_layers": 12, "num_heads": 3,
    "mlp_dim": 768,
}  # fmt: skip


def timed(calls: dict[str, Callable[[], Any]], turns: int) -> dict[str, float]:
    """Median seconds of each call, measured in turns; the first, which compiles, does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(turns + 1):
        for name, call in calls.items():
            began = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - began)
    return {name: statistics.median(of[1:]) for name, of in seconds.items()}


def write(rows: dict[str, list[dict]], **facts: Any) -> None:
    """Rows to files of docs/results, by name, with what they were measured on; then documents."""
    import jax

    facts |= {"device": jax.devices()[0].device_kind, "jax": jax.__version__}
    for name, found in rows.items():
        path = RESULTS / f"{name}.json"
        path.write_text(json.dumps(facts | {"rows": found}, indent=2, ensure_ascii=False) + "\n")
    subprocess.run([sys.executable, str(ROOT / "scripts" / "docs.py")], check=True, cwd=ROOT)


def network(**changes: int) -> Any:
    """A predictor with random weights, of the shape above or changed."""
    import jax
    import numpy as np

    from fex_jax import pretrained
    from fex_jax.models import shapes
    from fex_jax.models.vit import ViTClassifier, ViTConfig
    from fex_jax.preprocessing import Preprocessing

    config = ViTConfig(family="vit", num_classes=1000, **SHAPE)
    config = dataclasses.replace(config, **changes)
    rng = np.random.default_rng(0)
    drawn = jax.tree.map(
        lambda x: rng.normal(0, 0.02, x.shape).astype(np.float32),
        shapes(ViTClassifier, config),
    )
    labels = tuple(map(str, range(config.num_classes)))
    return pretrained.Checkpoint(config, drawn, labels, Preprocessing())


def explaining(predictor: Any, count: int) -> tuple[Callable, Callable, Any]:
    """One prediction and one explanation of a batch, compiled; and its pixels."""
    import jax
    import numpy as np

    from fex_jax import predictors
    from fex_jax.models.policy import functional_policy, make_backbone

    bind = predictors.from_checkpoint(predictor)
    init, policy = functional_policy(
        make_backbone("vit", predictor.config), predictor.config.num_classes, map_head="wide"
    )
    params = init(jax.random.key(0)) | {"backbone": predictor.params["backbone"]}
    side = predictor.config.image_size
    pixels = np.random.default_rng(0).integers(0, 256, (count, side, side, 3), np.uint8)
    classes = jax.numpy.zeros((count, 1), jax.numpy.int32)

    @jax.jit
    def predict(weights: Any, pixels: Any) -> jax.Array:
        model, inputs = bind(weights, pixels)
        return model.predict(inputs)

    @jax.jit
    def explain(params: Any, pixels: Any) -> jax.Array:
        model, inputs = bind(predictor.params, pixels)
        return policy(params).maps(model.view(inputs), classes)

    own, weights = jax.device_put(params), jax.device_put(predictor.params)
    return (
        lambda: jax.block_until_ready(predict(weights, pixels)),
        lambda: jax.block_until_ready(explain(own, pixels)),
        (explain.lower(own, pixels).compile(), predict.lower(weights, pixels).compile()),
    )


def step_of(
    preset: str, predictor: Any, count: int, **changes: Any
) -> tuple[Callable[[], None], dict[str, tuple[Callable[[], Any], int]], Any]:
    """A training step; the passes it consists of, and how often; the compiled step."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from fex_jax import predictors, settings
    from fex_jax.models.policy import make_backbone
    from fex_jax.training import step as training

    config = settings.default(preset)
    config.update_from_flattened_dict(
        {"batch_size": count, "objective.num_updates": 2, "optimizer.backbone_scale": 1.0}
        | {name.replace("__", "."): value for name, value in changes.items()}
    )
    objective = config.objective
    backbone = make_backbone(config.policy, predictor.config)
    classes = predictor.config.num_classes
    init, apply = training.make_network(config, backbone, classes, training.make_objective(config))
    optimizer = training.make_optimizer(config, 1000)
    initial_state = jax.jit(training.make_initial_state(config, init, optimizer))
    state = initial_state(predictor.params["backbone"], predictor.params)
    side = predictor.config.image_size
    pixels = np.random.default_rng(0).integers(0, 256, (count, side, side, 3), np.uint8)
    step = jax.jit(training.make_step(config, predictor, apply, optimizer), donate_argnums=0)
    weights, key = jax.device_put(predictor.params), jax.random.key(0)
    compiled = step.lower(state, weights, pixels, key).compile()
    held = [state]

    def run() -> None:
        held[0], metrics = compiled(held[0], weights, pixels, key)
        jax.block_until_ready(metrics)

    bind, policy = predictors.from_checkpoint(predictor), training.learning_policy(config, apply)
    x = jnp.asarray(np.random.default_rng(1).normal(size=(count, side, side, 3)), jnp.float32)
    y = jnp.zeros((count, objective.get("num_targets", 1)), jnp.int32)

    def loss(params: Any, x: jax.Array, y: jax.Array) -> jax.Array:
        logits, class_logits, *_ = policy(params)(x, y, objective.get("form", "authors"))
        return logits.sum() + class_logits.sum()

    params = init(jax.random.key(1))
    f = jax.jit(lambda weights, pixels: bind(weights, pixels)[0].predict(bind(weights, pixels)[1]))
    g, gradient = jax.jit(loss), jax.jit(jax.grad(loss))
    half, wait = count // 2, jax.block_until_ready
    passes = {
        "f": (lambda: wait(f(weights, pixels)), 1 + objective.num_masks),
        "g": (lambda: wait(g(params, x, y)), 1),
        "∇g": (lambda: wait(gradient(params, x[:half], y[:half])), 2 * objective.num_passes),
    }
    return run, passes, compiled


def main(_: list[str]) -> None:
    beside: dict[str, list] = {"jax": [], "torch": []}
    for turn in range(max(1, _TURNS.value // 2)):
        for side, found in beside.items():
            flags_ = [f"--{f}={flags.FLAGS[f].value}" for f in ("batch_size", "steps")]
            command = [sys.executable, str(_CAPTUM), f"--side={side}", *flags_]
            said = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)
            found.append(json.loads(said.stdout.splitlines()[-1]))
            print(side, turn + 1, found[-1], flush=True)

    size, predictor = _BATCH.value, network()
    rows, memory, growth = [], [], []

    def note(what: str, ours: float, other: str, seconds: float) -> None:
        rows.append({"": what, "ms": 1e3 * ours, "beside": other, "its ms": 1e3 * seconds,
                     "ratio": ours / seconds})  # fmt: skip
        print(rows[-1], flush=True)

    for count in (1, size):
        predict, explain, _ = explaining(predictor, count)
        took = timed({"explain": explain, "predict": predict}, 2 * _TURNS.value)
        note(f"an explanation of {count}", took["explain"], "a prediction", took["predict"])
    for preset, name in (("authors", "published"), ("contrast", "default")):
        run, passes, compiled = step_of(preset, predictor, size)
        calls = {"step": run} | {name: call for name, (call, _) in passes.items()}
        took = timed(calls, _TURNS.value)
        total = sum(took[name] * times for name, (_, times) in passes.items())
        note(f"a step of the {name} objective", took["step"], "the sum of its passes", total)
        memory.append(_memory(f"a step of the {name} objective, batch {size}", compiled))
    sides = {
        "heads": step_of("contrast", predictor, size, optimizer__backbone_scale=0.0)[0],
        "all": step_of("contrast", predictor, size)[0],
    }
    took = timed(sides, _TURNS.value)
    note("a step of the default objective, heads alone", took["heads"], "all learns", took["all"])
    for name in beside["torch"][0]:
        ours, theirs = (
            statistics.median(found[name] for found in beside[side]) for side in ("jax", "torch")
        )
        note(name, ours, "torch" if name.startswith("f,") else "captum", theirs)
    _, _, (explain, predict) = explaining(predictor, size)
    memory += [_memory(f"an explanation of {size}", explain), _memory("a prediction", predict)]

    # Twice as much of one thing.
    changed: dict[str, dict[str, Any]] = {
        "features, N": {"predictor": {"patch_size": 8}},
        "classes, K": {"predictor": {"num_classes": 2000}},
        "masks, s": {"step": {"objective__num_masks": 20}},
        "batch": {"count": 2 * size},
    }
    for name, new in changed.items():
        other = network(**new["predictor"]) if "predictor" in new else predictor
        factor = other.config.num_patches / 196 if name.endswith("N") else 2
        sides = {
            "before": step_of("contrast", predictor, size),
            "after": step_of("contrast", other, new.get("count", size), **new.get("step", {})),
        }
        took = timed({side: run for side, (run, _, _) in sides.items()}, 2)
        maps = {
            "before": explaining(predictor, size)[1],
            "after": explaining(other, new.get("count", size))[1],
        }
        explain_took = timed(maps, _TURNS.value)
        bytes_ = {side: _memory("", c)["temporary MiB"] for side, (_, _, c) in sides.items()}
        growth.append(
            {
                "more": name,
                "times": factor,
                "a step's time": took["after"] / took["before"],
                "a step's memory": bytes_["after"] / bytes_["before"],
                "an explanation's time": explain_took["after"] / explain_took["before"],
            }
        )
        print(growth[-1], flush=True)
    write({"performance": rows, "memory": memory, "growth": growth}, batch=size)


def _memory(what: str, compiled: Any) -> dict[str, Any]:
    found = compiled.memory_analysis()
    return {
        "": what,
        "arguments MiB": found.argument_size_in_bytes / 2**20,
        "temporary MiB": found.temp_size_in_bytes / 2**20,
    }


if __name__ == "__main__":
    app.run(main)
