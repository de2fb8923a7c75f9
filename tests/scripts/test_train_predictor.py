"""The script that trains image classifiers, shrunk: digit scenes, a tiny ViT, a directory."""

import dataclasses
import re

import pytest

from fex_jax import pretrained
from tests import commands


def run(*arguments: str) -> int | str | None:
    return commands.run(
        "scripts/train_predictor.py",
        f"--config={commands.ROOT}/configs/digit_scenes.py",
        "--eval_images=40",
        "--batch_size=16",
        *arguments,
    )


DIGITS = commands.ROOT / "models/digits_vit"


@pytest.mark.parametrize(
    "arguments",
    [
        ["--width=32", "--layers=1", "--optimizer=muon"],
        [f"--backbone={DIGITS}", f"--teacher={DIGITS}"],
    ],
    ids=["from scratch, by Muon", "a surrogate"],
)
def test_a_classifier_is_trained_and_saved(tmp_path, capsys, arguments):
    """Breaks if the script, its saved directory, or a teacher's answers stop working."""
    assert run(*arguments, "--steps=3", f"--output={tmp_path}/model") is None
    said = capsys.readouterr().out
    assert re.search(r"accuracy [\d.]+, with half of the features removed [\d.]+", said)
    assert pretrained.load(str(tmp_path / "model")).labels == tuple("0123456789")


def test_a_mistake_ends_in_a_sentence(tmp_path):
    """Breaks if a wrong path is answered by a traceback."""
    end = run(f"--backbone={tmp_path}/none", f"--output={tmp_path}/model")
    assert end.startswith("error: ") and "none" in end


def test_a_teacher_of_sigmoids_is_refused(tmp_path):
    """Breaks if probabilities that do not add up to 1 are learned as if they did."""
    teacher = dataclasses.replace(pretrained.load(str(DIGITS)), output="sigmoid")
    pretrained.save(tmp_path / "teacher", teacher)
    end = run(f"--teacher={tmp_path}/teacher", "--steps=3", f"--output={tmp_path}/model")
    assert end == f"error: {tmp_path}/teacher is a sigmoid; a teacher's is a softmax"
