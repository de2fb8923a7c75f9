"""FastSHAP on digit scenes of 196 patches: the same classifier, data and queries an image as FEX.

    python train.py --config=configs/fastshap_digit_scenes_196.py --workdir=runs/fastshap_digits196
    python eval.py --config=configs/digit_scenes_196.py --workdir=runs/digits196 \\
        --trained=runs/fastshap_digits196
"""

import ml_collections

from configs import common, digit_scenes_196


def get_config() -> ml_collections.ConfigDict:
    return common.fastshap(digit_scenes_196.get_config())
