"""FastSHAP on photographs; needs the classifier of dinov2_caltech101.py.

    python train.py --config=configs/fastshap_caltech101.py --workdir=runs/fastshap_caltech101
    python eval.py --config=configs/dinov2_caltech101.py --workdir=runs/caltech101 \\
        --trained=runs/fastshap_caltech101
"""

import ml_collections

from configs import common, dinov2_caltech101


def get_config() -> ml_collections.ConfigDict:
    config = common.fastshap(dinov2_caltech101.get_config())
    config.optimizer.learning_rate = 3e-4  # that of FEX is halved for its wider head
    return config
