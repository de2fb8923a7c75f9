"""Held-out answers: of a classifier whose log-odds are linear, so that all can be known."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from fex_jax import contrast, ppo
from fex_jax.predictors import Model
from fex_jax.training import held_out
from fex_jax.updates import TrainState

SIZE = 12
OBJECTIVE = contrast.Objective(num_targets=1)
WEIGHTS = np.random.default_rng(0).normal(size=SIZE).astype(np.float32) / 6
X = np.ones((6, SIZE), np.float32)


def bind(_, x):
    """f_1(m⊙x) has log-odds Σ m_i w_i, f_0 the same with another sign."""

    def predict(x):
        p = jax.nn.sigmoid(x @ WEIGHTS)
        return jnp.stack([1 - p, p], -1)

    return Model(predict=predict, mask=lambda x, m: jnp.where(m, x, 0), grid=(SIZE,)), x


def policy(params):
    """Maps z_0 and c of the parameters, mirrored for class 0."""

    def say(inputs, targets):
        sign = (2 * targets - 1)[..., None].astype(jnp.float32)  # [B, 1, 1]
        parts = tuple(sign * params["heads"][name] for name in ("shared", "own"))
        logits = params["heads"]["mix"] @ jnp.stack(parts).reshape(2, -1)
        logits = logits.reshape(parts[0].shape)
        return ppo.PolicyOutput(logits, jnp.zeros(()), parts=parts)

    return SimpleNamespace(read=lambda x: x, say=say)


@pytest.fixture(scope="module")
def answered():
    return held_out.ask(bind, {}, iter([X[:4], X[4:]]), OBJECTIVE, jax.random.key(0))


def params(shared, own):
    # α Σ m_i z_i / G is c(m) where z = w G / α; log-odds of a half of the contrast have slope 1.
    scale = contrast.GROUPS / OBJECTIVE.temperature
    heads = {"shared": scale * jnp.asarray(shared), "own": scale * jnp.asarray(own)}
    return {"heads": heads | {"mix": jnp.array([1.0, 0.0])}}


def test_f_is_asked_once_about_flat_masks(answered):
    """Breaks if held-out masks follow a policy, or answers are of other masks."""
    assert [len(batch.masks) for _, batch in answered] == [4, 2]
    _, batch = answered[0]
    kept, removed = np.asarray(batch.masks, np.float32) @ WEIGHTS, 0
    removed = WEIGHTS.sum() - kept
    sign = 2 * np.asarray(batch.targets) - 1
    expected = np.concatenate([kept[:, :10], -removed[:, 10:]], -1) * sign
    np.testing.assert_allclose(batch.scores[:, 0], expected, atol=1e-4)


def test_what_maps_explain(answered):
    """Breaks if the true map explains less than all, a zero map anything, or s is not the best."""
    measure = held_out.make_measure(policy, OBJECTIVE, (SIZE,))
    # Σ m_i (w_i − w̄) lacks what the number of features says; so w sums to 0 here.
    right = WEIGHTS
    zero = np.zeros(SIZE)
    found = measure(params(right, zero), answered)
    assert found.shared == pytest.approx(found.explained, abs=0.01)
    assert found.mix == (pytest.approx(1, abs=0.1), 0)
    nothing = measure(params(zero, zero), answered)
    assert nothing.explained == pytest.approx(0, abs=1e-6)
    own = measure(params(zero, right), answered)
    assert own.shared == pytest.approx(0, abs=1e-6) and own.mix == (0, pytest.approx(1, abs=0.1))
    assert own.explained == pytest.approx(found.explained)
    assert measure(params(zero, 2 * right), answered).mix[1] == pytest.approx(0.5, abs=0.05)
    assert measure(params(zero, -right), answered).mix == (0, 0)  # what harms counts nothing
    half = np.where(np.arange(SIZE) % 2, right, 0)
    parts = measure(params(half, 3 * (right - half)), answered)
    assert parts.mix == (pytest.approx(1, abs=0.1), pytest.approx(1 / 3, abs=0.05))
    by_hand = _explained(answered, right)
    assert found.shared == pytest.approx(by_hand, abs=1e-4) and by_hand > 0.9
    assert found.first == pytest.approx(found.explained)  # there is but one class
    assert found.blob == 0  # a row has no centre


def _explained(answered, weights):
    """1 − Σ p (R − R̂)² / Σ p R² in NumPy."""
    left = total = 0.0
    for _, batch in answered:
        sign = 2 * np.asarray(batch.targets) - 1
        f = np.take_along_axis(np.asarray(batch.probabilities), np.asarray(batch.targets), 1)
        linear = np.asarray(batch.masks, float) @ (weights - weights.mean()) * sign
        for half in (slice(0, 10), slice(10, 20)):
            r, z = np.asarray(batch.scores)[:, 0, half], linear[:, half]
            r, z = r - r.mean(-1, keepdims=True), z - z.mean(-1, keepdims=True)
            # Each batch's f is relative to its own mean.
            left += (f / f.mean() * (r - z) ** 2).sum()
            total += (f / f.mean() * r**2).sum()
    return 1 - left / total


def test_a_blob_at_the_centre_explains_what_lies_there(answered):
    """Breaks if what looks at no input is not told apart from a map, or has not its best scale."""
    rows, columns = np.mgrid[:4, :3]
    blob = np.exp(-(((rows - 1.5) / 4) ** 2 + ((columns - 1) / 3) ** 2) * 8).ravel()
    measure = held_out.make_measure(policy, OBJECTIVE, (4, 3))
    for scale in 3, -3:
        linear = [(x, of, of.masks @ (scale * (blob - blob.mean()))) for x, of in answered]
        linear = [(x, of._replace(scores=scores[:, None])) for x, of, scores in linear]
        found = measure(params(np.zeros(SIZE), np.zeros(SIZE)), linear)
        assert (
            found.blob == pytest.approx(float(scale > 0), abs=1e-5) and abs(found.explained) < 1e-6
        )


def test_what_half_the_queries_explain(answered):
    """Breaks if a half's regression sees the other half, or is not that of LIME by its formula.

    Of a linear f with 12 features ten answers leave some directions unknown. Written again with
    scikit-learn's Ridge on the same halves.
    """
    from sklearn.linear_model import Ridge

    left, total = {}, 0.0
    for _, batch in answered:
        f = np.take_along_axis(np.asarray(batch.probabilities), np.asarray(batch.targets), 1)
        for row, weight in enumerate((f / f.mean())[:, 0]):
            masks, scores = (
                np.asarray(batch.masks[row], float),
                np.asarray(batch.scores[row, 0]),
            )
            parts = [np.r_[0:5], np.r_[5:10], np.r_[10:15], np.r_[15:20]]
            halves = (parts[0], parts[2]), (parts[1], parts[3])
            centred = [
                [
                    np.concatenate([x[part] - x[part].mean(0) for part in half])
                    for x in (masks, scores)
                ]
                for half in halves
            ]
            for (m, r), (other, wanted) in (centred, centred[::-1]):
                total += weight * (wanted**2).sum()
                for ridge in held_out._RIDGES:
                    fitted = Ridge(alpha=ridge, fit_intercept=False).fit(m, r)
                    error = weight * ((wanted - fitted.predict(other)) ** 2).sum()
                    left[ridge] = left.get(ridge, 0) + error
    found = held_out.of_half_the_queries(answered, OBJECTIVE)
    assert found == pytest.approx(1 - min(left.values()) / total, abs=1e-4) and 0.2 < found < 0.95


def _revise(folder, frozen=True):
    batches = iter([X[:4], X[4:]])
    key = jax.random.key(0)
    return held_out.make_revise(bind, policy, {}, batches, OBJECTIVE, key, folder, frozen)


def test_the_mix_is_set(tmp_path):
    """Breaks if a run keeps another mix than held-out answers ask for, or does not report it."""
    revise = _revise(tmp_path)
    state = TrainState(params(np.zeros(SIZE), 2 * WEIGHTS), (), jnp.zeros((), jnp.int32))
    after, metrics = revise(state)
    np.testing.assert_allclose(after.params["heads"]["mix"], [0, 0.5], atol=0.05)
    assert metrics["held_out/mix"] == 1
    assert metrics["held_out/explained"] > 0.9
    again, same = revise(after)  # f was asked once: the batches are used up
    assert same == metrics and again.params["heads"]["own"] is state.params["heads"]["own"]


def test_the_best_state_is_exported(tmp_path):
    """Breaks if a worse state replaces a better one, or a run that continues forgets it."""
    right, zero = params(WEIGHTS, np.zeros(SIZE)), params(np.zeros(SIZE), np.zeros(SIZE))
    best, exported = tmp_path / "best", tmp_path / "export"
    exported.mkdir()
    for step, now in ((5, zero), (10, right)):
        _revise(best)(TrainState(now, (), jnp.int32(step)))
    _revise(best)(TrainState(zero, (), jnp.int32(15)))  # of a run that continued
    words = held_out.conclude(best, exported, 20)
    kept = load_file(exported / "explainer.safetensors")
    np.testing.assert_array_equal(kept["heads/shared"], right["heads"]["shared"])
    assert "step 10 of 20" in words and "WARNING" not in words
    held_out.forget(best)
    _revise(best)(TrainState(zero, (), jnp.int32(0)))
    assert "WARNING: what looks at no input explains as much" in held_out.conclude(
        best, exported, 1
    )


def test_who_holds_inputs_back():
    """Breaks if an objective that explains no answers loses inputs, or too few are split."""
    source = SimpleNamespace(size=160)
    for method, limit in (("published", 0), ("fastshap", 0), ("contrast", 127)):
        config = SimpleNamespace(method=method, data=SimpleNamespace(limit=limit))
        assert held_out.split(config, source) == (None, source)
    assert held_out.count("published", 160) == held_out.count("contrast", 127) == 0
