"""train.py and eval.py as users run them, on ImageNet's own format."""

import contextlib
import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import jax
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from safetensors.numpy import load_file

from configs import vit_imagenet
from fex_jax import explain, pretrained
from fex_jax.models.policy import make_backbone
from fex_jax.training.explainer import load_queried, train
from tests import commands
from tests.conftest import random_checkpoint


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory) -> pathlib.Path:
    """A TFDS data_dir with a small `imagenet2012`: its name, version, features and splits."""
    directory = tmp_path_factory.mktemp("tfds")
    features = tfds.builder("imagenet2012", data_dir=directory).info.features
    rng = np.random.default_rng(0)

    def examples(count: int) -> tf.data.Dataset:
        return tf.data.Dataset.from_tensor_slices(
            {
                "image": rng.integers(0, 256, (count, 40, 48, 3), np.uint8),
                "label": rng.integers(0, 1000, count),
                "file_name": [f"n0{i}.JPEG" for i in range(count)],
            }
        )

    tfds.dataset_builders.store_as_tfds_dataset(
        name="imagenet2012",
        version="5.1.0",
        features=features,
        split_datasets={"train": examples(200), "validation": examples(20)},
        data_dir=directory,
    )
    return directory


@pytest.fixture(scope="module")
def overrides(imagenet, tmp_path_factory) -> dict:
    """What shrinks configs/vit_imagenet.py."""
    predictor = tmp_path_factory.mktemp("predictor")
    pretrained.save(predictor, random_checkpoint(num_classes=1000))
    return {
        "data.path": str(imagenet),
        "predictor.path": str(predictor),
        "batch_size": 8,
        "epochs": 3.0,
        "log_every": 5,
        "checkpoint.every": 10,
        "eval.num_images": 20,
        "eval.batch_size": 16,
    }


@pytest.fixture(scope="module")
def arguments(overrides):
    """arguments(workdir) → the flags of a run of configs/vit_imagenet.py, shrunk."""

    def flags(workdir: pathlib.Path) -> list[str]:
        return [
            f"--config={commands.ROOT}/configs/vit_imagenet.py",
            f"--workdir={workdir}",
            *(f"--config.{name}={value}" for name, value in overrides.items()),
        ]

    return flags


@contextlib.contextmanager
def terminated(log: pathlib.Path) -> Iterator[None]:
    """This process gets SIGTERM at the log's first line."""

    def watch() -> None:
        while not ended.wait(0.01):
            if log.exists() and log.read_text():
                return os.kill(os.getpid(), signal.SIGTERM)

    ended, thread = threading.Event(), threading.Thread(target=watch)
    before = signal.signal(signal.SIGTERM, lambda *_: None)  # should nobody else catch it
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        signal.signal(signal.SIGTERM, before)


def wait_until(condition, process: subprocess.Popen, seconds: int = 600) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, f"ended early with {process.returncode}"
        assert time.monotonic() < deadline, "took too long"
        time.sleep(0.01)


