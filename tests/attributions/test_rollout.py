"""Attention rollout, where it is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from fex_jax.attributions.gradients import tapped
from fex_jax.attributions.rollout import rollout
from fex_jax.predictors import Model
from tests.attributions.white_box import FAMILIES, KEY, images, targets, tiny


@pytest.mark.parametrize("family", FAMILIES)
def test_equals_the_product_of_matrices(family):
    """Breaks if blocks are multiplied in another order, or CLS or the prefix is mistaken."""
    model = tiny(family)
    scores, attentions = jax.jit(
        lambda x, y: (rollout(model, x, y, KEY), tapped(model, x, "attention")["attention"])
    )(images(), targets())
    joint = np.eye(attentions[0].shape[-1])
    for weights in attentions:
        joint = (0.5 * np.asarray(weights).mean(1) + 0.5 * np.eye(joint.shape[-1])) @ joint
    np.testing.assert_allclose(joint.sum(-1), 1, rtol=1e-5)
    prefix = joint.shape[-1] - model.num_features
    np.testing.assert_allclose(scores, joint[:, 0, prefix:], atol=1e-6)


class Chain(nnx.Module):
    """Two blocks: token 1 attends to 2, then CLS to 1."""

    def __call__(self, inputs, tap):
        for reader, read in ((1, 2), (0, 1)):
            weights = jnp.eye(3).at[reader].set(jnp.eye(3)[read])
            tap("attention", jnp.broadcast_to(weights, (len(inputs), 2, 3, 3)))
        return inputs


def test_two_steps():
    """Breaks if what reaches CLS by way of another token is lost."""
    model = Model(
        predict=lambda inputs: inputs,
        mask=lambda inputs, masks: inputs,
        grid=(2,),
        network=Chain(),
        tokens=lambda values, _: values[:, 1:],
    )
    scores = rollout(model, jnp.zeros((1, 2)), jnp.array([0]), KEY)
    np.testing.assert_allclose(scores, [[0.25, 0.25]])
