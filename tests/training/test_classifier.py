"""The loop that trains classifiers: what it computes, and that a stopped run loses nothing."""

import json
import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fex_jax.training.classifier import fit
from fex_jax.training.run import lock


def run(output, optimizer, stop_at=None, **changes) -> list:
    """Six steps towards drawn points, from 0; parameters at each report, every four steps."""

    def loss(params, batch, key, done):
        return jnp.sum((params["w"] - batch - jax.random.normal(key, (3,)) * (1 - done)) ** 2)

    def batches(start):
        for i in range(start, 6):
            if i == stop_at:
                os.kill(os.getpid(), signal.SIGTERM)
            yield np.full(3, i, np.float32)

    reports = []
    options = {"seed": 1, "settings": {"rate": 0.1}, "batch_size": 1, "checkpoint_every": 2}
    options |= {"report_every": 4}

    def save(params):
        reports.append(np.asarray(params["w"]))
        np.save(output / "model", reports[-1])
        os.replace(output / "model.npy", output / "model")

    fit(
        output, {"w": jnp.zeros(3)}, optimizer, loss, batches, 6,
        accuracy=lambda params, removed: 0.0,
        save=save, saved=[output / "model"], **options | changes,
    )  # fmt: skip
    return reports


def test_steps_are_those_of_gradient_descent(tmp_path):
    """Breaks if a step takes another key, gradient or share of the steps than it says."""
    w, expected = jnp.zeros(3), []
    for i in range(6):
        noise = jax.random.normal(jax.random.fold_in(jax.random.key(1), i), (3,))
        w = w - 0.1 * 2 * (w - i - noise * (1 - i / 6))
        expected.append(w)
    found = run(tmp_path, optax.sgd(0.1))
    np.testing.assert_allclose(found, [expected[3], expected[5]], rtol=1e-5)
    assert not (tmp_path / "checkpoints").exists()


def test_a_stopped_run_continues_as_if_it_had_not(tmp_path):
    """Breaks if SIGTERM loses steps, or optimiser state, batches or keys differ afterwards."""
    whole = run(tmp_path / "whole", optax.adam(0.1))
    with pytest.raises(SystemExit, match="143"):
        run(tmp_path / "parts", optax.adam(0.1), stop_at=2)
    rest = run(tmp_path / "parts", optax.adam(0.1))
    np.testing.assert_array_equal(rest, whole)


def test_a_result_is_never_overwritten(tmp_path, capsys):
    """Breaks if a second call in a finished folder trains from 0, or other settings replace what
    is there; or if what was moved away is not trained anew."""
    run(tmp_path, optax.sgd(0.1))
    model, ended = tmp_path / "model", tmp_path / "training.json"
    before = model.read_bytes()
    assert run(tmp_path, optax.sgd(0.1)) == []
    assert f"{tmp_path} is finished: nothing is left to do" in capsys.readouterr().out
    with pytest.raises(ValueError, match="other settings of rate .*training.json"):
        run(tmp_path, optax.sgd(0.2), settings={"rate": 0.2})
    ended.unlink()
    with pytest.raises(ValueError, match="model is there, but the checkpoints .* are gone"):
        run(tmp_path, optax.sgd(0.1))
    assert model.read_bytes() == before and not (tmp_path / "checkpoints").exists()
    model.unlink()
    assert len(run(tmp_path, optax.sgd(0.1))) == 2


def test_the_lock_outlives_the_checkpoints(tmp_path):
    """Breaks if a second process may begin while the first one writes, as when the lock lies in
    what the end deletes."""
    with lock(tmp_path), pytest.raises(ValueError, match="is training in"):
        run(tmp_path, optax.sgd(0.1))
    run(tmp_path, optax.sgd(0.1))
    assert (tmp_path / "lock").read_text() == str(os.getpid())


def test_where_scenes_are_kept_may_change(tmp_path):
    """Breaks if a stopped run is refused because its scenes lie elsewhere now."""
    here, there = ({"config": {"data": {"cache": name}}} for name in ("here", ""))
    with pytest.raises(SystemExit):
        run(tmp_path, optax.adam(0.1), stop_at=2, settings=here)
    assert run(tmp_path, optax.adam(0.1), settings=there)


def test_a_run_of_other_settings_is_not_continued(tmp_path):
    """Breaks if a classifier could be trained partly with one setting, partly with another."""
    with pytest.raises(SystemExit):
        run(tmp_path, optax.adam(0.1), stop_at=2)
    with pytest.raises(ValueError, match="other settings of rate .* move what is there away"):
        run(tmp_path, optax.adam(0.1), settings={"rate": 0.2})
    path = tmp_path / "checkpoints" / "settings.json"
    described = json.loads(path.read_text())
    path.write_text(json.dumps(described | {"backbone": "another"}))
    with pytest.raises(ValueError, match="other settings of backbone"):
        run(tmp_path, optax.adam(0.1))


def test_a_run_that_diverged_continues_with_a_lower_learning_rate(tmp_path, capsys):
    """Breaks if NaN is saved, the last good step is not said, or a lower rate is refused."""
    fast, slow = {"learning_rate": 1e30}, {"learning_rate": 0.1}
    with pytest.raises(FloatingPointError, match="the last good checkpoint is of step None"):
        run(tmp_path, optax.sgd(1e30), settings=fast)
    assert not list((tmp_path / "checkpoints").glob("[0-9]*"))
    found = run(tmp_path, optax.sgd(0.1), settings=slow)
    assert "learning_rate is 0.1 from here on; it was 1e+30" in capsys.readouterr().out
    assert np.isfinite(found).all()
