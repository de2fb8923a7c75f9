"""What 1,000 explanations cost at the paper's size, method by method: its Table 3.

    python benchmarks/method_cost.py --config=configs/vit_imagenet.py

Seconds and memory of ViT-B/16 with 1000 classes at 224 px on the device at hand. Neither depends
on what the weights or the pictures are, so both are random. Each method is compiled, warm and
timed in turns with a prediction of the same batch; medians over the batches. `--write` keeps them
in docs/results/method_cost.json.
"""

import dataclasses
import json
import pathlib
import sys

import jax
import numpy as np
from absl import app, flags
from ml_collections import config_flags
from tqdm import tqdm

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from benchmarks.full_size import VIT_B16  # noqa: E402
from fex_jax import attributions, evaluation, explain, predictors, pretrained  # noqa: E402
from fex_jax.evaluation import tasks  # noqa: E402
from fex_jax.models import functional  # noqa: E402
from fex_jax.models.policy import functional_policy, make_backbone  # noqa: E402
from fex_jax.models.vit import ViTClassifier  # noqa: E402
from fex_jax.preprocessing import Preprocessing  # noqa: E402

_CONFIG = config_flags.DEFINE_config_file("config", None, "Whose methods' options to take.")
_METHODS = flags.DEFINE_list(
    "methods",
    "rise,integrated_gradients,grad_shap,gradcam_norm1,rollout,attlrp",
    "Beside the two explainers.",
)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 64, "Images at a time.")
_BATCHES = flags.DEFINE_integer("batches", 3, "Timed batches of each method.")
_LAYERS = flags.DEFINE_integer("layers", VIT_B16.num_layers, "Blocks; fewer for a quick look.")
_WRITE = flags.DEFINE_bool("write", False, "Write docs/results/method_cost.json.")
RESULTS = pathlib.Path(__file__).resolve().parent.parent / "docs" / "results" / "method_cost.json"


def main(_: list[str]) -> None:
    config, size = _CONFIG.value, _BATCH_SIZE.value
    vit = dataclasses.replace(VIT_B16, num_layers=_LAYERS.value)
    init, _ = functional(ViTClassifier, vit)
    labels = tuple(map(str, range(vit.num_classes)))
    predictor = pretrained.Checkpoint(vit, init(jax.random.key(0)), labels, Preprocessing())
    bind = predictors.from_checkpoint(predictor)
    predict = tasks.make_prediction(bind, predictor.params)

    methods, head = {}, config.map_head
    for name, kind in (("fex", "vit"), ("fex, U-Net", "unet")):
        backbone = make_backbone(kind, vit)
        draw, _ = functional_policy(backbone, vit.num_classes, map_head=head)
        explainer = explain.Explainer(predictor, backbone, draw(jax.random.key(1)), map_head=head)
        methods[name] = evaluation.trained(explainer)
    options = config.attributions.to_dict()
    for name in _METHODS.value:
        methods[name] = evaluation.of_function(
            name, attributions.METHODS[name], options.get(name, {}), bind, predictor.params
        )

    count = size * _BATCHES.value
    pictures = np.random.default_rng(0).integers(0, 256, (count, *(vit.image_size,) * 2, 3))
    classes = np.zeros(count, np.int32)
    task = tasks.Task(
        inputs=pictures.astype(np.uint8), grid=vit.grid, true_classes=classes, names=labels,
        known=None, accuracy=None, targets=classes, second=classes, reference=classes,
    )  # fmt: skip
    print(f"{jax.devices()[0].device_kind}, batches of {size}, float32")
    rows = {}
    for name, method in tqdm(methods.items(), unit="method"):
        cost = evaluation.attribute(method, predict, task, size, seed=0).cost
        rows[name] = {
            "Price, measured": cost["predictions"],
            "Seconds / 1000": cost["seconds_per_1000"],
            "GiB a batch": cost["peak_bytes"] / 2**30,
        }
        tqdm.write(f"{name}: {', '.join(f'{k} {v:.3g}' for k, v in rows[name].items())}")
    if _WRITE.value:
        RESULTS.write_text(json.dumps({"rows": rows}, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    flags.mark_flag_as_required("config")
    app.run(main)
