"""Seconds of a prediction and of attribution methods, ours or captum's; performance.py runs both.

    python benchmarks/beside_captum.py --side=torch

Both sides explain the same network, pictures and classes, with as many steps, samples and queries,
each as its users would call it. Prints one line of JSON.
"""

import functools
import json
import pathlib
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from absl import app, flags

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from benchmarks import performance  # noqa: E402

_SIDE = flags.DEFINE_enum("side", "jax", ["jax", "torch"], "Whose methods.")
_ROUNDS = 10  # of a prediction; of methods one, after the one that warms up


def in_torch(count: int, steps: int) -> dict[str, Callable[[], Any]]:
    """captum's methods on `count` pictures, as calls."""
    import captum.attr
    import torch
    from transformers import ViTConfig, ViTForImageClassification

    shape = performance.SHAPE
    config = ViTConfig(
        hidden_size=shape["hidden_size"],
        num_hidden_layers=shape["num_layers"],
        num_attention_heads=shape["num_heads"],
        intermediate_size=shape["mlp_dim"],
        num_labels=1000,
    )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    network = ViTForImageClassification(config).eval().to(device)
    images = torch.rand(count, 3, 224, 224, device=device)
    targets = torch.zeros(count, dtype=torch.long, device=device)
    cells = torch.arange(196, device=device).reshape(1, 14, 14)
    cells = cells.repeat_interleave(16, 1).repeat_interleave(16, 2)[None]  # [1, 1, 224, 224]

    def f(x: torch.Tensor) -> torch.Tensor:
        return network(x).logits.softmax(-1)

    def of_one(method: Any) -> None:
        """LIME's and KernelSHAP's linear models are of one picture."""
        options = {"target": 0, "feature_mask": cells, "n_samples": 10 * steps}
        options["perturbations_per_eval"] = min(16, 10 * steps)
        for image in images:
            method.attribute(image[None], **options)

    methods, at_once = captum.attr, {"target": targets}
    noisy = methods.NoiseTunnel(methods.Saliency(f))
    fast = torch.no_grad()
    calls = {
        "f, a prediction": fast(lambda: f(images)),
        "Gradient × input": lambda: methods.InputXGradient(f).attribute(images, **at_once),
        "Integrated Gradients": lambda: methods.IntegratedGradients(f).attribute(
            images, **at_once, n_steps=steps, internal_batch_size=count
        ),
        "GradSHAP": lambda: methods.GradientShap(f).attribute(
            images, torch.zeros_like(images[:1]), **at_once, n_samples=steps, stdevs=0.1
        ),
        "SmoothGrad": lambda: noisy.attribute(
            images, **at_once, nt_type="smoothgrad", nt_samples=steps, nt_samples_batch_size=1
        ),
        "Occlusion": fast(
            lambda: methods.FeatureAblation(f).attribute(images, **at_once, feature_mask=cells)
        ),
        "LIME": fast(lambda: of_one(methods.Lime(f))),
        "KernelSHAP": fast(lambda: of_one(methods.KernelShap(f))),
    }

    def wait(call: Callable[[], Any]) -> None:
        call()
        if device == "cuda":
            torch.cuda.synchronize()

    return {name: functools.partial(wait, call) for name, call in calls.items()}


def in_jax(count: int, steps: int) -> dict[str, Callable[[], Any]]:
    """The same of this package."""
    import jax

    from fex_jax import attributions, predictors

    predictor = performance.network()
    side = predictor.config.image_size
    pixels = np.random.default_rng(0).integers(0, 256, (count, side, side, 3), np.uint8)
    model, inputs = predictors.from_checkpoint(predictor)(predictor.params, pixels)
    given = model, inputs, np.zeros(count, np.int32), jax.random.key(0)
    predict = jax.jit(model.predict)
    calls = {
        "f, a prediction": lambda: predict(inputs),
        "Gradient × input": lambda: attributions.gradient_x_input(*given),
        "Integrated Gradients": lambda: attributions.integrated_gradients(*given, steps=steps),
        "GradSHAP": lambda: attributions.grad_shap(*given, samples=steps),
        "SmoothGrad": lambda: attributions.smooth_grad(*given, samples=steps),
        "Occlusion": lambda: attributions.occlusion(*given),
        "LIME": lambda: attributions.lime(*given, num_queries=10 * steps),
        "KernelSHAP": lambda: attributions.kernel_shap(*given, num_queries=10 * steps),
    }
    return {name: lambda c=call: jax.block_until_ready(c()) for name, call in calls.items()}


def main(_: list[str]) -> None:
    side = in_jax if _SIDE.value == "jax" else in_torch
    calls = side(flags.FLAGS.batch_size, flags.FLAGS.steps)
    first, *rest = calls
    took = performance.timed({first: calls[first]}, _ROUNDS)
    print(json.dumps(took | performance.timed({name: calls[name] for name in rest}, 1)))


if __name__ == "__main__":
    app.run(main)
