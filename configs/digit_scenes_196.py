"""Digit scenes on a 14x14 grid, the resolution of the paper's maps: 196 patches of 8 pixels.

    python train.py --config=configs/digit_scenes_196.py --workdir=runs/digits196
    python eval.py --config=configs/digit_scenes_196.py --workdir=runs/digits196

The classifier is that of digit_scenes.py with its position embeddings interpolated to 112 pixels.
"""

import ml_collections

from configs import digit_scenes


def get_config(preset: str = "contrast") -> ml_collections.ConfigDict:
    config = digit_scenes.get_config(preset)
    config.predictor.image_size = 112
    return config
