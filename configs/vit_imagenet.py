"""The paper's image experiment: ViT-B/16, ImageNet, batch 256, five masks an image, one epoch.

    python train.py --config=configs/vit_imagenet.py --workdir=runs/imagenet
    python eval.py --config=configs/vit_imagenet.py --workdir=runs/imagenet \
        --config.eval.match_classes=position

FEX-50k is `--config.data.limit=50000`. TFDS wants the two ImageNet archives in its manual folder;
`--config.data.path` is its data_dir. It names classes by WordNet numbers, in the predictor's order.
The objective is that of the authors' code; `:contrast` after the config's name keeps the whole
ranking at the price of five more queries an image. Four updates of 64 images instead of the
authors' five, which do not divide 256.
Cost a batch and memory: docs/full_size.md. The paper reports .322 positive and .730 negative AUC.
"""

import ml_collections

from configs import common


def get_config(preset: str = "authors") -> ml_collections.ConfigDict:
    config = common.get_config(preset)
    config.data.name = "imagenet2012"
    config.data.eval_split = "validation"
    config.predictor.path = "google/vit-base-patch16-224"
    config.batch_size = 256
    config.dtype = "bfloat16"
    if preset != "contrast":  # the paper's
        config.optimizer.learning_rate = 5e-5
        config.optimizer.backbone_scale = 1.0
    config.checkpoint.every = 500
    config.log_every = 20
    config.eval.num_images = 5000
    config.eval.batch_size = 256
    return config
