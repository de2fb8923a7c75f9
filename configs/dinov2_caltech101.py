"""FEX on photographs: DINOv2-small with a classification head, Caltech-101, 112 px, 64 patches.

    python scripts/train_predictor.py --config=configs/dinov2_caltech101.py \\
        --backbone=facebook/dinov2-small --image_size=112 --steps=500 --batch_size=32
    python train.py --config=configs/dinov2_caltech101.py --workdir=runs/caltech101
    python eval.py --config=configs/dinov2_caltech101.py --workdir=runs/caltech101

TFDS downloads `caltech101`. For pictures of your own, or a copy of Caltech-101 as class folders,
add `--config.data.name=folder --config.data.path=DIRECTORY` to all three: a fifth of each class is
held out.
"""

import ml_collections

from configs import common


def get_config(preset: str = "contrast") -> ml_collections.ConfigDict:
    config = common.get_config(preset)
    config.data.name = "caltech101"
    config.predictor.path = "runs/dinov2_caltech101_predictor"
    config.batch_size = 32
    config.epochs = 2.0
    if preset == "fastshap":
        config.optimizer.learning_rate = 3e-4  # that of FEX is halved for its wider head
    config.eval.num_images = 500
    config.eval.batch_size = 32
    return config
