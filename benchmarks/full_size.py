"""Compiles the paper-size training step ahead of time and prints its cost.

    python benchmarks/full_size.py --config=configs/vit_imagenet.py

The step of ViT-B/16 with 1000 classes is lowered from shapes alone, so no weights, data or
accelerator are needed. XLA's own analyses give FLOPs and memory for the backend at hand. On CPU
bfloat16 products are computed in float32, so the memory of an accelerator is lower. With
`--steps=20` that many are run as well, on random weights and pictures, and timed. `--row=NAME`
keeps the numbers in docs/results/full_size.json, those of steps in full_size_steps.json.
"""

import functools
import json
import pathlib
import statistics
import sys
import time

import jax
import jax.numpy as jnp
from absl import app, flags
from ml_collections import config_flags

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from fex_jax import predictors, pretrained  # noqa: E402
from fex_jax.models import functional, shapes  # noqa: E402
from fex_jax.models.policy import make_backbone  # noqa: E402
from fex_jax.models.vit import ViTClassifier, ViTConfig  # noqa: E402
from fex_jax.preprocessing import Preprocessing  # noqa: E402
from fex_jax.training import step as training  # noqa: E402

_STEPS = flags.DEFINE_integer("steps", 0, "Steps to run and time; 0: only compile.")
_ROW = flags.DEFINE_string("row", None, "Write a row of this name to docs/results.")
RESULTS = pathlib.Path(__file__).resolve().parent.parent / "docs" / "results"
_IMAGENET = 1_281_167  # pictures of ImageNet to train on
VIT_B16 = ViTConfig("vit", 224, 16, 1000, 768, 12, 12, 3072, layer_norm_eps=1e-12)


def count_flops(function, *arguments) -> float:
    """Floating-point operations of one call, by XLA's analysis of the unoptimised program."""
    with jax.default_device(jax.local_devices(backend="cpu")[0]):  # a GPU's has no such analysis
        return jax.jit(function).lower(*arguments).cost_analysis()["flops"]


def write_row(file: str, row: dict[str, float]) -> None:
    """Puts `--row` into a file of docs/results, beside the rows that are there."""
    path = RESULTS / file
    rows = json.loads(path.read_text())["rows"] if path.is_file() else {}
    found = {"rows": rows | {_ROW.value: row}}
    path.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n")


def main(_: list[str]) -> None:
    config = flags.FLAGS.config
    weights = shapes(ViTClassifier, VIT_B16)
    labels = tuple(map(str, range(VIT_B16.num_classes)))
    predictor = pretrained.Checkpoint(VIT_B16, weights, labels, Preprocessing())
    backbone = make_backbone(config.policy, VIT_B16)
    objective = training.make_objective(config)
    init, network = training.make_network(config, backbone, 1000, objective)
    optimizer = training.make_optimizer(config, num_steps=1000)
    initial_state = training.make_initial_state(config, init, optimizer)
    state = jax.eval_shape(initial_state, weights["backbone"], weights)
    images = jax.ShapeDtypeStruct((config.batch_size, 224, 224, 3), jnp.uint8)
    key = jax.eval_shape(functools.partial(jax.random.key, 0))

    step = training.make_step(config, predictor, network, optimizer)
    image = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    target = jax.ShapeDtypeStruct((1, config.objective.get("num_targets", 1)), jnp.int32)

    policy = training.learning_policy(config, network)

    def loss(params, x, y):  # as costly as the training loss, whose own terms are negligible
        say = policy(params).say if isinstance(x, tuple) else policy(params)
        logits, class_logits, *_ = say(x, y, config.objective.get("form", "authors"))
        return logits.sum() + class_logits.sum()

    # Loops are counted once by XLA, so the step is put together from its parts.
    f_pass = count_flops(lambda w, x: predictors.image(VIT_B16, w).predict(x), weights, image)
    queries, passes = 1 + config.objective.num_masks, config.objective.num_passes
    read, given, least = 0.0, image, queries + 1 + 3 * passes  # a gradient is a pass and two back
    if training.backbone_scale(config) == 0:  # it reads once for all passes, and f(x) with it
        read = count_flops(lambda p, x: policy(p).read(x), state.params, image) - f_pass
        given = jax.eval_shape(lambda p, x: policy(p).read(x), state.params, image)
        least = queries
    g_pass = count_flops(loss, state.params, given, target)
    g_gradient = count_flops(jax.grad(loss), state.params, given, target)
    total = queries * f_pass + read + g_pass + passes * g_gradient
    start = time.monotonic()
    lowered = jax.jit(step, donate_argnums=0).lower(state, weights, images, key)
    compiled = lowered.compile()
    memory = compiled.memory_analysis()
    resident = memory.argument_size_in_bytes + memory.output_size_in_bytes
    resident -= memory.alias_size_in_bytes
    print(f"objective {config.method}, batch {config.batch_size}, {config.dtype}")
    print(f"f: {queries} passes of {f_pass / 1e9:.1f} GFLOP an image")
    print(
        f"g: one pass of {g_pass / 1e9:.1f} and each of "
        f"{config.objective.num_passes} gradients of {g_gradient / 1e9:.1f} GFLOP"
    )
    print(f"training: {total / 1e9:.0f} GFLOP an image")
    print(f"in passes of f: {total / f_pass:.1f}, {least} at least")
    print(f"parameters, optimiser state and batch: {resident / 2**30:.2f} GiB")
    print(f"temporary memory at the peak: {memory.temp_size_in_bytes / 2**30:.2f} GiB")
    print(f"compiled for {jax.devices()[0].platform} in {time.monotonic() - start:.0f} s")
    if _ROW.value:
        cost = {
            "Queries of f, passes": queries,
            "Gradients of g": config.objective.num_passes,
            "GFLOP an image": total / 1e9,
            "In passes of f": total / f_pass,
            "At least": least,
            "Parameters, optimiser and batch, GiB": resident / 2**30,
            "Temporary memory, GiB": memory.temp_size_in_bytes / 2**30,
        }
        write_row("full_size.json", cost)
    if _STEPS.value:
        init_predictor, _ = functional(ViTClassifier, VIT_B16)
        frozen = init_predictor(jax.random.key(1))
        state = jax.jit(initial_state)(frozen["backbone"], frozen)
        pictures = jax.random.randint(jax.random.key(2), images.shape, 0, 256).astype(jnp.uint8)
        seconds = []
        for _ in range(_STEPS.value + 1):
            began = time.perf_counter()
            state, metrics = compiled(state, frozen, pictures, jax.random.key(0))
            jax.block_until_ready(metrics)
            seconds.append(time.perf_counter() - began)
        median = statistics.median(seconds[1:])  # the first warms up
        rate = config.batch_size / median
        print(
            f"{jax.devices()[0].device_kind}: {median:.3f} s a step, {rate:.3g} images/s, "
            f"{rate * total / 1e12:.3g} TFLOP/s; median of {_STEPS.value} steps"
        )
        row = {"Seconds a step": median, "Images / s": rate, "TFLOP/s": rate * total / 1e12}
        row["Hours, ImageNet once"] = _IMAGENET / rate / 3600
        if memory := jax.devices()[0].memory_stats():
            row["Memory at the peak, GiB"] = memory["peak_bytes_in_use"] / 2**30
            print(f"memory in use at the peak: {row['Memory at the peak, GiB']:.1f} GiB")
        if _ROW.value:
            write_row("full_size_steps.json", row)


if __name__ == "__main__":
    config_flags.DEFINE_config_file("config", None, "An experiment of configs/.")
    flags.mark_flag_as_required("config")
    app.run(main)
