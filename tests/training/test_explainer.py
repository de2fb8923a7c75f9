"""Runs that train an explainer: continued as themselves only, never lost, never diverged."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest

from fex_jax import explain, feeding, host, objectives, settings
from fex_jax.training import step
from fex_jax.training.explainer import train

PICTURES = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), np.uint8)


def small(preset="fastshap", **changes):
    """Two steps."""
    config = settings.default(preset)
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
    kept = small(**{"data.cache": str(tmp_path), "data.cache_gib": 3})  # where scenes lie
    for same in (small(), kept, small()):  # changes nothing
        train(same, tmp_path, predictor, source)
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


@pytest.mark.parametrize("preset", ["fastshap", "paper", "authors", "l2x", "cortx"])
def test_a_shared_head_is_of_the_regression(predictor, preset, tmp_path):
    """Breaks if an objective that never trains z_0 takes a head that has one."""
    config = settings.default(preset)
    config.update_from_flattened_dict({"map_head": "shared", "batch_size": 4})
    source, _, _ = feeding.open_data(predictor, PICTURES)
    with pytest.raises(ValueError, match="map_head=shared is learned by FEX's regression"):
        train(config, tmp_path / "run", predictor, source)


@pytest.mark.parametrize("preset", ["authors", "l2x", "cortx"])
def test_rivals_are_trained_stopped_and_opened(predictor, preset, tmp_path):
    """Breaks if a rival does not learn, is lost when it is stopped, or what is opened holds more
    than what explains: L2X's q and the authors' critic are of training alone."""
    config = small(preset, **{"optimizer.backbone_scale": 1.0, "objective.num_passes": 2})
    source, _, _ = feeding.open_data(predictor, PICTURES)
    train(config, tmp_path, predictor, source)
    finished = explain.load(tmp_path)
    assert finished.method == objectives.METHODS[config.method]
    assert finished.params.keys() == {"backbone", "heads"}
    assert {name.partition("_")[0] for name in finished.params["heads"]} == {"map"}
    assert np.any(finished.params["heads"]["map_in"]["bias"])
    log = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in log] == [1, 2]
    learned = {"authors": "loss/value", "l2x": "q/divergence", "cortx": "contrast/loss"}[preset]
    assert all(np.isfinite(line[learned]) for line in log)

    # Stopped after the first step, it can be opened, and goes on to the same end.
    shutil.rmtree(tmp_path / "checkpoints" / "2")
    weights = tmp_path / "export" / "explainer.safetensors"
    before = weights.read_bytes()
    weights.unlink()
    unfinished = explain.load(tmp_path)
    assert unfinished(PICTURES[:1]).attributions.shape == (1, 4, 4)
    train(config, tmp_path, predictor, source)
    assert weights.read_bytes() == before


@pytest.mark.parametrize(
    "preset, output, message",
    [
        ("fastshap", "value", "output='value', and FastSHAP learns from probabilities: use"),
        ("cortx", "value", "output='value', and CoRTX learns from probabilities: use"),
        ("l2x", "value", "L2X learns from probabilities of classes that exclude each other: use"),
        ("l2x", "sigmoid", "output='sigmoid', and L2X learns from probabilities of classes"),
        ("authors", "value", "the presets paper and authors learn from probabilities: use"),
        ("paper", "sigmoid", "output='sigmoid', and the preset paper compares softmaxes"),
    ],
)
def test_answers_that_an_objective_cannot_use_are_refused(preset, output, message):
    """Breaks if numbers, or labels that stand together, are taken for probabilities of classes."""
    with pytest.raises(ValueError, match=message):
        step.make_objective(small(preset), output)
    assert step.make_objective(small(preset)).num_updates == 4


def test_cortx_has_an_encoder_that_learns():
    """Breaks if a frozen backbone leaves CoRTX its head alone."""
    with pytest.raises(ValueError, match="backbone_scale is 0, and CoRTX's contrast has nothing"):
        step.make_objective(small("cortx", **{"optimizer.backbone_scale": 0.0}))


def test_rivals_that_need_a_network_refuse_black_boxes(tmp_path):
    """Breaks if L2X or CoRTX learns from a black box what it cannot, or fails deep inside."""
    f = host.host(lambda x: np.ones((len(x), 2)) / 2, labels=["a", "b"], input=(32, 32, 3))
    for preset in ("l2x", "cortx"):
        with pytest.raises(ValueError, match=f"is a black box, and the method '{preset}' needs"):
            train(small(preset), tmp_path, f)
