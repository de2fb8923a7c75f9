"""GradCAM on the feature maps of a CNN; on a ViT, see `test_white_box`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fex_jax.attributions.gradcam import gradcam


@pytest.fixture(scope="module")
def cnn():
    """Kernels [3, 3, in, out] of two convolutions, a head, images [2, 10, 8, 3] and targets."""
    rng = np.random.default_rng(0)
    shapes = (3, 3, 3, 6), (3, 3, 6, 5), (5, 4), (2, 10, 8, 3)
    return [*(rng.normal(size=shape).astype(np.float32) for shape in shapes), np.array([3, 1])]


def jax_gradcam(first, second, head, images, targets):
    """Of the second convolution's map; the head reads the mean of its squares."""

    def convolve(x, kernel):
        dimensions = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(
            x, kernel, (1, 1), "VALID", dimension_numbers=dimensions
        )

    cells = jax.nn.relu(convolve(jax.nn.relu(convolve(images, first)), second))
    return gradcam(cells, lambda a: jnp.square(a).mean((1, 2)) @ head, targets)


def test_cnn_equals_torch_hooks(cnn):
    """Breaks if a map's channels are weighted, or its rows and columns ordered, differently."""
    torch = pytest.importorskip("torch")
    first, second, head, images, targets = cnn

    class Square(torch.nn.Module):
        def forward(self, x):
            return x.square().mean((2, 3))

    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 6, 3, bias=False), torch.nn.ReLU(),
        torch.nn.Conv2d(6, 5, 3, bias=False), torch.nn.ReLU(),
        Square(), torch.nn.Linear(5, 4, bias=False),
    )  # fmt: skip
    with torch.no_grad():
        network[0].weight.copy_(torch.tensor(first).permute(3, 2, 0, 1))
        network[2].weight.copy_(torch.tensor(second).permute(3, 2, 0, 1))
        network[5].weight.copy_(torch.tensor(head).T)
    seen = {}
    network[3].register_forward_hook(lambda m, args, output: seen.update(cells=output))
    network[3].register_full_backward_hook(lambda m, _, gradients: seen.update(gradient=gradients))
    logits = network(torch.tensor(images).permute(0, 3, 1, 2))
    logits[range(2), targets].sum().backward()
    weights = seen["gradient"][0].mean((2, 3), keepdim=True)
    expected = (weights * seen["cells"]).sum(1).clamp(min=0).detach().numpy()
    scores = np.asarray(jax_gradcam(*cnn))
    assert scores.shape == (2, 6, 4) and scores.any((1, 2)).all()
    np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-5 * expected.max())


def test_known_map():
    """Breaks without torch if a weight is not the mean gradient, or negative evidence is kept."""
    cells = jnp.array([[[1.0, 2.0], [3.0, 4.0], [0.0, 5.0]]])  # [1, 3 positions, 2 channels]
    slopes = jnp.array([[2.0, -1.0], [4.0, -1.0], [0.0, -1.0]])  # mean 2 and −1

    def logits(a):
        return jnp.stack([(a * slopes).sum((1, 2)), jnp.zeros(1)], -1)

    scores = gradcam(cells, logits, jnp.array([0]))
    np.testing.assert_allclose(scores, [[0.0, 2.0, 0.0]], atol=1e-6)
