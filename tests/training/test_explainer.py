"""Runs that train an explainer: continued as themselves only, never lost, never diverged."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest

from fex_jax import explain, feeding, settings
from fex_jax.training.explainer import train

PICTURES = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), np.uint8)


def small(**changes):
    """Two steps of FastSHAP."""
    config = settings.default("fastshap")
    values = {"batch_size": 4, "epochs": 1.0, "log_every": 1, "checkpoint.every": 1}
    config.update_from_flattened_dict(values | changes)
    return config


def steps_logged(workdir) -> list[int]:
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["step"] for line in lines]


def test_a_finished_run_is_neither_another_ones_nor_overwritten(predictor, tmp_path):
    """Breaks if a run goes on with another predictor or other data, or an export is lost."""
    source, _, _ = feeding.open_data(predictor, PICTURES)
    train(small(), tmp_path, predictor, source)
    weights = tmp_path / "export" / "explainer.safetensors"
    before = weights.read_bytes()
    train(small(), tmp_path, predictor, source)  # changes nothing
    assert weights.read_bytes() == before and steps_logged(tmp_path) == [1, 2]

    def refuse(message: str, *arguments) -> None:
        with pytest.raises(ValueError, match=message):
            train(*arguments)
        assert weights.read_bytes() == before

    moved = dataclasses.replace(
        predictor, params=jax.tree.map(lambda x: x + 1e-3, predictor.params)
    )
    refuse("other settings of predictor ", small(), tmp_path, moved, source)
    fewer, _, _ = feeding.open_data(predictor, PICTURES[:-1])
    refuse("other settings of data.digest, data.size ", small(), tmp_path, predictor, fewer)
    changed = PICTURES.copy()
    changed[3] = 0
    other, _, _ = feeding.open_data(predictor, changed)
    refuse("other settings of data.digest ", small(), tmp_path, predictor, other)
    faster = small(**{"optimizer.learning_rate": 1.0})
    refuse("other settings of optimizer.learning_rate ", faster, tmp_path, predictor, source)
    shutil.rmtree(tmp_path / "checkpoints")
    refuse("but its checkpoints are gone", small(), tmp_path, predictor, source)


def test_a_run_that_diverged_continues_with_a_lower_learning_rate(predictor, tmp_path, capsys):
    """Breaks if NaN is saved, or the run has to begin anew."""
    source, _, _ = feeding.open_data(predictor, PICTURES)
    rate = "optimizer.learning_rate"
    with pytest.raises(FloatingPointError, match="Lower the learning rate: the run continues"):
        train(small(**{rate: 1e38}), tmp_path, predictor, source)
    last = max([0, *(int(p.name) for p in (tmp_path / "checkpoints").glob("[0-9]*"))])
    train(small(**{rate: 1e-3}), tmp_path, predictor, source)
    assert steps_logged(tmp_path) == [1, 2]
    rates = json.loads((tmp_path / "run.json").read_text())["learning_rates"]
    assert rates[str(last)] == 1e-3
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(explain.load(tmp_path).params))


@pytest.mark.parametrize("preset", ["fastshap", "paper", "authors"])
def test_a_shared_head_is_of_the_regression(predictor, preset, tmp_path):
    """Breaks if an objective that never trains z_0 takes a head that has one."""
    config = settings.default(preset)
    config.update_from_flattened_dict({"map_head": "shared", "batch_size": 4})
    source, _, _ = feeding.open_data(predictor, PICTURES)
    with pytest.raises(ValueError, match="map_head=shared is learned by FEX's regression"):
        train(config, tmp_path / "run", predictor, source)
