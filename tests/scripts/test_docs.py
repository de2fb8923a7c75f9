"""Generated parts of documents, on a small folder of documents."""

import json
import pathlib

import pytest

from scripts import docs

RESULTS = {
    "command": "python benchmarks/tables.py --name=toy",
    "note": "Mean ± half of an interval.",
    "facts": {"Data": "toy, 4 images"},
    "methods": {
        "fex": {"positive_auc": {"mean": 0.067, "low": 0.06, "high": 0.08}},
        "lime": {"positive_auc": {"mean": 0.5, "low": 0.4, "high": 0.6}},
    },
    "efficiency": {"fex": {"predictions": 1.08, "seconds_per_1000": 1, "peak_bytes": 2**20}},
}
PAGE = """# Toy

<!-- table: toy rows=lime,fex columns=price,positive_auc -->
<!-- end -->
"""


@pytest.fixture
def root(tmp_path: pathlib.Path) -> pathlib.Path:
    (tmp_path / "docs" / "results").mkdir(parents=True)
    (tmp_path / "docs" / "results" / "toy.json").write_text(json.dumps(RESULTS))
    (tmp_path / "README.md").write_text(PAGE)
    return tmp_path


def run(root: pathlib.Path, *flags: str) -> int:
    return docs.main([f"--root={root}", *flags])


def test_parts_are_filled_and_then_pass_the_check(root, capsys):
    """Breaks if rows or columns are other than asked for, or filling twice changes anything."""
    assert run(root, "--check") == 1
    assert "README.md: differs from docs/results" in capsys.readouterr().err
    assert (root / "README.md").read_text() == PAGE  # a check writes nothing
    assert run(root) == 0 and run(root, "--check") == 0
    lines = (root / "README.md").read_text().splitlines()
    assert lines[4] == "| Method | Price | Positive AUC ↓ |"
    assert lines[6] == "| LIME | – | 0.500 ± 0.100 |"
    assert lines[7] == "| FEX | 1.08× | **0.067 ± 0.010** |"


def test_a_number_changed_by_hand_fails_the_check(root, capsys):
    """Breaks if a table can be edited without its results."""
    run(root)
    page = root / "README.md"
    page.write_text(page.read_text().replace("0.067", "0.057"))
    assert run(root, "--check") == 1
    assert "README.md: differs" in capsys.readouterr().err


def test_replaced_rows_reach_the_pages(root):
    """Breaks if replacing a row of a results file and filling is not all there is to do."""
    (root / "docs" / "toy.md").write_text("# Toy\n\n<!-- results: toy -->\n<!-- end -->\n")
    made = {"date": "2026-11-29", "versions": "jax 0.10.2", "command": "again --merge"}
    changed = json.loads(json.dumps(RESULTS)) | {"made": {"lime": made}}
    changed["methods"]["lime"]["positive_auc"]["mean"] = 0.25
    (root / "docs" / "results" / "toy.json").write_text(json.dumps(changed))
    assert run(root) == 0
    page = (root / "docs" / "toy.md").read_text()
    assert "| lime | 0.250 ± 0.100 |" in page and "- Data: toy, 4 images" in page
    assert "`lime`: made anew on 2026-11-29 with jax 0.10.2 by `again --merge`." in page
    assert "| LIME | – | 0.250 ± 0.100 |" in (root / "README.md").read_text()


@pytest.mark.parametrize("number", ["FEX has .067", "0.946", "97.4 %", "91 %", "1.08×", "5 ± 2"])
def test_numbers_of_results_stand_in_generated_parts_alone(number):
    """Breaks if a result can be typed into a sentence; code, links and versions are no results."""
    assert [line for line, _ in docs.stray_numbers(f"# Page\n\nHere {number}.\n")] == [3]
    harmless = (
        f"`{number}`\n\n    {number}\n\n```\n{number}\n```\n\n<!-- table: x -->\n{number}\n"
        "<!-- end -->\n\nPython 3.11, jax 0.10.2, α = 0.5, 8×8 patches, 95 % bootstrap interval, "
        "[a link](pages/1.25.md)\n"
    )
    assert docs.stray_numbers(harmless) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<!-- table: other -->\n<!-- end -->", "there is no other.json"),
        ("<!-- table: toy rows=rise -->\n<!-- end -->", "no row 'rise'"),
        ("<!-- table: toy columns=map -->\n<!-- end -->", "no column 'map'"),
        ("<!-- results: toy rows=fex -->\n<!-- end -->", "unknown option 'rows'"),
        ("<!-- rows: toy -->\n<!-- end -->", "rows"),
        ("[gone](docs/gone.md#part)", "docs/gone.md does not exist"),
    ],
)
def test_faults_are_named_with_their_file(root, capsys, text, message):
    """Breaks if a misspelt part stays as it was in silence."""
    (root / "README.md").write_text(text)
    assert run(root, "--check") == 1
    fault = capsys.readouterr().err
    assert fault.startswith("README.md: ") and message in fault


def test_the_notebook_may_hold_numbers(root):
    """Breaks if the dated notebook has to be generated, too."""
    run(root)
    (root / "docs" / "notebook.md").write_text("2026-11-28: .067 positive AUC.\n")
    assert run(root, "--check") == 0


def test_documents_are_true_to_their_results():
    """Breaks if a page of this project was edited by hand, or its results without `make docs`."""
    assert docs.main(["--check"]) == 0
