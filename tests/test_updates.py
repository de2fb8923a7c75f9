"""Gradient steps over the parts of a batch."""

import jax.numpy as jnp
import numpy as np
import optax

from fex_jax.updates import TrainState, update


def test_every_input_is_used_once_in_order():
    """Breaks if a part holds other inputs than its stride says, or metrics are of one part only."""
    optimizer = optax.sgd(1.0)
    params = {"total": jnp.zeros(())}
    state = TrainState(params, optimizer.init(params), jnp.asarray(7))

    def loss(params, part):  # its gradient is minus the part's sum
        value = -params["total"] * part.sum()
        return value, {"first": part[0], "size_max": part.max(), "size_min": part.min()}

    state, metrics = update(state, jnp.arange(6.0), loss, optimizer, num_updates=2)
    assert int(state.step) == 8
    assert float(state.params["total"]) == 15
    assert (float(metrics["first"]), float(metrics["size_max"])) == (0.5, 5)
    np.testing.assert_allclose([metrics["size_min"], metrics["grad_norm"]], [0, 7.5])
