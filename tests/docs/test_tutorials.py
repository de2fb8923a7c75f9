"""The notebook, run as it is printed, and the recipe for Quantus."""

import json
import os
import pathlib
import re

import numpy as np
import pytest

from fex_jax import metrics
from tests.docs.test_blocks import BLOCK

ROOT = pathlib.Path(__file__).resolve().parents[2]
FULL = bool(os.environ.get("FEX_FULL_SIZE"))


def test_quantus_judges_an_explainer_as_printed(monkeypatch):
    """Breaks if the recipe hands Quantus maps, classes or answers of another form."""
    pytest.importorskip("quantus")
    pytest.importorskip("torch")
    monkeypatch.chdir(ROOT)
    page = (ROOT / "docs" / "attributions.md").read_text()
    (code,) = [code for _, code in BLOCK.findall(page) if "quantus" in code]
    *setting, regions, sensitivity, complexity = code.strip().split("\n")
    given: dict = {}
    exec("\n".join(setting), given)
    answers = given["classifier"](given["torch"].tensor(given["images"])).numpy()
    np.testing.assert_allclose(answers.sum(-1), 1, rtol=1e-5)
    assert eval(regions, given)[0][-1] > 0.5  # what removing ten of 64 patches takes from f
    maps = given["explain"](None, given["images"], given["given"]["y_batch"])
    assert maps.shape == (1, 1, 64, 64)
    assert 0 < eval(sensitivity, given)[0] < 1
    expected = metrics.complexity(maps.reshape(1, -1))
    np.testing.assert_allclose(eval(complexity, given), expected, rtol=1e-5)


def test_the_notebook_runs_as_printed(tmp_path, monkeypatch, capsys):
    """Breaks if a cell does not run, or hands the next one something else.

    On few pictures; with FEX_FULL_SIZE=1 on all.
    """
    (tmp_path / "models").symlink_to(ROOT / "models")
    monkeypatch.chdir(tmp_path)
    cells = json.loads((ROOT / "docs" / "tutorial.ipynb").read_text())["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    code[-1] = f"table = {code[-1]}"
    if not FULL:
        code = [re.sub(r"\bTEST = \d+", "TEST = 4", cell) for cell in code]
        code = [re.sub(r"\bPICTURES = \d+", "PICTURES = 24", cell) for cell in code]
        code = [cell.replace("epochs=2,", "epochs=1, batch_size=8,") for cell in code]
    given = {"__name__": "notebook"}
    for cell in code:
        exec(cell, given)
    assert "correlation of the two maps" in capsys.readouterr().out
    assert len(given["test"]) == (32 if FULL else 4)
    assert np.isfinite(given["result"].attributions).all()
    assert set(given["table"].methods) == {"fex", "random", "occlusion"}


def test_every_page_is_in_the_navigation():
    """Breaks if a page is written and nobody can find it; `make site` checks the rest."""
    navigation = (ROOT / "mkdocs.yml").read_text()
    pages = [page.relative_to(ROOT / "docs") for page in (ROOT / "docs").rglob("*.md")]
    assert not [page for page in pages if f": {page.as_posix()}\n" not in navigation]