def test_killed_runs_end_with_the_parameters_of_an_uninterrupted_one(
    arguments, overrides, tmp_path, capsys
):
    """Breaks if resuming loses optimiser state, data position, randomness or a half-written file.

    One run goes through. The other is stopped by SIGTERM at its first log line, continued, killed
    by SIGKILL after a checkpoint, and continued to its end.
    """
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert commands.run("train.py", *arguments(whole)) is None

    log = broken / "metrics.jsonl"
    with terminated(log):
        assert commands.run("train.py", *arguments(broken)) == 128 + signal.SIGTERM
    assert "stopped by SIGTERM" in capsys.readouterr().out
    saved = max(int(path.name) for path in (broken / "checkpoints").glob("[0-9]*"))
    assert 5 <= saved < 70, "the signal came too late to test anything"
    assert explain.load(broken).grid == (4, 4)  # an unfinished run can be opened

    process = subprocess.Popen(
        [sys.executable, commands.ROOT / "train.py", *arguments(broken)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    later = f"{saved // 10 * 10 + 10}"  # the next regular checkpoint
    try:
        wait_until((broken / "checkpoints" / later).exists, process)
    finally:
        process.kill()  # SIGKILL
        process.wait()
    assert not (broken / "export" / "explainer.safetensors").exists()

    assert commands.run("train.py", *arguments(broken)) is None
    assert "steps 0 to" not in capsys.readouterr().out
    a, b = (load_file(path / "export" / "explainer.safetensors") for path in (whole, broken))
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)
    steps = [json.loads(line)["step"] for line in log.read_text().splitlines()]
    assert steps == list(range(5, 80, 5))

    # Other settings are refused, but for those that do not change the experiment.
    config = vit_imagenet.get_config()
    config.update_from_flattened_dict(overrides)
    for setting, value in (("epochs", 4.0), ("map_head", "wide")):  # the latter: another network
        other = config.copy_and_resolve_references()
        other[setting] = value
        with pytest.raises(ValueError, match=f"other settings of {setting}"):
            train(other, broken)

    # The finished run is evaluated, and training it again changes nothing.
    evaluation = [*arguments(broken), "--methods=random,rise", "--write_inputs"]
    assert commands.run("eval.py", *evaluation) is None
    results = json.loads((broken / "eval" / "results.json").read_text())
    assert results["protocol"] == "fex" and results["num_inputs"] == 20
    for method in ("fex", "random"):
        auc = results["methods"][method]["positive_auc"]
        assert 0 <= auc["low"] <= auc["mean"] <= auc["high"] <= 1
    assert (broken / "eval" / "gallery.html").stat().st_size > 10_000
    assert (broken / "eval" / "curves.png").is_file()
    assert "| rise |" in (broken / "eval" / "results.md").read_text()
    # Again with scores from elsewhere: what is finished is not computed again.
    finished = broken / "eval" / "methods" / "rise.npz"
    written = finished.stat().st_mtime_ns
    with np.load(broken / "eval" / "inputs.npz") as inputs:
        brightness = inputs["images"].reshape(20, 4, 8, 4, 8, 3).mean((2, 4, 5))
    np.save(broken / "mine.npy", brightness)
    scores = f"--scores=mine={broken / 'mine.npy'}"
    assert commands.run("eval.py", *evaluation, scores) is None
    again = json.loads((broken / "eval" / "results.json").read_text())
    assert finished.stat().st_mtime_ns == written
    assert list(again["methods"]) == ["fex", "random", "rise", "mine"]
    assert again["methods"]["rise"] == results["methods"]["rise"]
    train(config, broken)
    c = load_file(broken / "export" / "explainer.safetensors")
    np.testing.assert_array_equal(c[name], a[name])


@pytest.mark.parametrize(
    "flag, message",
    [
        ("--config.batch_size=6", "error: batch_size=6 must be a mult"),
        ("--config.predictor.path=runs/misspelt", "error: 'runs/misspelt' is no local directory"),
        ("--config.predictor.path=", "error: no classifier is named: say with --config.predictor."),
        (f"--workdir={__file__}", f"error: workdir: {__file__} is no folder"),
    ],
)
def test_wrong_settings_end_in_one_line(arguments, tmp_path, monkeypatch, flag, message):
    """Breaks if a wrong setting ends in a traceback."""
    monkeypatch.chdir(tmp_path)  # where no runs/ is, which a demo leaves
    end = commands.run("train.py", *arguments(tmp_path), flag)
    assert end.startswith(message) and "\n" not in end


@pytest.mark.parametrize(
    "setting, value, message",
    [
        ("data.path", "nowhere", "TFDS could not prepare 'imagenet2012'"),
        ("objective.form", "reward", "form is 'reward'; expected one of paper"),
        ("policy", "resnet", "policy 'resnet' is not for a vit; choose vit or unet"),
        ("predictor.path", "no/such/model/anywhere", "neither a directory nor a"),
        ("mesh.fsdp", 3, "does not divide"),
    ],
)
def test_wrong_settings_say_what_was_wanted(
    predictor_directory, imagenet, tmp_path, monkeypatch, setting, value, message
):
    """Breaks if a wrong setting is found only after minutes, or deep inside a library."""
    monkeypatch.chdir(tmp_path)  # TFDS makes the folder that it then finds nothing for
    config = vit_imagenet.get_config()
    config.update_from_flattened_dict(
        {"data.path": str(imagenet), "predictor.path": predictor_directory} | {setting: value}
    )
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        train(config, tmp_path)


def test_fastshap_goes_the_same_way(predictor_directory, imagenet, tmp_path, monkeypatch, capsys):
    """Breaks if FastSHAP cannot be trained, exported and opened, here with a narrow U-Net, or a run
    that is too short to learn says nothing of it."""

    def narrow(*which):
        return dataclasses.replace(make_backbone(*which), hidden_size=16, depth=1)

    monkeypatch.setattr("fex_jax.training.opening.make_backbone", narrow)
    config = vit_imagenet.get_config("fastshap")
    config.update_from_flattened_dict(
        {
            "data.path": str(imagenet), "data.limit": 16, "batch_size": 8, "policy": "unet",
            "predictor.path": predictor_directory, "dtype": "float32",
        }
    )  # fmt: skip
    train(config, tmp_path)
    assert "updates are too few to learn anything" in capsys.readouterr().out
    explainer = explain.load(tmp_path)
    assert (explainer.method, explainer.budget, explainer.contrastive) == ("fastshap", None, False)
    log = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert log[-1]["step"] == 2 and np.isfinite(log[-1]["loss"])
    assert explainer(np.zeros((1, 32, 32, 3), np.uint8)).attributions.shape == (1, 4, 4)


def test_a_frozen_backbone_stays_the_predictors(predictor_directory, imagenet, tmp_path):
    """Breaks if backbone_scale=0 moves the backbone, or freezes the heads with it."""
    config = vit_imagenet.get_config("contrast")
    config.update_from_flattened_dict(
        {
            "data.path": str(imagenet), "data.limit": 16, "batch_size": 8, "dtype": "float32",
            "predictor.path": predictor_directory, "optimizer.backbone_scale": 0.0,
        }
    )  # fmt: skip
    train(config, tmp_path)
    explainer = explain.load(tmp_path)
    assert (explainer.budget, explainer.contrastive) == (-3, True)
    assert explainer.map_head == "wide"
    trained = explainer.params
    jax.tree.map(
        np.testing.assert_array_equal,
        trained["backbone"],
        pretrained.load(predictor_directory).params["backbone"],
    )
    for name in ("map_in", "map_mid", "map_out"):
        assert np.any(trained["heads"][name]["bias"]), f"{name} is as it was initialised"


def test_a_surrogate_must_speak_of_the_same_classes(predictor_directory, tmp_path):
    """Breaks if another classifier's answers are taken for the predictor's, class by class."""
    config = vit_imagenet.get_config()
    config.predictor.path = predictor_directory
    own = pretrained.load(predictor_directory)
    assert load_queried(config, own) is own
    pretrained.save(tmp_path / "same", own)
    config.predictor.surrogate = str(tmp_path / "same")
    assert load_queried(config, own).labels == own.labels
    other = dataclasses.replace(own, labels=tuple(f"other {i}" for i in range(10)))
    pretrained.save(tmp_path / "other", other)
    config.predictor.surrogate = str(tmp_path / "other")
    with pytest.raises(ValueError, match="has other labels than the predictor"):
        load_queried(config, own)
