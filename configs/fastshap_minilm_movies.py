"""FastSHAP for the classifier and the texts of configs/minilm_movies.py.

python train.py --config=configs/fastshap_minilm_movies.py --workdir=runs/fastshap_movies
"""

import ml_collections

from configs import common, minilm_movies


def get_config() -> ml_collections.ConfigDict:
    return common.fastshap(minilm_movies.get_config())
