"""FastSHAP's loss and training, against exact Shapley values."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fex_jax import fastshap
from fex_jax.attributions.kernel_shap import normalize
from fex_jax.updates import TrainState
from tests.attributions.conftest import game, padded  # noqa: F401
from tests.attributions.test_kernel_shap import all_coalitions, shapley


def test_normalized_attributions_add_up():
    """Breaks if the efficiency gap is shared out unequally."""
    phi = normalize(jnp.array([[1.0, 2.0, 4.0]]), jnp.array([10.0]), jnp.ones((1, 3), bool))
    np.testing.assert_allclose(phi, [[2, 3, 5]])
    valid = jnp.array([[True, False, True], [False, True, False]])
    phi = normalize(jnp.array([[1.0, jnp.nan, 4.0], [9, 9, 9]]), jnp.array([7.0, 1.0]), valid)
    np.testing.assert_allclose(phi, [[2, 0, 5], [0, 1, 0]])


def test_shapley_values_are_the_minimum(game):  # noqa: F811
    """Breaks if another vector than the Shapley values has the least loss over all coalitions."""
    model, inputs, targets = game(4)
    exact = jnp.asarray(shapley(model, inputs, targets), jnp.float32)
    masks, weights = all_coalitions(4)
    # Coalitions repeated by their weights: the kernel's distribution without drawing.
    counts = np.rint(np.asarray(weights) / np.asarray(weights).min() * 6).astype(int)
    masks = np.repeat(np.asarray(masks), counts, 0)

    def worth(kept):
        return jnp.asarray(model.predict(inputs * kept))[jnp.arange(5), targets]

    coalitions = jnp.broadcast_to(masks, (5, *masks.shape))
    worths = jnp.stack([worth(m) for m in masks], 1)
    exact = exact[:, None]  # one target
    played = fastshap.Game(
        inputs, targets[:, None], model.features(inputs), coalitions, worths[:, None],
        worth(np.zeros(4))[:, None], worth(np.ones(4))[:, None],
    )  # fmt: skip
    objective = fastshap.Objective()
    slope = jax.grad(lambda phi: fastshap.loss(phi, played, objective)[0])(exact)
    np.testing.assert_allclose(slope, 0, atol=2e-5)
    best = fastshap.loss(exact, played, objective)[0]
    shifted = exact + 0.05 * jnp.array([1.0, -1.0, 0.5, -0.5])
    assert fastshap.loss(shifted, played, objective)[0] > best + 1e-4
    # A constant is a gap, which the penalty sees and normalisation takes out.
    penalty = fastshap.Objective(efficiency="penalty")
    assert fastshap.loss(exact + 0.1, played, penalty)[0] > best + 0.1 * 0.4**2
    np.testing.assert_allclose(fastshap.loss(exact + 0.1, played, objective)[0], best, atol=1e-6)


def test_noisy_labels_have_the_shapley_values_as_their_mean(game, padded):  # noqa: F811
    """Breaks if regression on labels learns another vector: a factor, a centring or n is wrong."""
    model, inputs, targets = game(4)
    masks, weights = all_coalitions(4)
    counts = np.rint(np.asarray(weights) / np.asarray(weights).min() * 6).astype(int)
    masks = np.repeat(np.asarray(masks), counts, 0)

    def worth(kept):
        return jnp.asarray(model.predict(inputs * kept))[jnp.arange(5), targets]

    worths = jnp.stack([worth(m) for m in masks], 1)[:, None]
    coalitions = jnp.broadcast_to(masks, (5, *masks.shape))
    played = fastshap.Game(
        inputs, targets[:, None], model.features(inputs), coalitions, worths,
        worth(np.zeros(4))[:, None], worth(np.ones(4))[:, None],
    )  # fmt: skip
    exact = shapley(model, inputs, targets)
    np.testing.assert_allclose(fastshap.estimates(played)[:, 0], exact, atol=1e-5)
    objective = fastshap.Objective(fit="labels")
    slope = jax.grad(lambda phi: fastshap.loss(phi, played, objective)[0])(
        jnp.float32(exact[:, None])
    )
    np.testing.assert_allclose(slope, 0, atol=1e-4)
    # Drawn coalitions of inputs of several sizes.
    (model, inputs, _), _ = padded(6, [5, 3, 1, 4, 2])
    objective = fastshap.Objective(targets="argmax", num_masks=40_000, fit="labels")
    given = model.predict, model.mask, model.features, inputs, jax.random.key(0), objective
    found = fastshap.estimates(fastshap.play(*given))[:, 0]
    top = np.asarray(model.predict(inputs)).argmax(-1)
    np.testing.assert_allclose(found, shapley(model, inputs, top), atol=0.01)


@pytest.mark.parametrize("efficiency", ["normalize", "penalty"])
def test_padding_has_no_loss(padded, efficiency):  # noqa: F811
    """Breaks if what φ says of features that do not exist matters, or N is not the input's own."""
    objective = fastshap.Objective(efficiency=efficiency)
    (model, inputs, _), alone = padded(6, [5, 3, 1, 4, 2])
    play = functools.partial(fastshap.play, key=jax.random.key(0), objective=objective)
    played = play(model.predict, model.mask, model.features, inputs)
    phi = jax.random.normal(jax.random.key(1), (5, 1, 6))
    slope = jax.grad(lambda phi: fastshap.loss(phi, played, objective)[0])(phi)
    assert np.isfinite(slope).all() and not slope[:, 0][~played.valid].any()
    losses = []
    for row, (_, x, _) in enumerate(alone):
        part = jax.tree.map(lambda leaf, row=row: leaf[row : row + 1], played)
        size = x.shape[1]
        cut = part._replace(valid=part.valid[:, :size], coalitions=part.coalitions[..., :size])
        losses.append(fastshap.loss(phi[row : row + 1, :, :size], cut, objective)[0])
    np.testing.assert_allclose(fastshap.loss(phi, played, objective)[0], np.mean(losses), rtol=1e-5)


