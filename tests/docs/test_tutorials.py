"""The Python of the tutorials, run as it is printed."""

import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
# A block, and the comment before one that takes minutes.
_BLOCK = re.compile(r"(<!-- slow -->\n)?```python\n(.*?)```", re.S)


def blocks(page: pathlib.Path, slow: bool) -> list[str]:
    """The Python blocks of a page, in their order, with those that take minutes or without."""
    return [code for minutes, code in _BLOCK.findall(page.read_text()) if slow or not minutes]


@pytest.mark.parametrize("name", ["picture", "text", "callable"])
def test_a_tutorial_runs_as_printed(name, tmp_path, monkeypatch, capsys):
    """Breaks if what a newcomer copies first does not run; training is left to its own tests."""
    for folder in ("docs", "models"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    monkeypatch.chdir(tmp_path)  # pages write into the current folder
    code = "\n".join(blocks(ROOT / "docs" / "tutorials" / f"{name}.md", slow=False))
    exec(code, {"__name__": name})
    expected = {"picture": "['6', '8']", "text": "This film is", "callable": "(3, "}[name]
    assert expected in capsys.readouterr().out
