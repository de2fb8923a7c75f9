"""What is kept of a black box, and who may answer for it."""

import json

import numpy as np
import pytest

from fex_jax import host
from fex_jax.host import black_box


def half(batch: np.ndarray) -> np.ndarray:
    return np.full((len(batch), 2), 0.5)


F = host(half, labels=("a", "b"), input=(16, 16, 3))


@pytest.mark.parametrize("other", [3, half, "half"])
def test_who_cannot_answer_is_named(other):
    """Breaks if a function in the place of a host predictor ends in an attribute's error."""
    with pytest.raises(ValueError, match=f"predictor is of type {type(other).__name__}; expected"):
        black_box.of(F).asking(other)


def test_a_black_box_without_classes_is_refused(tmp_path):
    """Breaks if a damaged file's empty list of labels ends in a network of no outputs."""
    black_box.of(F).save(tmp_path)
    assert black_box.read(tmp_path).labels == ("a", "b")
    file = tmp_path / "black_box.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"labels": []}))
    with pytest.raises(ValueError, match="labels is .*; expected a list of 1 or more, each a str"):
        black_box.read(tmp_path)


def test_a_box_is_read_by_the_name_of_its_modality(tmp_path):
    """Breaks if a box that names none is lost, or a stranger's name is imported."""
    wanted = black_box.of(host(half, labels=("a", "b"), input=(9,)))
    assert (wanted.modality, black_box.of(F).modality) == ("tables", "images")
    black_box.of(F).save(tmp_path)
    file = tmp_path / "black_box.json"
    written = json.loads(file.read_text())
    assert written.pop("modality") == "images"
    file.write_text(json.dumps(written))
    assert black_box.read(tmp_path).identity == black_box.of(F).identity
    file.write_text(json.dumps(written | {"modality": "os"}))
    with pytest.raises(ValueError, match="modality is 'os'; expected one of 'arrays', 'images'"):
        black_box.read(tmp_path)
