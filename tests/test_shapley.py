"""Shapley values against a background: the truth, and what training minimises."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fex_jax import settings, shapley
from fex_jax.data import tables
from fex_jax.host import black_box
from fex_jax.host.predictor import host
from fex_jax.updates import TrainState

pytest.importorskip("pandas")

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 5))


def opened(call, values=X, output="value", **config):
    """A model of a function of arrays, its first three rows as inputs, and how they are read."""
    labels = ("value",) if output == "value" else ("no", "yes")
    f = host(call, labels=labels, input=(values.shape[1],), output=output, digest="f")
    chosen = settings.of_tables()
    chosen.table.background = 20
    chosen.update_from_flattened_dict(config)
    source = tables.open_table(values)
    reads = black_box.kind_of(f).policy(chosen, f, source)[2]
    reads = reads.with_answers(black_box.of(f).ask, source)
    box = black_box.of(f, reads=reads)
    model, inputs = box.bind({}, reads.batch(values[:3]))
    return model, inputs, reads


def test_exact_values_of_a_sum():
    """Breaks if they are not w_i (x_i − mean of the background), as they are by hand of a sum."""
    weights = np.array([1.0, -2.0, 0.5, 0.0, 3.0])
    model, inputs, reads = opened(lambda x: x @ weights)
    found = shapley.exact(model, inputs)[:, 0] * reads.scale
    np.testing.assert_allclose(found, weights * (X[:3] - reads.background.mean(0)), atol=1e-5)


def test_exact_values_are_those_of_shap():
    """Breaks if v(S), its mean over the background or the weights differ from TreeSHAP's."""
    shap = pytest.importorskip("shap")
    from sklearn.ensemble import GradientBoostingClassifier

    trees = GradientBoostingClassifier(n_estimators=20, random_state=0)
    trees.fit(X, X[:, 0] * X[:, 1] + X[:, 2] > 0)
    model, inputs, reads = opened(trees.predict_proba, output="softmax")
    theirs = shap.TreeExplainer(trees, reads.background)  # in log-odds of the second class
    found = shapley.exact(model, inputs) * reads.scale[:, None]
    np.testing.assert_allclose(found[:, 1], theirs.shap_values(X[:3]), atol=1e-4)
    np.testing.assert_allclose(found[:, 0], -found[:, 1], atol=1e-4)
    assert reads.base[1] == pytest.approx(float(np.ravel(theirs.expected_value)[0]), abs=1e-4)


def test_sampled_values_surround_the_exact_ones():
    """Breaks if orders, background rows or standard errors are wrong: 5 errors are no chance."""
    model, inputs, _ = opened(lambda x: x[:, 0] * x[:, 1] * x[:, 2] + np.sin(3 * x[:, 3]))
    found, errors = shapley.sampled(model, inputs, jax.random.key(0), 200)
    away = (found - shapley.exact(model, inputs)) / np.maximum(errors, 1e-6)
    assert np.abs(away).max() < 5 and np.sqrt((away**2).mean()) > 0.4
    with pytest.raises(ValueError, match=r"13 features have 2\^13 coalitions; expected 12"):
        shapley.exact(*opened(lambda x: x[:, 0], RNG.normal(size=(9, 13)))[:2])


def test_loss_is_least_at_the_shapley_values():
    """Breaks if the control variate moves the minimum, whatever the explainer says of the rows.

    Of three features all coalitions weigh alike, so that the loss of all is its expectation.
    """
    call = lambda x: x[:, 0] * x[:, 1] + x[:, 2] ** 2  # noqa: E731
    model, inputs, reads = opened(call, X[:, :3], **{"table.background": 4})
    exact = jnp.asarray(shapley.exact(model, inputs))
    masks = np.array([m for m in itertools.product((False, True), repeat=3) if 0 < sum(m) < 3])
    masks, drawn = np.repeat(masks, 4, 0), np.tile(np.arange(4), 6)  # every pair of both, [24]
    many = shapley.tile(inputs, 24)
    pairs = np.repeat(drawn, 3)[:, None], np.repeat(masks, 3, 0)
    base = model.predict(model.blank(model.background))[:1]
    worth = model.predict(model.mask(model.against(many, pairs[0]), pairs[1])) - base
    game = shapley.Game(
        inputs=inputs,
        targets=jnp.zeros((3, 1), int),
        valid=jnp.ones((3, 3), bool),
        coalitions=jnp.tile(masks, (3, 1, 1)),
        drawn=jnp.tile(drawn, (3, 1)),
        worth=worth.reshape(24, 3, 1).transpose(1, 2, 0),
        full=model.predict(inputs) - base,
    )
    own = model.predict(model.background) - base

    @jax.jit
    def gradient(phi, of_rows):
        return jax.grad(lambda p: shapley.loss(p, game, of_rows, own)[0])(phi)

    anything = jnp.asarray(RNG.normal(size=(4, 1, 3)), jnp.float32)
    for of_rows in (None, anything):
        np.testing.assert_allclose(gradient(exact, of_rows), 0, atol=1e-4)
    assert np.abs(gradient(exact + jnp.eye(3)[:, None], None)).max() > 0.1


