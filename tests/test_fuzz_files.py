"""Files of strangers: an explainer that is changed or damaged opens, or a sentence says why not."""

import json
import pathlib
import shutil
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fex_jax import explain, export
from fex_jax.models.policy import functional_policy
from tests import tiny_text
from tests.conftest import random_params
from tests.fuzzing import NASTY, SEEDS, bounded, fuzz, outcome

__all__ = ["bounded"]  # a fixture of every test here


@pytest.fixture(scope="module")
def exports(predictor, tmp_path_factory) -> dict[str, pathlib.Path]:
    """A tiny export of images and one of texts."""
    found = {}
    for kind, checkpoint in (("images", predictor), ("texts", tiny_text.checkpoint())):
        found[kind] = tmp_path_factory.mktemp(kind) / "export"
        init, _ = functional_policy(checkpoint.config, checkpoint.config.num_classes)
        export.save_description(found[kind], checkpoint, checkpoint.config, budget=-3.0)
        export.save_weights(found[kind], random_params(init))
    return found


def places(values: dict, path: tuple = ()) -> list[tuple]:
    """The paths of all fields of nested objects."""
    found = []
    for name, value in values.items():
        found.append((*path, name))
        if isinstance(value, dict):
            found += places(value, (*path, name))
    return found


def changed(source: pathlib.Path, place: int, value: Any, how: str) -> str:
    """A JSON file with one field replaced, taken away or added."""
    values = json.loads(source.read_text())
    *path, name = (found := places(values))[place % len(found)]
    parent = values
    for step in path:
        parent = parent[step]
    if how == "delete":
        del parent[name]
    else:
        parent[name + "_" if how == "add" else name] = value
    return json.dumps(values)


FILES = [
    ("images", "explainer.json"), ("images", "explainer.json"), ("texts", "explainer.json"),
    ("images", "predictor/config.json"), ("texts", "predictor/config.json"),
    ("images", "predictor/preprocessor_config.json"),
    ("texts", "predictor/tokenizer_config.json"),
]  # fmt: skip
BINARY = [
    ("images", "explainer.safetensors"), ("images", "predictor/model.safetensors"),
    ("texts", "predictor/tokenizer.json"), ("images", "explainer.json"),
]  # fmt: skip


def opened(exports: dict, tmp: pathlib.Path, kind: str, name: str, content: bytes) -> None:
    """Opens an export of which one file has another content; it opens, or says why not."""
    directory = tmp / "changed" / kind
    if not directory.exists():
        shutil.copytree(exports[kind], directory)
    try:
        (directory / name).write_bytes(content)
        found = outcome(lambda: explain.load(directory))
    finally:
        shutil.copy(exports[kind] / name, directory / name)
    if found is not None:
        assert found.method in ("fex", "fastshap") and type(found.contrastive) is bool
        assert found.budget is None or np.isfinite(found.budget)
        assert found.grid if kind == "images" else found.unit
        assert found.backbone == found.predictor.config and found.backbone.num_layers == 1


@fuzz(40)
@given(
    st.sampled_from(FILES),
    SEEDS,
    st.sampled_from(NASTY),
    st.sampled_from(["", "", "", "delete", "add"]),
)
def test_fields_of_files(exports, tmp_path_factory, file, place, value, how):
    """Breaks if a field of another type or size is built from, hangs, or ends in a KeyError."""
    content = changed(exports[file[0]] / file[1], place, value, how).encode()
    opened(exports, tmp_path_factory.getbasetemp(), *file, content)


@fuzz(40)
@given(
    st.sampled_from(BINARY),
    st.lists(st.tuples(st.integers(0, 30) | st.integers(0, 3000), st.integers(0, 255)), max_size=3),
    st.sampled_from([1.0, 1.0, 0.999, 0.5, 0.01, 0.0]),
)
def test_bytes_of_files(exports, tmp_path_factory, file, flips, stop):
    """Breaks if a damaged file ends in another library, or opens with numbers that are none."""
    damaged = bytearray((exports[file[0]] / file[1]).read_bytes())
    for position, value in flips:
        damaged[position % len(damaged)] = value
    damaged = bytes(damaged[: round(stop * len(damaged))])
    opened(exports, tmp_path_factory.getbasetemp(), *file, damaged)
