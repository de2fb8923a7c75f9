"""FEX on scenes of Fashion-MNIST garments, 64 patches.

    python train.py --config=configs/fashion_scenes.py --workdir=runs/fashion
    python eval.py --config=configs/fashion_scenes.py --workdir=runs/fashion

The garments come from Debian's package dataset-fashion-mnist where it is installed, or else TFDS
downloads `fashion_mnist`; `--config.data.path` names another folder with the four IDX files.
"""

import ml_collections

from configs import digit_scenes


def get_config(preset: str = "contrast") -> ml_collections.ConfigDict:
    config = digit_scenes.get_config(preset)
    config.data.name = "fashion_scenes"
    config.predictor.path = "models/fashion_vit"
    return config
