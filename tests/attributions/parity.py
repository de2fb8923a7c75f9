"""The same small ViT in JAX and in torch, for comparisons with captum."""

import tempfile

import numpy as np
import pytest

from fex_jax import predictors, pretrained
from tests.conftest import random_checkpoint


def torch_twin(grid: int = 4) -> tuple:
    """Model, images, targets; and torch: probabilities(images) and the images as a tensor."""
    torch = pytest.importorskip("torch")
    from transformers import ViTForImageClassification

    checkpoint = random_checkpoint(num_classes=5, image_size=32, grid=grid)
    with tempfile.TemporaryDirectory() as directory:
        pretrained.save(directory, checkpoint)
        twin = ViTForImageClassification.from_pretrained(directory).eval()
    images = np.random.default_rng(0).normal(size=(3, 32, 32, 3)).astype(np.float32)

    def probabilities(x):
        with torch.no_grad():
            return twin(pixel_values=x).logits.softmax(-1)

    tensor = torch.from_numpy(images).permute(0, 3, 1, 2)
    model = predictors.image(checkpoint.config, checkpoint.params)
    return model, images, np.array([0, 3, 4]), probabilities, tensor


def patch_numbers(tensor, grid: tuple[int, int]):
    """captum's feature_mask: the number of the patch that a pixel lies in, [1, 1, H, W]."""
    import torch

    rows, columns = (torch.arange(s) * g // s for s, g in zip(tensor.shape[2:], grid, strict=True))
    return (rows[:, None] * grid[1] + columns)[None, None]
