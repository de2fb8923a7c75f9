"""The classifier of the text experiments: a BERT-family backbone fine-tuned on SST-2.

    python scripts/train_text_predictor.py --config=configs/bert_sst2.py --backbone=DIRECTORY

The data is TFDS's `glue/sst2`. Where there is no network, name a folder of `train.tsv` and
`dev.tsv` in GLUE's layout: `--config.data.name=sst2 --config.data.path=DIRECTORY`.
"""

import ml_collections

from configs import common


def get_config(preset: str = "contrast") -> ml_collections.ConfigDict:
    config = common.get_config(preset)
    config.data.name = "glue/sst2"
    config.data.eval_split = "validation"
    config.predictor.path = "runs/bert_sst2"
    config.policy = "bert"
    config.objective.num_passes = 1  # of two classes an answer is one number, soon overfitted
    return config
