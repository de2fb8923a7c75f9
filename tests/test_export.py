"""Exports of strangers: what is refused before anything is built."""

import json
import os
import pathlib
import shutil
import struct
from typing import Any

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from fex_jax import escape, explain, export, pretrained

SHIPPED = pathlib.Path("models/digits_fex")
DELETED = object()


@pytest.fixture
def directory(tmp_path) -> pathlib.Path:
    """A copy of `models/digits_fex` to damage."""
    return shutil.copytree(SHIPPED, tmp_path / "digits_fex")


@pytest.mark.parametrize(
    "field, value, message",
    [
        ("backbone.num_layers", 10**5, "num_layers is 100000; expected an integer from 1 to 256"),
        ("backbone.num_layers", 5, "holds 4 blocks, expected 5"),
        ("backbone.num_layers", True, "num_layers is True"),
        ("backbone.num_layers", 4.0, "num_layers is 4.0"),
        ("backbone.hidden_size", 128, "hidden_size of its policy is 128 and of its predictor 64"),
        ("backbone.hidden_size", 63, "does not divide into 2 heads"),
        ("backbone.num_heads", 4, "num_heads of its policy is 4 and of its predictor 2"),
        ("backbone.image_size", 80_000, "image_size is 80000"),
        ("backbone.num_classes", 9, "num_classes of its policy is 9 and of its predictor 10"),
        ("backbone.layer_norm_eps", 0.5, "layer_norm_eps of its policy is 0.5"),
        ("backbone.swiglu", 1, "swiglu is 1; expected true or false"),
        ("backbone.family", ["vit"], "family is .* expected a string"),
        ("backbone.more\x1b", 1, r"'more\\x1b' is unknown"),
        ("backbone.mlp_dim", DELETED, "mlp_dim is missing"),
        ("backbone", [], r"backbone is \[\]; expected an object"),
        ("method", "FEX", "method is 'FEX'; expected one of 'fex', 'fastshap'"),
        ("method", DELETED, "method is missing"),
        ("budget", float("nan"), "NaN is no number"),
        ("budget", "3", "budget is '3'"),
        ("budget", True, "budget is True"),
        ("budget", 3.0, "budget is 3.0; expected a number from -1000 to 0"),
        ("contrastive", 1, "contrastive is 1; expected true or false"),
        ("map_head", "wide", r"map_in/kernel is \[64, 64\], expected \[320, 64\]"),
        ("map_head", "all", "map_head is 'all'"),
        ("critic", False, "6 extra: heads/value_"),
        ("critic", 1, "critic is 1; expected true or false"),
        ("fill", None, "fill is None; expected a number"),
        ("unit", "char", "unit is 'char'"),
        ("removal", "blur", "removal is 'blur'"),
        ("policy", "unet", "'family' is unknown"),
        ("policy", {}, "policy is {}"),
        ("format", 4.0, "has format 4.0; this version reads 4"),
        ("more", 1, "'more' is unknown"),
    ],
)
def test_a_field_that_does_not_fit_is_named(directory, field, value, message):
    """Breaks if a field is built from unchecked: it hangs, takes memory, or gives another map."""
    path = directory / "explainer.json"
    values = json.loads(path.read_text())
    *parents, name = field.split(".")
    parent = values[parents[0]] if parents else values
    if value is DELETED:
        del parent[name]
    else:
        parent[name] = value
    path.write_text(json.dumps(values))
    with pytest.raises(ValueError, match=message):
        explain.load(directory)


def test_an_export_that_names_no_critic_has_one(directory):
    """Breaks if explainers from before the field do not open, or keep what explains nothing."""
    assert "critic" not in json.loads((directory / "explainer.json").read_text())
    assert "heads/value_in/kernel" in load_file(directory / "explainer.safetensors")
    opened = explain.load(directory)
    assert {name.partition("_")[0] for name in opened.params["heads"]} == {"map"}
    export.save_description(directory / "new", opened.predictor, opened.backbone)
    export.save_weights(directory / "new", opened.params)
    again = explain.load(directory / "new").params
    jax.tree.map(np.testing.assert_array_equal, again, opened.params)


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "cannot be read as JSON"),
        (b"[1]", "JSON list; expected an object"),
        (b"\xff\xfe{}", "cannot be read as JSON"),
        (b'{"a": "' + b"x" * 2**20 + b'"}', "more than 1,048,576"),
        (b"[" * 100_000, "cannot be read as JSON"),
        (b'{"format": 1' + b"0" * 5000 + b"}", "cannot be read as JSON"),
    ],
    ids=["empty", "list", "bytes", "huge", "deep", "digits"],
)
def test_what_is_no_description_is_named(directory, content, message):
    """Breaks if a file of another kind ends in json's own error."""
    (directory / "explainer.json").write_bytes(content)
    with pytest.raises(ValueError, match=f"explainer.json.*{message}"):
        explain.load(directory)


