"""FEX of any classifier that can be queried, here a file, on a folder of pictures without classes.

    python train.py --config=configs/black_box.py --workdir=runs/box \
        --config.predictor.path=model.onnx --config.predictor.labels=labels.txt \
        --config.data.path=pictures
    python eval.py --workdir=runs/box --methods=all

Also model.tflite and model.keras; http://… and package.module:function, which need to be told what
they take: `--config.predictor.options='{"input": [224, 224, 3]}'`. `--queries=100000` says how many
may be asked; docs/black_boxes.md how many are needed. `--config.policy_backbone.path` names a ViT
that looks at the pictures. Without one it is facebook/dinov2-small for pictures of at least 112
pixels, where the hub's cache has it, or else, and with `--config.policy=unet`, a U-Net.
"""

import ml_collections

from configs import common


def get_config(preset: str = "contrast") -> ml_collections.ConfigDict:
    config = common.get_config(preset)
    config.data.name = "folder"
    config.batch_size = 32
    config.epochs = 10.0
    config.policy = "auto"
    if preset == "contrast":
        config.map_head = "shared"
    config.eval.num_images = 100
    config.eval.batch_size = 16
    for method in ("lime", "kernel_shap"):
        config.attributions[method].num_queries = 100
    return config
