"""Algorithm 1 on games whose best masks are known, and what it draws and asks, by hand."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs import common
from fex_jax import algorithm, ppo, updates

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


def run_toy(
    objective: ppo.Objective, steps: int = 150, predict=toy_predict, inputs: float | jax.Array = 1.0
) -> tuple[jax.Array, dict]:
    optimizer = optax.adam(0.03)
    params = toy_params()
    state = updates.TrainState(params, optimizer.init(params), jnp.zeros((), jnp.int32))
    step = jax.jit(
        functools.partial(
            algorithm.train_step, predict=predict, mask=lambda x, m: x * m, policy=toy_policy,
            optimizer=optimizer, objective=objective,
        )
    )  # fmt: skip
    for i in range(steps):
        state, metrics = step(state, inputs * jnp.ones((32, 6)), jax.random.key(i))
    return state.params["logits"], metrics


PRESETS = {
    name: ppo.Objective(**common.get_config(name).objective)
    for name in ("paper", "authors", "contrast")
}
PRESETS["clipped"] = dataclasses.replace(
    PRESETS["contrast"], surrogate="clipped", num_targets=1, entropy_coef=0.6
)


@pytest.mark.parametrize("preset", PRESETS)
def test_ppo_finds_the_best_mask(preset):
    """Breaks if rollout, advantage and update do not climb the score together."""
    objective = PRESETS[preset]
    logits, metrics = run_toy(objective, steps=400 if preset == "paper" else 150)
    assert set(np.argsort(logits[0])[-2:]) == {0, 3}
    if objective.num_targets > 1:  # they are what speaks most against the other classes
        assert set(np.argsort(logits[1])[:2]) == set(np.argsort(logits[2])[:2]) == {0, 3}
    if not objective.budget_range:  # the policy chooses its budget: exactly the two features
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
    step = jax.jit(
        functools.partial(
            algorithm.train_step, predict=toy_predict, mask=lambda x, m: x * m, policy=policy,
            optimizer=optimizer, objective=objective,
        )
    )  # fmt: skip
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
    def rollout(objective, x):
        found, _ = algorithm.rollout(
            toy_predict, lambda x, m: x * m, policy, x, jax.random.key(0), objective
        )
        return found

    sampled = rollout(PRESETS["contrast"], x)
    assert abs(float((sampled.targets[:, 0] == 0).mean()) - 0.77) < 0.03
    assert sampled.targets.shape == (4000, 2)  # the third class is known from the others
    argmax = rollout(PRESETS["authors"], x)
    assert argmax.targets.shape == (4000, 1) and not argmax.targets.any()
    kept = jnp.where(sampled.masks, x[:, None], 0)
    removed = jnp.where(sampled.masks, 0, x[:, None])
    # Each half of the masks is asked one question, of every class.
    answers = jnp.concatenate([toy_predict(kept)[:, :5], toy_predict(removed)[:, 5:]], 1)
    expected = jnp.take_along_axis(jnp.swapaxes(answers, 1, 2), sampled.targets[..., None], 1)
    certain = jnp.clip(expected, 0.01, 0.99)
    log_odds = jnp.log(certain / (1 - certain)) * jnp.where(jnp.arange(10) < 5, 1, -1)
    np.testing.assert_allclose(sampled.scores, log_odds, atol=1e-5)
    objective = dataclasses.replace(PRESETS["contrast"], answers="probability")
    sampled = rollout(objective, x)
    expected = expected * jnp.where(jnp.arange(10) < 5, 1, -1)
    np.testing.assert_allclose(sampled.scores, expected, atol=1e-6)


@pytest.mark.parametrize("preset", list(PRESETS))
def test_features_that_are_not_there_change_nothing(preset):
    """Breaks if padding enters K_m, N, a mean, the entropy or the gradients."""
    objective = PRESETS[preset]
    rng = np.random.default_rng(0)
    logits = jnp.asarray(rng.normal(size=(4, min(objective.num_targets, 2), 3)), jnp.float32)
    padded = jnp.concatenate([logits, jnp.asarray(rng.normal(size=(*logits.shape[:2], 5)))], -1)
    valid = jnp.arange(8) < 3
    short = ppo.PolicyOutput(logits, jnp.zeros((4, 2)), jnp.zeros(logits.shape[:2]))
    long = short._replace(logits=padded, valid=jnp.tile(valid, (4, 1, 1)))
    masks = jnp.asarray(rng.integers(0, 2, (4, objective.num_masks, 3)), bool)
    asked = (*logits.shape[:2], objective.num_masks)
    batch = ppo.Rollout(
        inputs=None, targets=jnp.zeros(asked[:2], int), probabilities=jnp.full((4, 2), 0.5),
        budgets=jnp.asarray(rng.normal(size=(4, 1, 1)), jnp.float32), masks=masks,
        log_probs=jnp.full((4, 1, objective.num_masks), -2.0), scores=jnp.ones(asked),
        advantages=jnp.asarray(rng.normal(size=asked), jnp.float32),
    )  # fmt: skip
    wide = batch._replace(masks=jnp.pad(masks, ((0, 0), (0, 0), (0, 5))))

    def total(logits, output, batch):
        return algorithm.loss(output._replace(logits=logits), batch, objective)

    expected, actual = (
        jax.jit(jax.value_and_grad(total, has_aux=True))(output.logits, output, batch)
        for output, batch in ((short, batch), (long, wide))
    )
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5), expected[0], actual[0])
    np.testing.assert_allclose(actual[1][..., :3], expected[1], rtol=1e-5, atol=1e-7)
    assert not actual[1][..., 3:].any()
    # The rollout: drawn masks, scores and metrics. f sees how many of the first three are kept.
    inputs = {"x": jnp.ones((4, 3))}  # a pytree

    def predict(inputs):
        kept = inputs["x"].mean(-1)
        return jnp.stack([1 - 0.6 * kept, 0.6 * kept], -1)

    rollout = jax.jit(
        lambda inputs: algorithm.rollout(
            predict, lambda x, m: {"x": x["x"] * m[:, :3]}, lambda *_: long, inputs,
            jax.random.key(0), objective,
        )
    )  # fmt: skip
    batch, metrics = rollout(inputs)
    assert not batch.masks[..., 3:].any() and batch.masks[..., :3].any()
    assert metrics["policy/num_features"] == 3
    kept, masks = jnp.moveaxis(batch.scores, -1, 0), jnp.swapaxes(batch.masks, 0, 1)
    same = ppo.ratio_score(kept, masks[..., :3], "authors")
    with_padding = ppo.ratio_score(kept, masks, "authors", long.valid)
    np.testing.assert_array_equal(same, with_padding)
    every = ppo.shift_budget(padded, 0.5, objective, jnp.ones((4, 1, 8), bool))
    np.testing.assert_array_equal(every, ppo.shift_budget(padded, 0.5, objective))


def test_masks_of_a_regression_fall_in_patches():
    """Breaks if masks on a grid are independent or of several sizes, or λ is not what is kept."""
    logits = jnp.tile(jnp.linspace(-2, 2, 16), (1, 1))
    many = ppo.Objective(num_masks=8000)
    key = jax.random.key(0)
    masks = np.asarray(algorithm.draw_masks(key, logits, many, (4, 4)))[:, 0]
    assert masks.shape == (8000, 16)
    np.testing.assert_allclose(masks.mean(0), jax.nn.sigmoid(logits[0]), atol=0.03)
    assert set(masks.sum(-1)) == {8}
    alone = np.asarray(algorithm.draw_masks(key, logits, many, (16,)))[:, 0]
    # One that is kept leaves less room for the others: of m of N at random they correlate by −1/15.
    for found, of_neighbours in ((masks, 0.03), (alone, -1 / 15)):
        correlation = np.corrcoef(found.T)
        beside = [correlation[i, i + 1] for i in range(15) if i % 4 < 3]
        assert np.mean(beside) == pytest.approx(of_neighbours, abs=0.02)


@pytest.mark.parametrize(("form", "features"), [("paper", 1), ("authors", 3)])
def test_total_loss_is_eq_25(form, features):
    """Breaks if a term is left out or has the wrong sign or coefficient.

    The entropy is that of all three features together, or the mean of one of them.
    """
    objective = ppo.Objective(
        budget_range=0.0, surrogate="clipped", entropy=form, entropy_coef=0.3, value_coef=0.7,
        kl_coef=0.9, num_masks=4, num_targets=1,
    )  # fmt: skip
    key, logits = jax.random.key(1), jnp.array([[0.5, -1.0, 2.0], [0.0, 0.3, -0.7]])
    masks = jax.random.bernoulli(key, 0.5, (2, 4, 3))
    batch = ppo.Rollout(
        inputs=None, targets=jnp.array([[0], [1]]),
        probabilities=jnp.array([[0.6, 0.4], [0.1, 0.9]]),
        budgets=jnp.zeros((2, 1, 1)), masks=masks,
        log_probs=ppo.bernoulli_log_prob(logits[:, None] + 0.1, masks)[:, None],
        scores=jax.random.uniform(key, (2, 1, 4)), advantages=jax.random.normal(key, (2, 1, 4)),
    )  # fmt: skip
    output = ppo.PolicyOutput(
        logits[:, None], jnp.array([[1.0, 0.0], [0.0, 1.0]]), jnp.array([[0.2], [0.4]])
    )
    total, _ = algorithm.loss(output, batch, objective)
    expected = (
        ppo.clipped_surrogate(
            ppo.bernoulli_log_prob(logits[:, None], masks)[:, None],
            batch.log_probs,
            batch.advantages,
            0.2,
        )
        - 0.3 * ppo.bernoulli_entropy(logits).mean() / features
        + 0.7 * ppo.value_loss(output.values, batch.scores)
        + 0.9 * ppo.kl_to_softmax(output.class_logits, batch.probabilities, "authors")
    )
    np.testing.assert_allclose(total, expected, rtol=1e-6)


def test_collapse_is_noticed():
    """Breaks if a policy that keeps one feature in a hundred, or is deterministic, passes."""
    healthy = {"policy/kept_features": 30.0, "policy/entropy": 20.0, "policy/num_features": 64.0}
    assert algorithm.collapse_warning(healthy) is None
    assert "keeps 1.5 of 64" in algorithm.collapse_warning(healthy | {"policy/kept_features": 1.5})
    assert algorithm.collapse_warning(healthy | {"policy/entropy": 0.5})
