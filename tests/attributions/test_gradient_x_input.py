"""Gradient×Input, where it is exact."""

import jax
import jax.numpy as jnp
import numpy as np

from fex_jax.attributions.gradient_x_input import gradient_x_input
from fex_jax.predictors import Model
from tests.attributions.white_box import KEY


def test_linear_model():
    """Breaks if the scores of a linear model, on inputs of any structure, are not w_y ⊙ x."""
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(3, 7)).astype(np.float32)
    values = rng.normal(size=(4, 7)).astype(np.float32)
    inputs = {"values": values, "gain": np.arange(1, 5, dtype=np.float32)}
    model = Model(
        predict=lambda inputs: jnp.full((len(inputs["gain"]), 3), 1 / 3),
        mask=lambda inputs, masks: inputs | {"values": jnp.where(masks, inputs["values"], 0)},
        grid=(7,),
        embed=lambda inputs: inputs["values"],
        logits=lambda x, inputs: inputs["gain"][:, None] * (x @ weights.T),
        pool=lambda values, _: values,
    )
    targets = np.array([0, 2, 1, 1])
    scores = jax.jit(lambda x, y: gradient_x_input(model, x, y, KEY, output="logit", chunk=3))(
        inputs, targets
    )
    expected = inputs["gain"][:, None] * weights[targets] * values
    np.testing.assert_allclose(scores, expected, rtol=1e-5, atol=1e-6)
