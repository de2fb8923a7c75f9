"""FastSHAP on photographed objects; needs the classifier of cutout_scenes.py.

    python train.py --config=configs/fastshap_cutout_scenes.py --workdir=runs/fastshap_cutouts
    python eval.py --config=configs/cutout_scenes.py --workdir=runs/cutouts \\
        --trained=runs/fastshap_cutouts
"""

import ml_collections

from configs import common, cutout_scenes


def get_config() -> ml_collections.ConfigDict:
    config = common.fastshap(cutout_scenes.get_config())
    config.optimizer.learning_rate = 3e-4  # that of FEX is halved for its wider head
    return config
