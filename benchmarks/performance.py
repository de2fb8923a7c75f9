"""What training, explaining and every baseline cost, as ratios to what they are made of.

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
sys.path.insert(0, str(ROOT))

_BATCH = flags.DEFINE_integer("batch_size", 4, "Pictures at a time.")
_TURNS = flags.DEFINE_integer("turns", 5, "Times that each side is measured.")
_STEPS = flags.DEFINE_integer("steps", 10, "Of Integrated Gradients; LIME asks ten times as often.")
_PART = flags.DEFINE_enum("part", "all", ["all", "jax", "torch"], "all: both, in turns.")
_TAKES = "f, a prediction", "Integrated Gradients", "Occlusion", "LIME"
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


# ---------------------------------------------------------------- torch


def in_torch() -> dict[str, float]:
    """Seconds of f and of captum's methods, as a user of captum would call them."""
    import captum.attr
    import torch
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(
        hidden_size=SHAPE["hidden_size"],
        num_hidden_layers=SHAPE["num_layers"],
        num_attention_heads=SHAPE["num_heads"],
        intermediate_size=SHAPE["mlp_dim"],
        num_labels=1000,
    )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    network = ViTForImageClassification(config).eval().to(device)
    images = torch.rand(_BATCH.value, 3, 224, 224, device=device)
    targets = torch.zeros(len(images), dtype=torch.long, device=device)
    cells = torch.arange(196, device=device).reshape(1, 14, 14)
    cells = cells.repeat_interleave(16, 1).repeat_interleave(16, 2)[None]  # [1, 1, 224, 224]

    def f(x: torch.Tensor) -> torch.Tensor:
        return network(x).logits.softmax(-1)

    def wait(run: Callable[[], Any]) -> Callable[[], None]:
        def call() -> None:
            run()
            if device == "cuda":
                torch.cuda.synchronize()

        return call

    gradients = captum.attr.IntegratedGradients(f)
    occlusion, lime = captum.attr.FeatureAblation(f), captum.attr.Lime(f)
    steps, queries = _STEPS.value, 10 * _STEPS.value
    at_once = min(16, queries)
    calls = {
        "f, a prediction": torch.no_grad()(lambda: f(images)),
        "Integrated Gradients": lambda: gradients.attribute(
            images, target=targets, n_steps=steps, internal_batch_size=len(images)
        ),
        "Occlusion": torch.no_grad()(
            lambda: occlusion.attribute(images, target=targets, feature_mask=cells)
        ),
        # Its surrogate is of one picture.
        "LIME": torch.no_grad()(
            lambda: [
                lime.attribute(
                    image[None],
                    target=0,
                    feature_mask=cells,
                    n_samples=queries,
                    perturbations_per_eval=at_once,
                )
                for image in images
            ]
        ),
    }
    calls = {name: wait(call) for name, call in calls.items()}
    return timed({_TAKES[0]: calls[_TAKES[0]]}, 10) | timed({n: calls[n] for n in _TAKES[1:]}, 1)


# ---------------------------------------------------------------- JAX


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
        shapes(lambda rngs: ViTClassifier(config, rngs=rngs)),
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
    from fex_jax.models.policy import functional_policy, make_backbone
    from fex_jax.training import step as training

    config = settings.default(preset)
    config.update_from_flattened_dict(
        {"batch_size": count, "objective.num_updates": 2, "optimizer.backbone_scale": 1.0}
        | {name.replace("__", "."): value for name, value in changes.items()}
    )
    objective = config.objective
    backbone = make_backbone(config.policy, predictor.config)
    classes = predictor.config.num_classes
    init, apply = functional_policy(
        backbone, classes, jnp.dtype(config.dtype), config.remat, config.map_head
    )
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
    y = jnp.zeros((count, objective.num_targets), jnp.int32)

    def loss(params: Any, x: jax.Array, y: jax.Array) -> jax.Array:
        logits, class_logits, values, *_ = policy(params)(x, y, objective.kl)
        return logits.sum() + class_logits.sum() + values.sum()

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


def methods(predictor: Any) -> dict[str, float]:
    """Seconds of f and of our methods on the same pictures and queries as captum's."""
    import jax
    import numpy as np

    from fex_jax import attributions, predictors

    size, side = _BATCH.value, predictor.config.image_size
    pixels = np.random.default_rng(0).integers(0, 256, (size, side, side, 3), np.uint8)
    model, inputs = predictors.from_checkpoint(predictor)(predictor.params, pixels)
    targets, key = np.zeros(size, np.int32), jax.random.key(0)
    predict = jax.jit(model.predict)
    given = model, inputs, targets, key
    calls = {
        "f, a prediction": lambda: predict(inputs),
        "Integrated Gradients": lambda: attributions.integrated_gradients(
            *given, steps=_STEPS.value
        ),
        "Occlusion": lambda: attributions.occlusion(*given),
        "LIME": lambda: attributions.lime(*given, num_queries=10 * _STEPS.value),
    }
    calls = {n: lambda c=c: jax.block_until_ready(c()) for n, c in calls.items()}
    return timed({_TAKES[0]: calls[_TAKES[0]]}, 10) | timed({n: calls[n] for n in _TAKES[1:]}, 1)


def main(_: list[str]) -> None:
    if _PART.value == "torch":
        print(json.dumps(in_torch()))
        return
    if _PART.value == "jax":
        print(json.dumps(methods(network())))
        return
    beside: dict[str, list] = {"jax": [], "torch": []}
    for turn in range(max(1, _TURNS.value // 2)):
        for part, found in beside.items():
            flags_ = [f"--{f}={flags.FLAGS[f].value}" for f in ("batch_size", "steps")]
            command = [sys.executable, __file__, f"--part={part}", *flags_]
            said = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)
            found.append(json.loads(said.stdout.splitlines()[-1]))
            print(part, turn + 1, found[-1], flush=True)

    import jax

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
    for name in _TAKES:
        ours, theirs = (
            statistics.median(found[name] for found in beside[part]) for part in ("jax", "torch")
        )
        note(name, ours, "torch" if name == _TAKES[0] else "captum", theirs)
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
    device = jax.devices()[0].device_kind
    facts = {"device": device, "batch": size, "jax": jax.__version__}
    for name, found in (("performance", rows), ("memory", memory), ("growth", growth)):
        path = RESULTS / f"{name}.json"
        path.write_text(json.dumps(facts | {"rows": found}, indent=2, ensure_ascii=False) + "\n")
    subprocess.run([sys.executable, str(ROOT / "scripts" / "docs.py")], check=True, cwd=ROOT)


def _memory(what: str, compiled: Any) -> dict[str, Any]:
    found = compiled.memory_analysis()
    return {
        "": what,
        "arguments MiB": found.argument_size_in_bytes / 2**20,
        "temporary MiB": found.temp_size_in_bytes / 2**20,
    }


if __name__ == "__main__":
    app.run(main)
