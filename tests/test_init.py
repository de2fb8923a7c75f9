"""The package: the lines of its docstring run as printed, and what it says ends no run."""

import inspect
import os
import pathlib
import subprocess
import sys

import numpy as np
from PIL import Image

import fex_jax
from fex_jax import explain, sharing
from fex_jax.models.policy import functional_policy
from tests.conftest import random_checkpoint, random_params


def test_the_lines_of_the_docstring_run_as_printed(tmp_path, monkeypatch):
    """Breaks if what `help(fex_jax)` shows first cannot be called so.

    `fit` takes what is printed and returns an untrained explainer of a tiny ViT: the test of
    README.md trains one of this name.
    """
    monkeypatch.chdir(tmp_path)
    classifier = random_checkpoint(3, 16, 2)
    init, _ = functional_policy(classifier.config, 3)
    made = explain.Explainer(classifier, classifier.config, random_params(init), budget=-3.0)
    sharing.save(made, "runs/mine")
    images = np.random.default_rng(0).integers(0, 256, (16, 16, 16, 3), np.uint8)
    pathlib.Path("folder/of/images").mkdir(parents=True)
    for number, image in enumerate(images):
        Image.fromarray(image).save(f"folder/of/images/{number}.png")
    takes = inspect.signature(fex_jax.fit)

    def fit(*given):
        takes.bind(*given)
        return made

    monkeypatch.setattr(fex_jax, "fit", fit, raising=False)

    given = {"fex_jax": fex_jax, "classifier": classifier, "images": images[:4]}
    lines = fex_jax.__doc__.split("\n\n", 1)[1]
    assert lines.count("fex_jax.") == 5
    exec(compile(lines, "fex_jax/__init__.py", "exec"), given)
    assert given["result"].attributions.shape == (4, 2, 2)
    assert "rise" in str(given["table"]).lower()
    assert list(pathlib.Path("folder/of/parquet").glob("*.parquet"))


def test_a_terminal_without_arrows_ends_no_run():
    """Breaks if a table cannot be printed where output is not UTF-8, as in logs on Windows."""
    printed = subprocess.run(
        [sys.executable, "-c", "import fex_jax; print('AUC \u2193 \xe9')"],
        capture_output=True, env=os.environ | {"PYTHONIOENCODING": "cp1252"},
    )  # fmt: skip
    assert printed.stdout.split() == [b"AUC", b"?", b"\xe9"], printed.stderr