def test_control_variate_of_a_sum_leaves_no_noise():
    """Breaks if what a draw of a background row adds to a sum is not known exactly."""
    model, inputs, reads = opened(lambda x: x @ np.arange(5.0))
    objective = shapley.Objective(num_masks=4)
    play = jax.jit(lambda key: shapley.play(model, inputs, key, objective))
    game = play(jax.random.key(0))
    own = model.predict(model.background) - model.predict(model.blank(model.background))
    exact = jnp.asarray(shapley.exact(model, inputs))
    of_rows = jnp.asarray(shapley.exact(model, model.background))
    loss = jax.jit(lambda of_rows: shapley.loss(exact, game, of_rows, own)[0])
    assert float(loss(of_rows)) < 1e-8
    assert float(loss(None)) > 0.01


def test_answers_are_standardised_beside_one_background_row():
    """Breaks if prices meet the network in hundreds of thousands, where a baseline is one row."""
    model, inputs, reads = opened(lambda x: 1e5 * x.sum(1), **{"table.background": 1})
    assert reads.scale == pytest.approx(1e5 * X.sum(1).std(), rel=0.01)
    gains = model.predict(inputs) - model.predict(model.blank(inputs))
    np.testing.assert_allclose(
        reads.scale * gains[:, 0], 1e5 * (X[:3] - reads.background).sum(1), rtol=1e-4
    )


def test_a_row_like_the_baseline_has_a_gradient():
    """Breaks if a row without a feature to explain makes every parameter NaN."""
    model, inputs, _ = opened(lambda x: x.sum(1), X[:, :2], **{"table.background": 1})
    same = model.background
    assert not model.features(same).any() and model.features(inputs).any()

    @jax.jit
    def gradient(phi):
        game = shapley.play(model, same, jax.random.key(0), shapley.Objective(num_masks=2))
        return jax.grad(lambda phi: shapley.loss(phi, game, None, jnp.zeros((1, 1)))[0])(phi)

    assert np.isfinite(gradient(jnp.ones((1, 1, 2)))).all()


def test_f_is_asked_no_more_than_it_must():
    """Breaks if whole rows are asked about once for each background row, or the blank anew."""
    asked = []

    def f(x):
        asked.append(len(x))
        return x.sum(1)

    model, inputs, _ = opened(f)
    asked.clear()
    model.predict(inputs).block_until_ready()
    model.predict(model.blank(inputs)).block_until_ready()
    masks = np.array([[1, 0, 0, 0, 0]] * 3, bool)
    model.predict(model.mask(inputs, masks)).block_until_ready()
    drawn = np.zeros((3, 1), np.int32)
    model.predict(model.mask(model.against(inputs, drawn), masks)).block_until_ready()
    assert asked == [3, 60, 3]


def test_a_batch_is_one_call_of_f():
    """Breaks if whole rows, masked ones or the background's, known already, are a call each.

    Or if what one call says of them is given to other rows.
    """
    asked = []

    def f(x):
        asked.append(len(x))
        return x[:, 0] * x[:, 1]

    model, inputs, _ = opened(f)
    asked.clear()
    sgd, params = optax.sgd(0.1), {"phi": jnp.zeros((1, 5))}
    state = TrainState(params, sgd.init(params), jnp.zeros((), jnp.int32))
    given = lambda params, rows, _: jnp.tile(params["phi"], (len(rows.masks), 1, 1))  # noqa: E731
    objective = shapley.Objective(num_masks=4, num_updates=1)
    found, _ = shapley.train_step(state, model, inputs, jax.random.key(0), given, sgd, objective)
    assert asked == [3 + 3 * 4] and np.abs(found.params["phi"]).max() > 0
    np.testing.assert_allclose(model.of_background, model.predict(model.background), atol=1e-6)
    game = shapley.play(model, inputs, jax.random.key(0), objective)
    np.testing.assert_allclose(game.full, model.predict(inputs), atol=1e-6)  # v(∅) is 0
    rows = model.against(inputs, game.drawn[:, 1:2])
    alone = model.predict(model.mask(rows, game.coalitions[:, 1]))
    np.testing.assert_allclose(game.worth[..., 1], alone, atol=1e-6)


@pytest.mark.parametrize(
    "options, message",
    [({"num_masks": 3}, "num_masks=3: coalitions come in pairs"), ({"num_passes": 0}, "at least")],
)
def test_wrong_objectives(options, message):
    """Breaks if an objective that cannot be trained is begun."""
    with pytest.raises(ValueError, match=message):
        shapley.Objective(**options)
