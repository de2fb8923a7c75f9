"""The price of an explanation: its time divided by that of a prediction.

    python benchmarks/explanation_cost.py --workdir=runs/demo

Both are compiled, warm and timed in turns in one process; medians over the repeats.
"""

import pathlib
import statistics
import sys
import time

import jax
import jax.numpy as jnp
from absl import app, flags

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from fex_jax import explain, predictors  # noqa: E402

_WORKDIR = flags.DEFINE_string("workdir", None, "The folder that train.py wrote.")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 64, "Images at a time.")
_REPEATS = flags.DEFINE_integer("repeats", 30, "Timed calls of each.")


def seconds(function, *arguments) -> float:
    start = time.perf_counter()
    jax.block_until_ready(function(*arguments))
    return time.perf_counter() - start


def main(_: list[str]) -> None:
    explainer = explain.load(_WORKDIR.value)
    config = explainer.predictor.config
    predict = jax.jit(lambda params, x: predictors.image(config, params).predict(x))
    explain_class = jax.jit(explainer.maps)
    shape = (_BATCH_SIZE.value, config.image_size, config.image_size, config.num_channels)
    images = jax.random.normal(jax.random.key(0), shape)
    targets = jnp.zeros((_BATCH_SIZE.value, 1), jnp.int32)
    times = {"prediction": [], "explanation": []}
    for repeat in range(_REPEATS.value + 1):
        prediction = seconds(predict, explainer.predictor.params, images)
        explanation = seconds(explain_class, explainer.params, images, targets)
        if repeat:  # the first compiles
            times["prediction"].append(prediction)
            times["explanation"].append(explanation)
    medians = {name: statistics.median(values) for name, values in times.items()}
    for name, value in medians.items():
        print(f"{name}: {1000 * value / _BATCH_SIZE.value:.3f} ms an image")
    ratio = medians["explanation"] / medians["prediction"]
    print(f"price, measured: {ratio:.2f} predictions (batch {_BATCH_SIZE.value})")


if __name__ == "__main__":
    flags.mark_flag_as_required("workdir")
    app.run(main)
