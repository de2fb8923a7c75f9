"""`fex_jax.fit` as a notebook calls it."""

import subprocess
import sys

import jax
import numpy as np
import pytest

import fex_jax
from fex_jax.training import fit as fitting
from tests import tiny_text

PICTURES = np.random.default_rng(0).integers(0, 256, (20, 32, 32, 3), np.uint8)
TEXTS = [f"a {x} film , {y} plot" for x in ("good", "bad", "dull") for y in ("fun", "awful")] * 4


def test_pictures_to_an_explainer(predictor_directory, tmp_path, capsys, monkeypatch):
    """Breaks if one call does not train, compare, clean up, and return what explains."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    explainer = fex_jax.fit(predictor_directory, PICTURES, epochs=1, seed=3)
    said = capsys.readouterr().out
    assert "20 images: 15 to train on, 5 held out" in said
    assert "1 epochs in 1 batches of 12, 12 updates, on 1 cpu" in said
    assert "12 updates are too few to learn anything" in said
    assert "On 5 held-out items" in said
    for name in ("Random", "Occlusion"):
        assert f" {name} in positive AUC and" in said
    assert "workdir= names a folder" in said
    assert not list(tmp_path.glob("fex-*"))
    assert explainer(PICTURES[:2]).attributions.shape == (2, 4, 4)
    assert explainer.map_head == "wide" and explainer.budget == -3


def test_as_many_batches_are_trained_as_were_announced(predictor_directory, tmp_path, capsys):
    """Breaks if items that training holds out to measure itself are announced as trained on."""
    pictures = np.random.default_rng(1).integers(0, 256, (160, 32, 32, 3), np.uint8)
    fex_jax.fit(predictor_directory, pictures, workdir=tmp_path, epochs=1, batch_size=16)
    said = capsys.readouterr().out
    assert "160 images: 143 to train on, 17 held out" in said
    assert "1 epochs in 8 batches of 16" in said and "steps 0 to 8 of 16" in said


def test_texts_to_an_explainer_that_continues(tmp_path, capsys):
    """Breaks if texts cannot be fitted, or the same call does not continue where it ended."""
    predictor, workdir = tiny_text.checkpoint(), tmp_path / "run"
    options = {"workdir": workdir, "epochs": 1, "batch_size": 8, "preset": "fastshap"}
    explainer = fex_jax.fit(predictor, TEXTS, **options)
    assert explainer.method == "fastshap"
    assert len(explainer(TEXTS[:1])[0].scores) == 6
    assert f"fex_jax.load({str(workdir)!r}) opens it" in capsys.readouterr().out
    fex_jax.fit(predictor, TEXTS, **options)
    assert "steps 2 to 2 of 8" in capsys.readouterr().out
    with pytest.raises(ValueError, match="other settings of data.digest"):
        fex_jax.fit(predictor, TEXTS[:-1], **options)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"settings": {"optimiser.rate": 1}}, "settings: there is no 'optimiser.rate'; near are"),
        ({"settings": {"epoch": 1}}, "settings: there is no 'epoch'; near are epochs"),
        (
            {"settings": {"optimizer.rate": 1}},
            "no 'optimizer.rate'; near are optimizer.learning_ra",
        ),
        ({"settings": {"batch_size": "many"}}, "settings: batch_size='many' cannot be set"),
        ({"preset": "better"}, "preset 'better' is unknown; choose one of contrast"),
        ({"batch_size": 64}, "15 items are left to train on, fewer than a batch of 64"),
        ({"batch_size": 6}, "batch_size=6 must be a multiple of"),
        ({"limit": 0}, "limit is 0; expected an integer from 1"),
        ({"limit": 1.5}, "limit is 1.5; expected an integer"),
        ({"epochs": 0}, "epochs is 0; expected a number from"),
        ({"epochs": float("nan")}, "epochs is nan; expected a number"),
        ({"batch_size": 0}, "batch_size is 0; expected an integer from 1"),
        ({"batch_size": "8"}, "batch_size is '8'; expected an integer"),
        ({"seed": None}, "seed is None; expected an integer"),
        ({"seed": -1}, "seed is -1; expected an integer from 0"),
        ({"settings": {"optimizer.learning_rate": float("nan")}}, "learning_rate is nan; expected"),
        (
            {"settings": {"checkpoint.every": 0}},
            "checkpoint.every is 0; expected an integer",
        ),
        ({"settings": {"dtype": "float3"}}, "dtype is 'float3'; expected one of 'float32'"),
        ({"settings": {"data.limit": -1}}, "data.limit is -1; expected an integer from 0"),
        ({"settings": {"objective.num_passes": 0}}, "num_passes=0"),
        ({"settings": {1: 2}}, "settings: there is no 1; near are none"),
        ({"settings": 5}, "settings is 5; expected an object"),
        ({"column": "text"}, "column is 'text', but the data is no table"),
        ({"data": ""}, "the data is ''; expected the path"),
        ({"data": {}}, "the data is a dict of nothing"),
        ({"data": np.ma.masked_equal(PICTURES, PICTURES[0, 0, 0, 0])}, "array with masked values"),
        ({"workdir": ""}, "workdir is ''; expected the path of a folder"),
        ({"workdir": "/dev/null/run"}, "/dev/null/run is no folder to write to: "),
        ({"workdir": "a\0b"}, "no folder to write to: embedded null byte"),
    ],
)
def test_what_cannot_be_used_is_said(predictor, options, message):
    """Breaks if a wrong option ends in a traceback from inside, or only after minutes."""
    with pytest.raises(ValueError, match=message):
        fex_jax.fit(predictor, **{"data": PICTURES} | options)


def test_64_bits_change_nothing(predictor, monkeypatch):
    """Breaks if jax_enable_x64 trains, refines or scores otherwise, by a draw or by rounding."""
    monkeypatch.setattr(fitting, "compare", lambda *_: "")  # the table below is one, too

    def all_of_it():
        explainer = fex_jax.fit(predictor, PICTURES, epochs=1, batch_size=8)
        table = fex_jax.evaluate([explainer, "rise"], explainer, PICTURES, limit=8)
        maps = [explainer(PICTURES, refine=count).logits for count in (0, 8)]
        return maps, [scores.targets for runs in table.results.values() for scores, _ in runs]

    expected = all_of_it()
    with jax.enable_x64(True):
        found = all_of_it()
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_no_predictor_is_said():
    """Breaks if anything else than a classifier gets as far as training."""
    with pytest.raises(ValueError, match="the predictor is of type function; expected a directory"):
        fex_jax.fit(lambda x: x, PICTURES)


@pytest.mark.parametrize(
    "gain, verdict",
    [
        ([0.2, 0.3, 0.25], "beats"),
        ([-0.2, -0.3, -0.2], "is behind"),
        ([0.9, -0.8], "is level with"),
    ],
)
def test_verdicts_need_two_standard_errors(gain, verdict):
    """Breaks if noise is called a win. By hand: ±2 s / √n around the mean."""
    assert fitting._verdict(np.array(gain)) == verdict


def test_the_package_is_imported_in_a_second():
    """Breaks if `import fex_jax` imports JAX or TensorFlow, or `fit` is not there."""
    script = (
        "import sys, fex_jax; assert 'fit' in fex_jax.__all__; "
        "assert not {'jax', 'tensorflow', 'orbax'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
