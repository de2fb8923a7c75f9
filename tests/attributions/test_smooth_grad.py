"""SmoothGrad: captum's gradients at the same noisy inputs, and its draws."""

import jax
import numpy as np
import pytest

from fex_jax.attributions.smooth_grad import smooth_grad
from tests.attributions.white_box import KEY, checkpoint, images, in_torch, perceptron, rows, tiny
from tests.attributions.white_box import targets as classes


def test_equals_captum():
    """Breaks if sizes are taken before the mean, channels are left out, or f is another."""
    torch = pytest.importorskip("torch")
    captum = pytest.importorskip("captum.attr")
    x, y, std = images(), classes(), 0.2
    keys = jax.random.split(KEY, 2)
    noise = [
        [std * jax.random.normal(jax.random.fold_in(key, s), x[0].shape) for key in keys]
        for s in range(3)
    ]
    twin = in_torch(checkpoint("vit"))

    def probabilities(x):
        return twin(pixel_values=x).logits.softmax(-1)

    saliency = captum.Saliency(probabilities)
    gradients = [
        saliency.attribute(
            torch.tensor(x + np.asarray(each)).permute(0, 3, 1, 2), target=torch.tensor(y),
            abs=False,
        )
        for each in noise
    ]  # fmt: skip
    sizes = torch.stack(gradients).mean(0).abs().sum(1).numpy()
    expected = sizes.reshape(2, 4, 8, 4, 8).sum((2, 4)).reshape(2, 16)
    found = smooth_grad(tiny("vit"), x, y, keys, samples=3, std=std)
    np.testing.assert_allclose(found, expected, atol=1e-5 * expected.max())


def test_draws_come_from_the_key():
    """Breaks if a map cannot be reproduced, or the chunk or the batch redraws it."""
    model, x, y = perceptron(), rows(), classes()
    found = smooth_grad(model, x, y, KEY, samples=4)
    for again in (
        smooth_grad(model, x, y, KEY, samples=4, chunk=3),
        np.repeat(smooth_grad(model, x[:1], y[:1], KEY, samples=4), 2, 0),
    ):
        np.testing.assert_allclose(again[0], found[0], atol=1e-6)
    assert not np.allclose(smooth_grad(model, x, y, jax.random.key(1), samples=4), found)
    assert not np.allclose(smooth_grad(model, x, y, KEY, samples=2, std=0.0), found)
