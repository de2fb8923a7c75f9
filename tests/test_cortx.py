"""CoRTX's positives, contrast and training, against what can be worked out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fex_jax import cortx
from fex_jax.attributions.kernel_shap import normalize
from fex_jax.predictors import Model
from fex_jax.updates import TrainState
from tests.attributions.test_kernel_shap import shapley


def test_the_positive_is_the_version_of_which_f_says_most_nearly_the_same():
    """Breaks if the farthest is taken, another input's, or one class is compared alone."""
    full = jnp.array([[0.6, 0.3, 0.1], [0.1, 0.1, 0.8]])
    answers = jnp.array(
        [
            [[0.6, 0.1, 0.3], [0.1, 0.2, 0.7]],  # 0.2 √2 and 0.1 √2 away
            [[0.5, 0.4, 0.1], [0.4, 0.4, 0.2]],  # 0.1 √2 and farther
        ]
    )
    masks = jnp.arange(8).reshape(2, 2, 2)
    chosen, distances = cortx.positives(full, answers, masks)
    np.testing.assert_array_equal(chosen, [[4, 5], [2, 3]])
    np.testing.assert_allclose(distances, [0.1 * 2**0.5] * 2, rtol=1e-5)


def test_contrast_by_hand():
    """Breaks if an input is its own negative, a positive is another's, or length counts."""
    h = jnp.array([[3.0, 0.0], [0.0, 2.0], [-1.0, 0.0]])
    positive = jnp.array([[0.0, 5.0], [0.0, 1.0], [1.0, 0.0]])
    # Similarities to the own positive: 0, 1, −1; to the two others: (0, −1), (0, 0), (−1, 0).
    rows = [(0.0, 0.0, -1.0), (1.0, 0.0, 0.0), (-1.0, -1.0, 0.0)]
    expected = [np.log(np.exp(np.array(row) / 0.5).sum()) - row[0] / 0.5 for row in rows]
    value, metrics = cortx.contrast(h, positive, 0.5)
    np.testing.assert_allclose(value, np.mean(expected), rtol=1e-5)
    same = jnp.ones((4, 3))
    np.testing.assert_allclose(cortx.contrast(same, same, 0.1)[0], np.log(4), rtol=1e-5)


def additive(size: int = 6, count: int = 32):
    """f_1 = ½ + Σ a_i x_i and its inputs: of the Shapley values, a_i x_i, all is known."""
    weights = jnp.linspace(-0.1, 0.15, size)

    def predict(x):
        p = 0.5 + x @ weights
        return jnp.stack([1 - p, p], -1)

    inputs = np.random.default_rng(0).uniform(0.2, 1, (count, size)).astype(np.float32)
    return Model(predict, lambda x, m: x * m, (size,)), jnp.asarray(inputs), weights


def test_questions_are_as_many_as_fastshaps():
    """Breaks if f is asked more than its share, or the positive is no masked version."""
    model, inputs, _ = additive()
    asked = []

    def predict(x):
        jax.debug.callback(lambda x: asked.append(len(x)), x)
        return model.predict(x)

    counted = Model(predict, model.mask, model.grid)
    objective = cortx.Objective(num_masks=10, num_positives=4)
    batch, metrics = cortx.play(counted, inputs, jax.random.key(0), objective)
    jax.effects_barrier()
    assert sum(asked) == 12 * 32
    assert batch.game.coalitions.shape == (32, 6, 6)
    kept = np.asarray(batch.positive) != 0
    np.testing.assert_array_equal(batch.positive, np.where(kept, inputs, 0))
    # The best of four is nearer than the first of them would be.
    single = cortx.Objective(num_masks=7, num_positives=1)
    alone = cortx.play(model, inputs, jax.random.key(0), single)[1]["contrast/distance"]
    assert metrics["contrast/distance"] < 0.7 * alone


def test_training_approaches_the_shapley_values():
    """Breaks if labels do not lead to Shapley values, or no contrast reaches the encoder."""
    model, inputs, _ = additive()
    exact = shapley(model, np.asarray(inputs), np.ones(32, int))
    optimizer = optax.adam(optax.cosine_decay_schedule(0.03, 300))
    # The first encoder says the same of all inputs, but for little.
    encode = 0.1 * jax.random.normal(jax.random.key(7), (6, 4)) + 1
    params = {"backbone": encode, "head": jnp.zeros((2, 6))}

    def encoder(params, x):
        return x, (x - 0.5) @ params["backbone"]

    def head(params, x, targets):
        return params["head"][targets] * x[:, None]

    objective = cortx.Objective(num_masks=36, num_updates=1)

    @jax.jit
    def step(state, key):
        return cortx.train_step(
            state, model, inputs, key, encoder=encoder, head=head, optimizer=optimizer,
            objective=objective,
        )  # fmt: skip

    state, losses = TrainState(params, optimizer.init(params), jnp.asarray(0)), []
    for number in range(300):
        state, metrics = step(state, jax.random.key(number))
        losses.append(metrics["contrast/loss"])
    total = model.predict(inputs)[:, 1:] - 0.5
    phi = head(state.params, inputs, jnp.ones((32, 1), int))
    phi = normalize(phi, total, jnp.ones((32, 1, 6), bool))[:, 0]
    np.testing.assert_allclose(phi, exact, atol=0.01)
    assert np.abs(exact).max() > 0.1
    assert np.mean(losses[-10:]) < 0.8 * losses[0]


def test_no_label_reaches_the_encoder():
    """Breaks if the encoder learns from Shapley values, which CoRTX needs few of for the head."""
    model, inputs, _ = additive()
    optimizer = optax.sgd(1.0)
    params = {"backbone": jnp.ones(6), "head": jnp.ones(())}
    state, _ = cortx.train_step(
        TrainState(params, optimizer.init(params), jnp.asarray(0)), model, inputs,
        jax.random.key(0), optimizer=optimizer, objective=cortx.Objective(num_updates=1),
        encoder=lambda params, x: (x * params["backbone"], x),  # whose contrast is what it is
        head=lambda params, read, targets: params["head"] * jnp.tile(read[:, None], (1, 1, 1)),
    )  # fmt: skip
    np.testing.assert_array_equal(state.params["backbone"], 1)
    assert state.params["head"] != 1


def test_bad_settings_are_named():
    """Breaks if a typo in a config trains something else."""
    with pytest.raises(ValueError, match="some are left for coalitions"):
        cortx.Objective(num_positives=10)
    with pytest.raises(ValueError, match=r"temperature=0.0: expected a number above 0"):
        cortx.Objective(temperature=0.0)
    with pytest.raises(ValueError, match="coalitions come in pairs"):
        cortx.Objective(num_positives=3)
    with pytest.raises(ValueError, match="targets is 'all'"):
        cortx.Objective(targets="all")
