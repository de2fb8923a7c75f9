"""Held-out answers: of a classifier whose log-odds are linear, so that all can be known."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fex_jax import ppo
from fex_jax.predictors import Model
from fex_jax.training import held_out
from fex_jax.updates import TrainState

SIZE = 12
OBJECTIVE = ppo.Objective(num_targets=1)
WEIGHTS = np.random.default_rng(0).normal(size=SIZE).astype(np.float32) / 6
X = np.ones((6, SIZE), np.float32)


def bind(_, x):
    """f_1(m⊙x) has log-odds Σ m_i w_i, f_0 the same with another sign."""

    def predict(x):
        p = jax.nn.sigmoid(x @ WEIGHTS)
        return jnp.stack([1 - p, p], -1)

    return Model(predict=predict, mask=lambda x, m: x * m, grid=(SIZE,)), x


def policy(params, x, targets):
    """Maps z_0 and c of the parameters, mirrored for class 0."""
    sign = (2 * targets - 1)[..., None].astype(jnp.float32)  # [B, 1, 1]
    parts = tuple(sign * params["heads"][name] for name in ("shared", "own"))
    logits = parts[0] + params["heads"]["class_share"] * parts[1]
    return ppo.PolicyOutput(logits, jnp.zeros(()), jnp.zeros(targets.shape), None, parts)


@pytest.fixture(scope="module")
def answered():
    return held_out.ask(bind, {}, iter([X[:4], X[4:]]), OBJECTIVE, jax.random.key(0))


def params(shared, own, share=0.0):
    # α Σ m_i z_i / G is c(m) where z = w G / α; log-odds of a half of the contrast have slope 1.
    scale = OBJECTIVE.num_groups / OBJECTIVE.temperature
    heads = {"shared": scale * jnp.asarray(shared), "own": scale * jnp.asarray(own)}
    return {"heads": heads | {"class_share": jnp.float32(share)}}


def test_f_is_asked_once_about_flat_masks(answered):
    """Breaks if held-out masks follow a policy, or answers are of other masks."""
    assert [len(rollout.masks) for _, rollout in answered] == [4, 2]
    _, rollout = answered[0]
    kept, removed = np.asarray(rollout.masks, np.float32) @ WEIGHTS, 0
    removed = WEIGHTS.sum() - kept
    sign = 2 * np.asarray(rollout.targets) - 1
    expected = np.concatenate([kept[:, :10], -removed[:, 10:]], -1) * sign
    np.testing.assert_allclose(rollout.scores[:, 0], expected, atol=1e-4)


def test_what_maps_explain(answered):
    """Breaks if the true map explains less than all, a zero map anything, or s is not the best."""
    measure = held_out.make_measure(bind, policy, OBJECTIVE)
    # Σ m_i (w_i − w̄) lacks what the number of features says; so w sums to 0 here.
    right = WEIGHTS
    zero = np.zeros(SIZE)
    found = measure(params(right, zero), {}, answered)
    assert found.shared == pytest.approx(found.explained) and found.share == 0
    nothing = measure(params(zero, zero), {}, answered)
    assert nothing.explained == pytest.approx(0, abs=1e-6)
    own = measure(params(zero, right), {}, answered)
    assert own.shared == pytest.approx(0, abs=1e-6) and own.share == pytest.approx(1, abs=0.1)
    assert own.explained == pytest.approx(found.explained, abs=0.02)
    double = measure(params(zero, 2 * right), {}, answered)
    assert double.share == pytest.approx(0.5, abs=0.05)
    assert (
        measure(params(zero, -right), {}, answered).share == 0
    )  # a part that harms counts nothing
    by_hand = _explained(answered, right)
    assert found.explained == pytest.approx(by_hand, abs=1e-4) and by_hand > 0.9


def _explained(answered, weights):
    """1 − Σ p (R − R̂)² / Σ p R² in NumPy."""
    left = total = 0.0
    for _, rollout in answered:
        sign = 2 * np.asarray(rollout.targets) - 1
        f = np.take_along_axis(np.asarray(rollout.probabilities), np.asarray(rollout.targets), 1)
        linear = np.asarray(rollout.masks, float) @ (weights - weights.mean()) * sign
        for half in (slice(0, 10), slice(10, 20)):
            r, z = np.asarray(rollout.scores)[:, 0, half], linear[:, half]
            r, z = r - r.mean(-1, keepdims=True), z - z.mean(-1, keepdims=True)
            # Each batch's f is relative to its own mean.
            left += (f / f.mean() * (r - z) ** 2).sum()
            total += (f / f.mean() * r**2).sum()
    return 1 - left / total


def test_the_share_is_set_before_a_state_is_saved():
    """Breaks if a run keeps another share than held-out answers ask for, or does not report it."""
    revise = held_out.make_revise(
        bind, policy, {}, iter([X[:4], X[4:]]), OBJECTIVE, jax.random.key(0)
    )
    state = TrainState(params(np.zeros(SIZE), 2 * WEIGHTS), (), jnp.zeros((), jnp.int32))
    after, metrics = revise(state)
    share = float(after.params["heads"]["class_share"])
    assert share == pytest.approx(0.5, abs=0.05) == metrics["held_out/share"]
    assert metrics["held_out/explained"] > 0.9
    again, same = revise(after)  # f was asked once: the batches are used up
    assert same == metrics and again.params["heads"]["own"] is state.params["heads"]["own"]


def test_only_a_shared_head_holds_inputs_back():
    """Breaks if other heads lose inputs, or too few inputs are split until none is left."""
    source = SimpleNamespace(size=32)
    config = SimpleNamespace(map_head="wide", data=SimpleNamespace(limit=0))
    assert held_out.split(config, source) == (None, source)
    config = SimpleNamespace(map_head="shared", data=SimpleNamespace(limit=63))
    assert held_out.split(config, source) == (None, source)
    assert held_out.queries(None) == 0