@pytest.mark.parametrize(
    "targets, num_targets, sizes",
    [
        ("argmax", 1, [6] * 5),
        ("sampled", 1, [6, 4, 2, 1, 5]),
        ("sampled", 2, [6, 4, 2, 1, 5]),
        ("uniform", 1, [6] * 5),
    ],
)
def test_training_approaches_the_shapley_values(padded, targets, num_targets, sizes):  # noqa: F811
    """Breaks if coalitions, targets or updates do not lead to the game's Shapley values."""
    model, inputs, _ = padded(6, sizes)[0]
    of_two = model.predict

    def predict(x):  # of three classes, so that two are trained at once
        p = of_two(x)
        return jnp.stack([p[:, 0], 0.7 * p[:, 1], 0.3 * p[:, 1]], -1)

    model = dataclasses.replace(model, predict=predict)
    optimizer = optax.adam(optax.cosine_decay_schedule(0.05, 300))
    params = jnp.zeros((5, 3, 6))  # a table is an explainer that can represent any φ
    objective = fastshap.Objective(
        targets=targets, num_targets=num_targets, num_updates=1, num_masks=32
    )

    @jax.jit
    def step(state: TrainState, inputs: jax.Array, key: jax.Array):
        return fastshap.train_step(
            state, model, inputs, key, optimizer=optimizer, objective=objective,
            explainer=lambda table, x, y: table[jnp.arange(5)[:, None], y],
        )  # fmt: skip

    state = TrainState(params, optimizer.init(params), jnp.asarray(0))
    for i in range(300):
        state, metrics = step(state, inputs, jax.random.key(i))
    top = np.asarray(model.predict(inputs)).argmax(-1)
    exact = shapley(model, inputs, top)
    total = model.predict(inputs) - model.predict(0 * inputs)
    rows = jnp.arange(5)
    phi = normalize(state.params[rows, top], total[rows, top], model.features(inputs))
    np.testing.assert_allclose(phi, exact, atol=0.02)
    assert np.abs(exact).max() > 0.1
    assert metrics["value/explained_variance"] > 0.8


def test_bad_settings_are_named():
    """Breaks if a typo in a config trains something else."""
    with pytest.raises(ValueError, match="efficiency is 'none'"):
        fastshap.Objective(efficiency="none")
    with pytest.raises(ValueError, match="fit is 'phi'; expected one of values, labels"):
        fastshap.Objective(fit="phi")
    with pytest.raises(ValueError, match="pairs"):
        fastshap.Objective(num_masks=5)
