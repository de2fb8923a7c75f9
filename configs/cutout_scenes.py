"""FEX on photographed objects over photographs, exact masks: DINOv2-small, 112 px, 64 patches.

    python scripts/collect_cutouts.py --output=data/cutouts
    python scripts/train_predictor.py --config=configs/cutout_scenes.py \\
        --backbone=facebook/dinov2-small --image_size=112 --steps=400 --batch_size=32
    python train.py --config=configs/cutout_scenes.py --workdir=runs/cutouts
    python eval.py --config=configs/cutout_scenes.py --workdir=runs/cutouts

The first collects the cut-outs from two Debian packages; `--config.data.path` names a folder of
your own with objects/<class>/*.png and backgrounds/*.jpg. No object is in two splits.
"""

import ml_collections

from configs import dinov2_caltech101


def get_config(preset: str = "contrast") -> ml_collections.ConfigDict:
    config = dinov2_caltech101.get_config(preset)
    config.data.name = "cutout_scenes"
    config.data.path = "data/cutouts"
    config.data.limit = 3_200
    config.data.augment = False
    config.epochs = 1.0
    config.predictor.path = "runs/cutout_predictor"
    return config
