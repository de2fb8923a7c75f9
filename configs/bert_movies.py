"""The paper's text experiment: a sentiment classifier, explained on Movie Reviews, batch 256.

    python scripts/train_text_predictor.py --config=configs/bert_sst2.py --backbone=DIRECTORY
    python train.py --config=configs/bert_movies.py --workdir=runs/movies

The reviews are TFDS's `movie_rationales`, or ERASER's own folder: `--config.data.name=eraser
--config.data.path=DIRECTORY`. Most are longer than BERT's window: training cuts them to it,
`fex_jax.explain` reads them in overlapping windows.
"""

import ml_collections

from configs import common


def get_config(preset: str = "contrast") -> ml_collections.ConfigDict:
    config = common.get_config(preset)
    config.data.name = "movie_rationales"
    config.predictor.path = "runs/bert_sst2"
    config.policy = "bert"
    config.objective.num_passes = 1  # of two classes an answer is one number, soon overfitted
    config.batch_size = 256
    config.optimizer.learning_rate = 5e-5
    config.optimizer.backbone_scale = 1.0
    config.text.too_long = "cut"
    return config
