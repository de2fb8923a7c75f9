"""What an accelerator makes of a training step and of an explanation, and what bounds them.

    python benchmarks/accelerator.py --batch_sizes=64,256 --profile=runs/profile

A ViT-B/16 of 1,000 classes at 224 px with random weights, bfloat16 products: a prediction, an
explanation, a step of the published and of the default objective, at each batch size; then a
black box that answers on the host (`black_box_overlap.py` at 224 px). FLOPs are XLA's count of the
passes. Their rate stands beside that of one large product of matrices on the same device: what is
far below it waits for memory or for launches, and the profile, which TensorBoard or Perfetto
opens, says which. Under ten minutes on one GPU. Writes docs/results/accelerator.json; `--tiny`
tries the script on a CPU and writes nothing.
"""

import json
import pathlib
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
from absl import app, flags

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks import explanation_cost, performance  # noqa: E402
from fex_jax import predictors  # noqa: E402

_SIZES = flags.DEFINE_list("batch_sizes", ["64", "256"], "Pictures at a time.")
_PROFILE = flags.DEFINE_string("profile", None, "A folder for the profile of a step.")
_TINY = flags.DEFINE_bool("tiny", False, "A ViT-Ti of three blocks, two pictures.")
_PRESETS = {"authors": "the published objective", "contrast": "the default objective"}


def product_rate(side: int) -> float:
    """FLOP/s of a product of two square bfloat16 matrices, which nothing here can exceed."""
    matrix = jnp.ones((side, side), jnp.bfloat16)
    product = jax.jit(jnp.matmul)
    call = {"": lambda: jax.block_until_ready(product(matrix, matrix))}
    return 2 * side**3 / performance.timed(call, 10)[""]


def pass_flops(predictor: Any) -> float:
    """Of f for one picture, by XLA's analysis of the unoptimised program."""
    bind, picture = predictors.from_checkpoint(predictor), jnp.zeros((1, 224, 224, 3), jnp.uint8)

    def f(weights: Any, pixels: jax.Array) -> jax.Array:
        model, inputs = bind(weights, pixels)
        return model.predict(inputs)

    with jax.default_device(jax.local_devices(backend="cpu")[0]):  # a GPU's has no such analysis
        return jax.jit(f).lower(predictor.params, picture).cost_analysis()["flops"]


def rows_of(count: int, best: float) -> list[dict]:
    """Each call at a batch size: seconds, pictures a second, FLOP/s, and their share of `best`."""
    name = "ViT-Ti/16" if _TINY.value else "ViT-B/16"
    changes = explanation_cost.SIZES[name] | ({"num_layers": 3} if _TINY.value else {})
    predictor = performance.network(**changes)
    predict, explain, _ = performance.explaining(predictor, count)
    of_f = pass_flops(predictor)
    found = {"a prediction": (predict, of_f), "an explanation": (explain, of_f)}
    for preset, words in _PRESETS.items():
        step, passes, _ = performance.step_of(preset, predictor, count, dtype="bfloat16")
        # A gradient is a pass forward and two back.
        flops = of_f * (passes["f"][1] + passes["g"][1] + 3 * passes["∇g"][1] / 2)
        found[f"a step of {words}"] = step, flops
    if _PROFILE.value:
        with jax.profiler.trace(f"{_PROFILE.value}/{count}"):
            found[f"a step of {_PRESETS['contrast']}"][0]()
    rows = []
    for what, (call, flops) in found.items():
        seconds = performance.timed({what: call}, 5)[what]
        rate = count * flops / seconds
        row = {"": what, "pictures": count, "ms": 1e3 * seconds, "pictures/s": count / seconds}
        row |= {"TFLOP/s": rate / 1e12, "of a product's": rate / best}
        rows.append(row | {"bound by": "products" if rate > 0.5 * best else "memory, launches"})
        print(rows[-1], flush=True)
    return rows


def main(_: list[str]) -> None:
    best = product_rate(512 if _TINY.value else 8192)
    sizes = [2] if _TINY.value else [int(size) for size in _SIZES.value]
    rows = [row for size in sizes for row in rows_of(size, best)]
    box = ROOT / "build" / "black_box_overlap.json"
    options = ["--batches=4"] if _TINY.value else ["--side=224"]
    command = [sys.executable, str(ROOT / "benchmarks" / "black_box_overlap.py"), *options]
    subprocess.run([*command, f"--output={box}"], check=True, cwd=ROOT)
    asked = json.loads(box.read_text())["rows"]
    if not _TINY.value:
        device = jax.devices()[0].device_kind
        facts = {"device": device, "jax": jax.__version__, "a product, TFLOP/s": best / 1e12}
        path = ROOT / "docs" / "results" / "accelerator.json"
        facts |= {"rows": rows, "a black box": asked}
        path.write_text(json.dumps(facts, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    app.run(main)
