"""What a network's taps see, and the gradients there."""

import jax
import numpy as np
import pytest

from fex_jax.attributions.gradients import tapped, tapped_gradients
from tests.attributions.white_box import images, targets, tiny


def test_tapped_gradients_equal_a_walk_over_the_blocks():
    """Breaks if a value or gradient is that of another tap, block, image or class."""
    model, x, y = tiny("vit"), images(), targets()
    backbone = model.network.backbone
    first, second = backbone.blocks

    def explained(tokens):
        normed = backbone.norm(second(tokens))
        return model.network.head(normed[:, 0])[np.arange(2), y].sum()

    @jax.jit
    def both(x):
        tokens = first(backbone.embed(x))
        walk = tokens, jax.grad(explained)(tokens)
        values, gradients = tapped_gradients(model, x, y, "hidden", "attention")
        assert len(values["attention"]) == len(gradients["attention"]) == 2
        return walk, (values["hidden"][1], gradients["hidden"][1])

    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), *both(x))


def test_unknown_tap_is_an_error():
    """Breaks if a network without attention fails with an index."""
    with pytest.raises(ValueError, match="ViTClassifier taps no 'gate'"):
        tapped(tiny("vit"), images(), "gate")
