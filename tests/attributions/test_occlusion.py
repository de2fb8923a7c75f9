"""Occlusion, against captum on the same weights."""

import jax.numpy as jnp
import numpy as np
import pytest

from fex_jax.attributions.occlusion import occlusion
from tests.attributions.parity import patch_numbers, torch_twin


def test_is_the_loss_of_each_feature(game):
    """Breaks if a feature's score is another's, or has the wrong sign."""
    model, inputs, targets = game(4)
    scores = occlusion(model, inputs, targets, chunk=3)
    clean = np.asarray(model.predict(inputs))[range(5), targets]
    for i in range(4):
        without = np.asarray(model.predict(inputs * (np.arange(4) != i)))[range(5), targets]
        np.testing.assert_allclose(scores[:, i], clean - without, atol=1e-6)


def test_agrees_with_captum():
    """Breaks if patches are not those that captum removes from torch's image."""
    captum = pytest.importorskip("captum.attr")
    model, images, targets, network, tensor = torch_twin()
    expected = captum.FeatureAblation(network).attribute(
        tensor, target=targets.tolist(), feature_mask=patch_numbers(tensor, model.grid)
    )
    step = images.shape[1] // model.grid[0]
    expected = expected[:, 0, ::step, ::step].reshape(len(images), -1).numpy()
    scores = occlusion(model, images, jnp.asarray(targets))
    np.testing.assert_allclose(scores, expected, atol=2e-6)
    assert np.abs(expected).max() > 1e-3
