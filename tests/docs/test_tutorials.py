"""The Python of the tutorials and of the notebook, run as it is printed."""

import inspect
import json
import os
import pathlib
import re

import numpy as np
import pytest

import fex_jax
from fex_jax import explain, metrics, settings

ROOT = pathlib.Path(__file__).resolve().parents[2]
FULL = bool(os.environ.get("FEX_FULL_SIZE"))
# A block, and the comment before one that takes minutes.
_BLOCK = re.compile(r"(<!-- slow -->\n)?```python\n(.*?)```", re.S)


def blocks(page: pathlib.Path, slow: bool) -> list[str]:
    """The Python blocks of a page, in their order, with those that take minutes or without."""
    return [code for minutes, code in _BLOCK.findall(page.read_text()) if slow or not minutes]


@pytest.mark.parametrize("name", ["picture", "text", "callable"])
def test_a_tutorial_runs_as_printed(name, tmp_path, monkeypatch, capsys):
    """Breaks if what a newcomer copies first does not run; training only with FEX_FULL_SIZE=1."""
    for folder in ("docs", "models"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    monkeypatch.chdir(tmp_path)  # pages write into the current folder
    code = "\n".join(blocks(ROOT / "docs" / "tutorials" / f"{name}.md", slow=FULL))
    exec(code, {"__name__": name})
    expected = {"picture": "['6', '8']", "text": "This film is", "callable": "(3, "}[name]
    assert expected in capsys.readouterr().out


def test_serving_runs_as_printed(tmp_path, monkeypatch):
    """Breaks if an exported file, the server or a shared folder is not used as the page says."""
    for package in ("onnx", "onnxruntime", "starlette", "uvicorn"):
        pytest.importorskip(package)
    for folder in ("docs", "models"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # of the server
    given: dict = {"__name__": "serving"}
    try:
        for code in blocks(ROOT / "docs" / "serving.md", slow=True):
            exec(code, given)
    finally:
        if "server" in given:
            with given["server"] as server:
                server.kill()
    assert np.shape(given["explanation"]["classes"][0]["attributions"]) == (8, 8)
    assert given["attributions"].shape == (1, 8, 8) and (tmp_path / "shared").is_dir()


def test_the_five_lines_run_as_printed(monkeypatch, capsys):
    """Breaks if what README.md shows first does not run."""
    monkeypatch.chdir(ROOT)
    exec(blocks(ROOT / "README.md", slow=True)[0], {})
    assert re.findall(r"^\d$", capsys.readouterr().out, re.M) == ["6", "8"]


def test_quantus_judges_an_explainer_as_printed(monkeypatch):
    """Breaks if the recipe hands Quantus maps, classes or answers of another form."""
    pytest.importorskip("quantus")
    pytest.importorskip("torch")
    monkeypatch.chdir(ROOT)
    page = (ROOT / "docs" / "attributions.md").read_text()
    (code,) = [code for _, code in _BLOCK.findall(page) if "quantus" in code]
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


def trained(*args, **options) -> explain.Explainer:
    """What `fit` would be called with, checked; and an explainer that is there, in no time."""
    given = inspect.signature(fex_jax.fit).bind(*args, **options).arguments
    settings.default().update_from_flattened_dict(given["settings"])
    return explain.load("models/digits_fex")


def test_the_notebook_runs_as_printed(tmp_path, monkeypatch, capsys):
    """Breaks if a cell does not run, or hands the next one something else.

    On few pictures; training, only with FEX_FULL_SIZE=1, on all.
    """
    (tmp_path / "models").symlink_to(ROOT / "models")
    monkeypatch.chdir(tmp_path)
    cells = json.loads((ROOT / "docs" / "tutorial.ipynb").read_text())["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    code[-1] = f"table = {code[-1]}"
    if not FULL:
        code = [re.sub(r"\b(PICTURES|TEST) = \d+", r"\1 = 4", cell) for cell in code]
        code = [cell.replace("fex_jax.fit(", "trained(") for cell in code]
    given = {"__name__": "notebook", "trained": trained}
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
