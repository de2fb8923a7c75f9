"""Algorithm 1 on games whose best masks are known, and what it draws and asks, by hand."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs import common
from fex_jax import algorithm, contrast, objectives, ppo, published, updates
from fex_jax.predictors import Model

# A toy game: f needs features 0 and 3 of six for the first of three classes, and shares the rest
# among the others; one table of logits per class is the policy.
BEST = np.array([1, 0, 0, 1, 0, 0])


def toy_predict(x: jax.Array) -> jax.Array:
    p = 0.05 + 0.9 * x[..., 0] * x[..., 3]
    return jnp.stack([p, 0.8 * (1 - p), 0.2 * (1 - p)], -1)


def toy_policy(params: dict, x: jax.Array, targets: jax.Array) -> ppo.PolicyOutput:
    return ppo.PolicyOutput(
        params["logits"][targets],
        jnp.broadcast_to(params["classes"], (len(x), 3)),
        jnp.broadcast_to(params["value"], targets.shape),
    )


def toy_params() -> dict:
    return {"logits": jnp.zeros((3, 6)), "classes": jnp.zeros(3), "value": jnp.zeros(())}


def toy_step(objective, optimizer, predict=toy_predict, policy=toy_policy):
    """The compiled step of the objective's module."""
    model = Model(predict=predict, mask=lambda x, m: x * m, grid=(6,))
    networks = {
        "read": lambda params, x: None,
        "policy": lambda params, pair, targets: policy(params, pair[0], targets),
    }
    train_step = MODULES[type(objective)].train_step
    return jax.jit(
        lambda state, x, key: train_step(
            state, model, x, key, **networks, optimizer=optimizer, objective=objective
        )
    )


def run_toy(
    objective, steps: int = 150, predict=toy_predict, inputs: float | jax.Array = 1.0
) -> tuple[jax.Array, dict]:
    optimizer = optax.adam(0.03)
    params = toy_params()
    state = updates.TrainState(params, optimizer.init(params), jnp.zeros((), jnp.int32))
    step = toy_step(objective, optimizer, predict)
    for i in range(steps):
        state, metrics = step(state, inputs * jnp.ones((32, 6)), jax.random.key(i))
    return state.params["logits"], metrics


MODULES = {module.Objective: module for module in (contrast, published)}
PRESETS = {
    name: objectives.of(config.method).Objective(**config.objective)
    for name, config in {n: common.get_config(n) for n in ("paper", "authors", "contrast")}.items()
}


@pytest.mark.parametrize("preset", PRESETS)
def test_ppo_finds_the_best_mask(preset):
    """Breaks if questions, answers and updates do not climb the score together."""
    objective = PRESETS[preset]
    logits, metrics = run_toy(objective, steps=400 if preset == "paper" else 150)
    assert set(np.argsort(logits[0])[-2:]) == {0, 3}
    if preset == "contrast":  # they are what speaks most against the other classes
        assert set(np.argsort(logits[1])[:2]) == set(np.argsort(logits[2])[:2]) == {0, 3}
    else:  # the policy chooses its budget: exactly the two features
        np.testing.assert_array_equal(np.asarray(jax.nn.sigmoid(logits[0])) > 0.5, BEST)


def test_a_sum_of_values_in_any_unit():
    """Breaks if a value's unit or zero changes what is learned, or a sum has another map.

    f_k = unit Σ_i w_ki x_i + zero, where x = a (1, …, 1) and a has mean 1 and standard deviation s:
    a feature is worth w_ki / (s |Σ_i w_ki|) standard deviations of f_k, and z is 2 / α times that.
    """
    weights = jnp.array([[3.0, -1, 0, 2, 0.5, 0], [0, 0, 4, -2, 1, 0]])
    a = 1 + jnp.sin(jnp.arange(32.0))[:, None]
    objective = dataclasses.replace(PRESETS["contrast"], output="value", kl_coef=0.0, num_targets=1)
    found = []
    for unit, zero in ((1.0, 0.0), (1e4, 1e5)):

        def values(x: jax.Array, unit=unit, zero=zero) -> jax.Array:
            return jnp.pad(unit * (x @ weights.T) + zero, ((0, 0), (0, 1)))

        logits, _ = run_toy(objective, 300, values, a)
        found.append(np.asarray(logits - logits.mean(-1, keepdims=True))[:2])
    np.testing.assert_allclose(found[0], found[1], atol=0.05 * np.abs(found[0]).max())
    exact = weights / (a.std() * jnp.abs(weights.sum(-1, keepdims=True)))
    exact = 2 / objective.temperature * (exact - exact.mean(-1, keepdims=True))
    for one, true in zip(found[0], exact, strict=True):
        np.testing.assert_allclose(one, true, atol=0.2 * np.abs(true).max())


