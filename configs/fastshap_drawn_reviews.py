"""FastSHAP for the classifier and the texts of configs/drawn_reviews.py.

python train.py --config=configs/fastshap_drawn_reviews.py --workdir=runs/fastshap_reviews
"""

import ml_collections

from configs import common, drawn_reviews


def get_config() -> ml_collections.ConfigDict:
    return common.fastshap(drawn_reviews.get_config())
