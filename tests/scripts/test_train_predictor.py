"""The script that trains image classifiers, shrunk: digit scenes, a tiny ViT, a directory."""

import os
import pathlib
import re
import subprocess
import sys

import pytest

from fex_jax import pretrained

ROOT = pathlib.Path(__file__).resolve().parents[2]


def run(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [
            sys.executable, str(ROOT / "scripts/train_predictor.py"),
            f"--config={ROOT}/configs/digit_scenes.py", "--eval_images=40", "--batch_size=16",
            *arguments,
        ],
        capture_output=True, text=True, env=os.environ | {"JAX_PLATFORMS": "cpu"},
    )  # fmt: skip


@pytest.mark.parametrize(
    "arguments",
    [
        ["--width=32", "--layers=1", "--optimizer=muon"],
        [f"--backbone={ROOT}/models/digits_vit", f"--teacher={ROOT}/models/digits_vit"],
    ],
    ids=["from scratch, by Muon", "a surrogate"],
)
def test_a_classifier_is_trained_and_saved(tmp_path, arguments):
    """Breaks if the script, its saved directory, or a teacher's answers stop working."""
    result = run(*arguments, "--steps=3", f"--output={tmp_path}/model")
    assert result.returncode == 0, result.stderr[-2000:]
    assert re.search(r"accuracy [\d.]+, with half of the features removed [\d.]+", result.stdout)
    assert pretrained.load(str(tmp_path / "model")).labels == tuple("0123456789")


def test_a_mistake_ends_in_a_sentence(tmp_path):
    """Breaks if a wrong path is answered by a traceback."""
    result = run(f"--backbone={tmp_path}/none", f"--output={tmp_path}/model")
    assert result.returncode == 1 and "Traceback" not in result.stderr
    assert "error: " in result.stderr and "none" in result.stderr