def test_one_update_at_a_time_moves_every_part_of_the_batch():
    """Breaks if updates see the same inputs again, or if the step counter is not per batch."""
    objective = dataclasses.replace(PRESETS["contrast"], num_updates=2, num_passes=1)
    seen = []

    def policy(params, x, targets):
        jax.debug.callback(lambda x: seen.append(np.asarray(x)), x[:, 0])
        return toy_policy(params, x, targets)

    optimizer = optax.sgd(0.0)
    params = toy_params()
    state = updates.TrainState(params, optimizer.init(params), jnp.zeros((), jnp.int32))
    x = jnp.ones((4, 6)).at[:, 0].set(jnp.arange(4.0))
    step = toy_step(objective, optimizer, policy=policy)
    state, _ = step(state, x, jax.random.key(0))
    jax.effects_barrier()
    parts = {tuple(part) for part in seen if len(part) == 2}
    assert parts == {(0.0, 2.0), (1.0, 3.0)}
    assert int(state.step) == 1


def test_targets_are_the_argmax_or_sampled_from_f():
    """Breaks if another class than the one drawn is scored, or sampling ignores f."""
    x = jnp.ones((4000, 6)) * jnp.array([0.8, 1, 1, 1, 1, 1])  # f = (0.77, 0.18, 0.05)
    policy = functools.partial(toy_policy, toy_params())

    @functools.partial(jax.jit, static_argnums=0)
    def play(objective, x):
        given = toy_predict, lambda x, m: x * m, policy, x, jax.random.key(0), objective
        return MODULES[type(objective)].play(*given)[0]

    sampled = play(PRESETS["contrast"], x)
    assert abs(float((sampled.targets[:, 0] == 0).mean()) - 0.77) < 0.03
    assert sampled.targets.shape == (4000, 2)  # the third class is known from the others
    argmax = play(PRESETS["authors"], x)
    assert argmax.targets.shape == (4000, 1) and not argmax.targets.any()
    kept = jnp.where(sampled.masks, x[:, None], 0)
    removed = jnp.where(sampled.masks, 0, x[:, None])
    # Each half of the masks is asked one question, of every class.
    answers = jnp.concatenate([toy_predict(kept)[:, :5], toy_predict(removed)[:, 5:]], 1)
    expected = jnp.take_along_axis(jnp.swapaxes(answers, 1, 2), sampled.targets[..., None], 1)
    certain = jnp.clip(expected, 0.01, 0.99)
    log_odds = jnp.log(certain / (1 - certain)) * jnp.where(jnp.arange(10) < 5, 1, -1)
    np.testing.assert_allclose(sampled.scores, log_odds, atol=1e-5)
    likely = play(dataclasses.replace(PRESETS["contrast"], targets="argmax"), x)
    np.testing.assert_array_equal(likely.targets, np.tile([0, 1], (4000, 1)))


