"""AttCAT, where it is known."""

import jax.numpy as jnp
import numpy as np
from flax import nnx

from fex_jax.attributions.attcat import attcat
from fex_jax.predictors import Model
from tests.attributions.white_box import KEY

ATTENTION = np.array([[0.2, 0.3, 0.5], [0.6, 0.1, 0.3]], np.float32)  # CLS row of each head
WEIGHTS = np.array([[[1.0, 2.0], [0.5, -1.0], [3.0, 0.0]], [[0.0, 1.0], [2.0, 2.0], [1.0, -1.0]]])


class Readout(nnx.Module):
    """One block; the logit of class k is Σ_id W_kid h_id, and attention has no part in it."""

    def __call__(self, inputs, tap):
        hidden = tap("hidden", inputs)  # [B, 3, 2]
        rows = jnp.broadcast_to(ATTENTION[None, :, None], (len(inputs), 2, 3, 3))
        tap("attention", rows)
        return jnp.einsum("btd,ktd->bk", hidden, jnp.asarray(WEIGHTS, jnp.float32))


def test_linear_readout():
    """Breaks if heads are not averaged, CLS's row is not read, or signs are lost."""
    model = Model(
        predict=lambda inputs: inputs[:, 0],
        mask=lambda inputs, masks: inputs,
        grid=(2,),
        network=Readout(),
        tokens=lambda values, _: values[:, 1:],
    )
    hidden = np.random.default_rng(0).normal(size=(2, 3, 2)).astype(np.float32)
    targets = np.array([1, 0])
    expected = ATTENTION.mean(0) * (hidden * WEIGHTS[targets]).sum(-1)
    assert (expected[:, 1:] < 0).any()
    scores = attcat(model, jnp.asarray(hidden), targets, KEY)
    np.testing.assert_allclose(scores, expected[:, 1:], rtol=1e-5)
