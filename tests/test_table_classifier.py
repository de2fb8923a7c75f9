"""A classifier of tables as training, NumPy and a folder have it."""

import json

import jax
import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file, save_file

from fex_jax import host, table_classifier
from fex_jax.data import tables
from fex_jax.table_classifier import TableClassifier
from tests.conftest import random_like

RNG = np.random.default_rng(0)
FRAME = pd.DataFrame(
    {
        "age": RNG.normal(50, 20, 40),
        "town": pd.Categorical(RNG.choice(["a", "b", "c"], 40)),
        "constant": 1.0,
        "pulse": np.where(np.arange(40) % 5, RNG.normal(size=40), np.nan),
    }
)


def classifier():
    """One of drawn parameters, and what it reads of the rows."""
    source = tables.open_table(FRAME, {"who": ["age", "town"]})
    f = TableClassifier.of(source, ("no", "yes", "perhaps"))
    values = source.columns.encode(FRAME)
    params = random_like(jax.eval_shape(f.init, jax.random.key(0)))
    return f, params, f.steps(f.steps.scaled(values))


def test_what_is_saved_answers_as_what_was_trained(tmp_path):
    """Breaks if NumPy's layers, the encoding or the file differ from what training had, or rows are
    read by the place of their columns."""
    f, params, rows = classifier()
    f.save(tmp_path, params)
    trained = np.asarray(f.model(params).predict(rows))
    opened = host.open("fex_jax.table_classifier:open", path=str(tmp_path))
    assert opened.labels == ("no", "yes", "perhaps") and np.ptp(trained, 0).min() > 0.01
    np.testing.assert_allclose(opened(FRAME), trained, atol=1e-6)
    np.testing.assert_allclose(opened(FRAME.iloc[7:9, ::-1]), trained[7:9], atol=1e-6)
    digest = opened.digest
    f.save(tmp_path, jax.tree.map(lambda x: x + 1, params))
    assert table_classifier.open(path=str(tmp_path)).digest != digest


def test_the_layers_by_hand():
    """Breaks if a layer is left out, or is no ReLU."""
    f, params, rows = classifier()
    x = np.asarray(rows)
    for name in "01":
        x = np.maximum(x @ np.asarray(params[name]["kernel"]) + np.asarray(params[name]["bias"]), 0)
    x = np.exp(x @ np.asarray(params["2"]["kernel"]) + np.asarray(params["2"]["bias"]))
    found = f.model(params).predict(rows)
    np.testing.assert_allclose(found, x / x.sum(-1, keepdims=True), rtol=1e-4)


def test_a_share_of_a_feature_is_kept():
    """Breaks if a feature misses one of its columns, or its rest is not the mean of the rows."""
    f, params, rows = classifier()
    masks = np.tile(np.float32([0.25, 0, 1]), (40, 1))  # who, constant, pulse
    found, mean = np.asarray(f.keep(rows, masks)), rows.mean(0)
    of_pulse = f.steps.columns == 3
    np.testing.assert_allclose(found[:, of_pulse], rows[:, of_pulse], rtol=1e-6)
    expected = 0.25 * rows + 0.75 * mean
    np.testing.assert_allclose(found[:, ~of_pulse], expected[:, ~of_pulse], atol=1e-6)
    blank = f.model(params).blank(rows)
    np.testing.assert_allclose(blank, np.broadcast_to(mean, rows.shape), atol=1e-6)


def test_files_that_do_not_fit_are_named(tmp_path):
    """Breaks if a stranger's folder ends in a traceback, or in answers."""
    with pytest.raises(ValueError, match="holds no classifier of tables: expected config.json"):
        table_classifier.read(tmp_path)
    f, params, _ = classifier()
    f.save(tmp_path, params)
    config, weights = tmp_path / "config.json", tmp_path / "model.safetensors"
    arrays, described = load_file(weights), json.loads(config.read_text())
    for changed, message in (
        ({"owner": arrays["owner"] + 9}, "is of another table than config.json"),
        ({"steps.place": arrays["steps.place"] + 9}, "is of another table than config.json"),
        ({"baseline": arrays["baseline"][1:]}, "is of another table than config.json"),
        ({"baseline": arrays["baseline"] * np.float32("nan")}, "baseline holds NaN"),
        ({"1.kernel": arrays["1.kernel"][1:]}, r"1 misshapen: 1.kernel is \[63, 64\], expected"),
        ({"0.bias": arrays["0.bias"] * np.float32("inf")}, "0.bias holds NaN or infinite"),
    ):
        save_file(arrays | changed, weights)
        with pytest.raises(ValueError, match=message):
            table_classifier.read(tmp_path)
    save_file(arrays, weights)
    for changed, message in (
        ({"format": 2}, "format is 2; expected"),
        ({"model_type": "vit"}, "is of no classifier of tables: expected format, columns, f"),
        ({"columns": described["columns"][1:]}, "is of another table than config.json"),
        ({"features": ["who", "other"]}, "is of another table than config.json"),
        ({"labels": ["no", "yes"]}, r"2 misshapen: 2.bias is \[3\], expected \[2\]; 2.k"),
    ):
        config.write_text(json.dumps(described | changed))
        with pytest.raises(ValueError, match=message):
            table_classifier.read(tmp_path)