@pytest.mark.parametrize("preset", list(PRESETS))
def test_features_that_are_not_there_change_nothing(preset):
    """Breaks if padding enters K_m, N, a mean, the entropy or the gradients."""
    objective, targets = PRESETS[preset], 2 if preset == "contrast" else 1
    module, rng = MODULES[type(objective)], np.random.default_rng(0)
    logits = jnp.asarray(rng.normal(size=(4, targets, 3)), jnp.float32)
    padded = jnp.concatenate([logits, jnp.asarray(rng.normal(size=(*logits.shape[:2], 5)))], -1)
    valid = jnp.arange(8) < 3
    short = ppo.PolicyOutput(logits, jnp.zeros((4, 2)), jnp.zeros(logits.shape[:2]))
    long = short._replace(logits=padded, valid=jnp.tile(valid, (4, 1, 1)))
    masks = jnp.asarray(rng.integers(0, 2, (4, objective.num_masks, 3)), bool)
    asked = (*logits.shape[:2], objective.num_masks)
    values = {
        "inputs": None, "targets": jnp.zeros(asked[:2], int),
        "probabilities": jnp.full((4, 2), 0.5), "masks": masks,
        "budgets": jnp.asarray(rng.normal(size=(4, 1, 1)), jnp.float32),
        "log_probs": jnp.full((4, 1, objective.num_masks), -2.0),
        "scores": jnp.asarray(rng.normal(size=asked), jnp.float32),
        "advantages": jnp.asarray(rng.normal(size=asked), jnp.float32),
    }  # fmt: skip
    batch = module.Answered(**{name: values[name] for name in module.Answered._fields})
    wide = batch._replace(masks=jnp.pad(masks, ((0, 0), (0, 0), (0, 5))))

    def total(logits, output, batch):
        return module.loss(output._replace(logits=logits), batch, objective)

    expected, actual = (
        jax.jit(jax.value_and_grad(total, has_aux=True))(output.logits, output, batch)
        for output, batch in ((short, batch), (long, wide))
    )
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5), expected[0], actual[0])
    np.testing.assert_allclose(actual[1][..., :3], expected[1], rtol=1e-5, atol=1e-7)
    assert not actual[1][..., 3:].any()
    # Drawn masks, scores and metrics. f sees how many of the first three are kept.
    inputs = {"x": jnp.ones((4, 3))}  # a pytree

    def predict(inputs):
        kept = inputs["x"].mean(-1)
        return jnp.stack([1 - 0.6 * kept, 0.6 * kept], -1)

    play = jax.jit(
        lambda inputs: module.play(
            predict, lambda x, m: {"x": x["x"] * m[:, :3]}, lambda *_: long, inputs,
            jax.random.key(0), objective,
        )
    )  # fmt: skip
    batch, metrics = play(inputs)
    assert not batch.masks[..., 3:].any() and batch.masks[..., :3].any()
    assert metrics["policy/num_features"] == 3
    if preset == "contrast":
        every = contrast.shift_budget(padded, 0.5, jnp.ones((4, 1, 8), bool))
        np.testing.assert_array_equal(every, contrast.shift_budget(padded, 0.5))
        return
    kept, masks = jnp.moveaxis(batch.scores, -1, 0), jnp.swapaxes(batch.masks, 0, 1)
    same = published.ratio_score(kept, masks[..., :3], preset)
    with_padding = published.ratio_score(kept, masks, preset, long.valid)
    np.testing.assert_array_equal(same, with_padding)


def test_masks_of_a_regression_fall_in_patches():
    """Breaks if masks on a grid are independent or of several sizes, or λ is not what is kept."""
    logits = jnp.linspace(-2, 2, 16)[None, None]
    many = contrast.Objective(num_masks=8000, budget_range=1e-6)

    def draw(grid):
        def policy(*_):
            return ppo.PolicyOutput(logits, jnp.zeros((1, 2)))

        given = policy, None, jnp.full((1, 2), 0.5), jax.random.key(0), many, grid
        return np.asarray(contrast.draw(*given).masks)[:, 0]

    masks = draw((4, 4))
    assert masks.shape == (8000, 16)
    np.testing.assert_allclose(masks.mean(0), jax.nn.sigmoid(logits[0, 0]), atol=0.03)
    assert set(masks.sum(-1)) == {8}
    alone = draw((16,))
    # One that is kept leaves less room for the others: of m of N at random they correlate by −1/15.
    for found, of_neighbours in ((masks, 0.03), (alone, -1 / 15)):
        correlation = np.corrcoef(found.T)
        beside = [correlation[i, i + 1] for i in range(15) if i % 4 < 3]
        assert np.mean(beside) == pytest.approx(of_neighbours, abs=0.02)


def test_collapse_is_noticed():
    """Breaks if a policy that keeps one feature in a hundred, or is deterministic, passes."""
    healthy = {"policy/kept_features": 30.0, "policy/entropy": 20.0, "policy/num_features": 64.0}
    assert algorithm.collapse_warning(healthy) is None
    assert "keeps 1.5 of 64" in algorithm.collapse_warning(healthy | {"policy/kept_features": 1.5})
    assert algorithm.collapse_warning(healthy | {"policy/entropy": 0.5})
    assert algorithm.collapse_warning({"policy/kept_features": 1.0}) is None  # L2X's
