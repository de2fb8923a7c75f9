"""Gradient steps over the parts of a batch."""

import jax.numpy as jnp
import numpy as np
import optax

from fex_jax.updates import TrainState, scale_backbone, update


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


def test_later_passes_see_the_same_parts_from_where_the_first_ended():
    """Breaks if a pass starts over, is left out, or its metrics are lost."""
    optimizer = optax.sgd(0.5)
    params = {"mean": jnp.zeros(())}
    state = TrainState(params, optimizer.init(params), jnp.asarray(0))

    def loss(params, part):  # a step goes half of the way to the part's mean
        return jnp.mean((params["mean"] - part) ** 2) / 2, {"at": params["mean"]}

    parts = jnp.array([4.0, 0.0])
    state, metrics = update(state, parts, loss, optimizer, num_updates=2, num_passes=2)
    assert float(state.params["mean"]) == 1.25  # 0, 2, 1, 2.5, 1.25
    assert float(metrics["at"]) == (0 + 2 + 1 + 2.5) / 4
    assert int(state.step) == 1


def test_a_scaled_backbone_moves_less_and_heads_as_before():
    """Breaks if heads are scaled, a leaf of the backbone is not, or gradients grow instead."""
    params = {"backbone": {"blocks": [jnp.ones(2), jnp.ones(3)]}, "heads": {"map": jnp.ones(2)}}
    optimizer = scale_backbone(0.05)
    steps, _ = optimizer.update(params, optimizer.init(params))
    np.testing.assert_allclose(steps["backbone"]["blocks"][0], 0.05)
    np.testing.assert_allclose(steps["backbone"]["blocks"][1], 0.05)
    np.testing.assert_array_equal(steps["heads"]["map"], 1)
