"""FEX on drawn reviews: the embedded text example, explained word by word.

    python train.py --config=configs/drawn_reviews.py --workdir=runs/reviews
    python eval.py --config=configs/drawn_reviews.py --workdir=runs/reviews

The reviews come from `fex_jax/reviews.py`, with exact rationales: nothing is downloaded.
"""

import ml_collections

from configs import common


def get_config(preset: str = "contrast") -> ml_collections.ConfigDict:
    config = common.get_config(preset)
    config.data.name = "drawn_reviews"
    config.data.limit = 12_800
    config.predictor.path = "models/reviews_bert"
    config.policy = "bert"
    config.objective.num_passes = 1  # of two classes an answer is one number, soon overfitted
    config.batch_size = 64
    config.optimizer.learning_rate = 1e-3
    config.optimizer.backbone_scale = 1.0
    return config