@pytest.mark.parametrize(
    "damage",
    [
        lambda x: b"",
        lambda x: x[:100],
        lambda x: x[: len(x) // 2],
        lambda x: struct.pack("<Q", 2**60) + x[8:],
        lambda x: b"\x89PNG\r\n\x1a\n" + bytes(100),
        lambda x: x.replace(b'"F32"', b'"I32"', 1),
        lambda x: x[:-4] + np.float32("nan").tobytes(),
    ],
    ids=["empty", "header", "half", "oversized", "foreign", "integers", "nan"],
)
def test_damaged_weights_are_named(directory, damage):
    """Breaks if weights that are not whole, no floats or not finite are explained with."""
    path = directory / "explainer.safetensors"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=r"explainer\.safetensors.*(whole|expected F32|NaN)"):
        explain.load(directory)


@pytest.mark.parametrize("name", ["explainer.json", "explainer.safetensors", "predictor"])
def test_links_do_not_lead_out(directory, tmp_path, name):
    """Breaks if a stranger's folder reads files elsewhere; in the hub's cache files are links."""
    (tmp_path / "elsewhere").mkdir()
    shutil.move(directory / name, tmp_path / "elsewhere" / name)
    (directory / name).symlink_to(tmp_path / "elsewhere" / name)
    with pytest.raises(ValueError, match=f"{name} links to .*, outside"):
        explain.load(directory)


@pytest.mark.parametrize("name", ["explainer.json", "explainer.safetensors"])
@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to(path.name)])
def test_pipes_and_links_to_themselves_are_no_files(directory, name, make):
    """Breaks if opening a stranger's folder waits at a pipe for ever, or ends in pathlib."""
    (directory / name).unlink()
    make(directory / name)
    assert "neither a file nor a folder" in (message := refused(directory)) or "holds no" in message


@pytest.mark.parametrize("path", [None, 3, b"models", "x" * 5000, "a\0b", "\x1b[2J"])
def test_what_is_no_path_is_named(path):
    """Breaks if such a path ends in pathlib, steers a terminal, or is asked of the hub."""
    for message in (refused(path), hub_refuses(path)):
        assert "is no path" in message or "holds no explainer" in message or "neither" in message
        assert escape.terminal(message) == message


def hub_refuses(path: Any) -> str:
    with pytest.raises((FileNotFoundError, ValueError)) as caught:
        pretrained.load(path)
    return str(caught.value)


def test_a_step_is_written_in_digits(directory):
    """Breaks if a name that only looks like a number ends in `int`."""
    assert "holds no explainer" in refused(directory / "checkpoints" / "²")


def test_the_hubs_cache_is_read(directory, tmp_path):
    """Breaks if an explainer that huggingface_hub downloaded is taken for a stranger's links."""
    snapshot, blobs = tmp_path / "hub" / "snapshots" / "abc", tmp_path / "hub" / "blobs"
    blobs.mkdir(parents=True)
    for number, path in enumerate(sorted(p for p in directory.rglob("*") if p.is_file())):
        link = snapshot / path.relative_to(directory)
        link.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(path, blobs / str(number))
        link.symlink_to(os.path.relpath(blobs / str(number), link.parent))
    assert explain.load(snapshot).grid == (8, 8)


def refused(path: Any) -> str:
    with pytest.raises((FileNotFoundError, ValueError)) as caught:
        explain.load(path)
    return str(caught.value)


def test_a_local_path_never_becomes_a_download(directory, monkeypatch):
    """Breaks if a folder without a predictor asks the hub for one named as the folder is."""
    shutil.rmtree(directory / "predictor")
    monkeypatch.chdir(directory.parent)
    assert "digits_fex holds no predictor" in refused("digits_fex")
    assert "holds no explainer" in refused("google/vit-base-patch16-224")


def test_a_folder_without_weights_is_left_as_it_is(directory):
    """Breaks if opening a run without checkpoints writes into it, or ends in Orbax."""
    (directory / "explainer.safetensors").unlink()
    run = directory.rename(directory.parent / "export").parent
    before = sorted(run.rglob("*"))
    assert "holds no weights: neither explainer.safetensors nor" in refused(run)
    assert sorted(run.rglob("*")) == before
    (run / "checkpoints" / "7" / "params").mkdir(parents=True)
    (run / "checkpoints" / "7" / "params" / "_METADATA").write_text("{")
    for path in (run, run / "checkpoints" / "7", run / "checkpoints" / "9"):
        assert f"{run / 'checkpoints'} holds no checkpoint of this network: " in refused(path)
