"""FastSHAP on digit scenes: the same classifier, data and queries an image as FEX.

    python train.py --config=configs/fastshap_digit_scenes.py --workdir=runs/fastshap_digits
    python eval.py --config=configs/digit_scenes.py --workdir=runs/digits \\
        --trained=runs/fastshap_digits

`--config.policy=unet` trains a U-Net.
"""

import ml_collections

from configs import common, digit_scenes


def get_config() -> ml_collections.ConfigDict:
    return common.fastshap(digit_scenes.get_config())
