"""MobileNetV2 for ImageNet, a quantised file that can only be queried, on a folder of photographs.

    python train.py --config=configs/imagenet_tflite.py --workdir=runs/imagenet \
        --config.predictor.path=mobilenet_v2_1.0_224_quant.tflite \
        --config.predictor.labels=imagenet_labels.txt --config.data.path=photographs \
        --config.policy_backbone.path=facebook/dinov2-small
    python eval.py --workdir=runs/imagenet --methods=random,occlusion,rise,lime,kernel_shap

`pip install "fex-jax[tflite]"`; the network and its labels are in the public repository
google-coral/test_data. The photographs need no classes. A fifth of them is scored.
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
