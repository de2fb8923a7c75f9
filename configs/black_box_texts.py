"""FEX of any classifier of texts that can be queried, word by word.

    python train.py --config=configs/black_box_texts.py --workdir=runs/box \
        --config.predictor.path=mymodel:f --config.data.path=texts.csv
    python eval.py --workdir=runs/box --methods=all

f is what `fex_jax.host` made, in a module of the working directory; or any function or endpoint,
which need to be told what they take:
`--config.predictor.options='{"input": "text", "labels": ["bad", "good"]}'`. The rest is as of
pictures, configs/black_box.py. `--config.policy_backbone.path` names a BERT that reads the texts,
in the place of a small one from nothing.
"""

import ml_collections

from configs import black_box


def get_config(preset: str = "contrast") -> ml_collections.ConfigDict:
    config = black_box.get_config(preset)
    config.data.name = "texts"
    config.text.too_long = "cut"
    config.policy = "small_bert"
    config.map_head = "token"
    return config
