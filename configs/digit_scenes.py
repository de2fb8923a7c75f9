"""FEX on cluttered digit scenes: the embedded default, 64 patches.

    python train.py --config=configs/digit_scenes.py --workdir=runs/digits
    python eval.py --config=configs/digit_scenes.py --workdir=runs/digits

The objective follows the colon: `--config=configs/digit_scenes.py:fastshap`, l2x, cortx, paper or
authors; contrast is the default. So it does in every config.
"""

import ml_collections

from configs import common


def get_config(preset: str = "contrast") -> ml_collections.ConfigDict:
    config = common.get_config(preset)
    config.data.name = "digit_scenes"
    config.data.limit = 19_200
    config.batch_size = 64
    config.data.augment = False
    config.predictor.path = "models/digits_vit"
    config.optimizer.learning_rate = 1e-3
    # Scenes are plenty: a backbone that learns gains; by contrast, less.
    config.optimizer.backbone_scale = 0.1 if preset == "cortx" else 1.0
    return config
