"""FastSHAP on scenes of Fashion-MNIST garments.

    python train.py --config=configs/fastshap_fashion_scenes.py --workdir=runs/fastshap_fashion
    python eval.py --config=configs/fashion_scenes.py --workdir=runs/fashion \\
        --trained=runs/fastshap_fashion
"""

import ml_collections

from configs import common, fashion_scenes


def get_config() -> ml_collections.ConfigDict:
    return common.fastshap(fashion_scenes.get_config())
