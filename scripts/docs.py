"""Fills the generated parts of README.md and docs/ from docs/results/*.json, or checks them.

    python scripts/docs.py            # make docs
    python scripts/docs.py --check    # make docs-check

A generated part stands between two comments, the first of which says what belongs there:

    <!-- results: digit_scenes -->                                  a page's command and tables
    <!-- table: digit_scenes rows=fex,lime columns=price,map -->    some of a table
    <!-- rows: full_size -->                                        a file that holds "rows"
    <!-- end -->

The check fails where filling would change a file, where a number of results (.067, 97.4 %, 1.08×,
± 3) stands outside these parts and outside code, and where a link leads to no file.
docs/notebook.md, the dated lab notebook, may hold numbers of its own.
"""

import argparse
import json
import pathlib
import re
import sys
from collections.abc import Mapping, Sequence

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from fex_jax import report  # noqa: E402

NOTEBOOK = pathlib.Path("docs/notebook.md")
_PICTURES = ("curves", "maps", "top_words", "seeds")
_NAMES = {
    "fex": "FEX",
    "fastshap": "FastSHAP",
    "l2x": "L2X",
    "cortx": "CoRTX",
    "random": "Random",
    "occlusion": "Occlusion",
    "rise": "RISE",
    "smooth_rise": "RISE, smooth masks",
    "lime": "LIME",
    "kernel_shap": "KernelSHAP",
    "gradient_x_input": "Gradient × input",
    "integrated_gradients": "Integrated Gradients",
    "grad_shap": "GradSHAP",
    "smooth_grad": "SmoothGrad",
    "agi": "AGI",
    "deeplift": "DeepLIFT",
    "empirical": "Empirical attribution",
    "gradcam_attention": "GradCAM, attention",
    "gradcam_norm1": "GradCAM",
    "gradcam_features": "GradCAM, feature map",
    "rollout": "Attention rollout",
    "attcat": "AttCAT",
    "attlrp": "AttLRP",
}
# Groups: indent, "kind: name options", the part, the end.
_PART = re.compile(
    r"(<!-- (results|table|rows): ([\w-]+)((?: \w+=\S+)*) -->\n)(.*?)(<!-- end -->)", re.S
)
_NUMBER = re.compile(
    r"(?<![\w.,])\d*\.\d{2,}(?![\w]|\.\d)"  # .067, 3.14; no version 0.10.2
    r"|\d+(?:\.\d+)?\s?%"
    r"|\d+\.\d+\s?×"
    r"|±\s?\d"
)
# No results: Python's version, an interval's level, a paper's number on arXiv.
_ALLOWED = re.compile(r"Python 3\.\d+|95 % (?:bootstrap )?interval|arXiv[: ]\d{4}\.\d{5}")
_CODE = re.compile(r"^```.*?^```|^(?: {4}|\t).*?$|`[^`\n]+`|<!--.*?-->|\]\([^)]*\)", re.S | re.M)
_LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)\s]*)?\)")


def fill(text: str, results: pathlib.Path) -> str:
    """The text with its generated parts made anew from the files of `results`.

    Raises:
      ValueError: a part asks for a file, a row, a column or an option that does not exist.
    """
    return _PART.sub(
        lambda part: f"{part[1]}\n{_content(part[2], part[3], part[4], results)}\n\n{part[6]}",
        text,
    )


def _content(kind: str, name: str, options: str, results: pathlib.Path) -> str:
    path = results / f"{name}.json"
    if not path.is_file():
        raise ValueError(f"<!-- {kind}: {name} -->: there is no {path.name} in {results}")
    found = json.loads(path.read_text())
    chosen = {key: value.split(",") for key, value in (o.split("=") for o in options.split())}
    if unknown := set(chosen) - ({"rows", "columns"} if kind == "table" else set()):
        raise ValueError(f"<!-- {kind}: {name} -->: unknown option {unknown.pop()!r}")
    try:
        if kind == "rows":
            return "\n".join(_rows(found if isinstance(found, list) else found["rows"]))
        if kind == "table":
            lines = report.table(found, chosen.get("rows", ()), chosen.get("columns", ()), label)
            return "\n".join(lines)
        return _page(found, name, results)
    except (KeyError, ValueError) as error:
        raise ValueError(f"<!-- {kind}: {name} -->: {error}") from error


def _page(found: Mapping, name: str, results: pathlib.Path) -> str:
    """A page's command, what its numbers are, which rows are newer, tables, pictures."""
    blocks = ["Made by", f"    {found['command']}", found["note"]]
    for made, methods in _newer(found).items():
        blocks.append(f"{', '.join(f'`{m}`' for m in methods)}: made anew {made}.")
    blocks.append(report.markdown(found, found["facts"]).strip())
    if "choices" in found:
        blocks.append("\n".join(f"- {key}: `{text}`" for key, text in found["choices"].items()))
    pictures = [kind for kind in _PICTURES if (results / f"{name}_{kind}.png").is_file()]
    blocks += [f"![{kind}]({name}_{kind}.png)" for kind in pictures]
    return "\n\n".join(blocks)


def _newer(found: Mapping) -> dict[str, list[str]]:
    """When and how → the methods whose rows were merged into the file later."""
    newer: dict[str, list[str]] = {}
    for method, made in found.get("made", {}).items():
        how = f"on {made['date']} with {made['versions']} by `{made['command']}`"
        newer.setdefault(how, []).append(method)
    return newer


def _rows(rows: Mapping[str, Mapping] | Sequence[Mapping]) -> list[str]:
    """A table of rows by their names, or of rows whose first column names them."""
    first = "" if isinstance(rows, Mapping) else next(iter(rows[0]))
    named = rows.items() if isinstance(rows, Mapping) else [(row[first], row) for row in rows]
    columns = [c for c in dict.fromkeys(c for _, row in named for c in row) if c != first]
    cells = [(name, [_cell(row.get(c, "")) for c in columns]) for name, row in named]
    return report.rows_table(first, columns, cells)


def _cell(value: float | str) -> str:
    if isinstance(value, str | int):
        return str(value)
    if value and abs(value) < 1e-3:
        return f"{value:.1e}"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def label(method: str) -> str:
    """A method's name for people; "fex+100" is FEX refined by 100 queries."""
    name, _, queries = method.partition("+")
    shown = _NAMES.get(name, name)
    return f"{shown}, refined by {queries} queries" if queries else shown


def stray_numbers(text: str) -> list[tuple[int, str]]:
    """Numbers of results outside generated parts, code and links, with their lines."""

    def blank(match: re.Match) -> str:  # keeps the lines' numbers
        return re.sub(r"[^\n]", " ", match[0])

    for pattern in (_PART, _CODE, _ALLOWED):
        text = pattern.sub(blank, text)
    return [
        (number, found[0].strip())
        for number, line in enumerate(text.split("\n"), 1)
        for found in _NUMBER.finditer(line)
    ]


def dead_links(path: pathlib.Path) -> list[str]:
    """Relative links of a page that lead to no file."""
    links = _LINK.findall(path.read_text())
    return [link for link in links if ":" not in link and not (path.parent / link).exists()]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing, fail on any fault")
    parser.add_argument("--root", type=pathlib.Path, default=ROOT, help="folder of README.md")
    given = parser.parse_args(arguments)
    faults = []
    for path in [given.root / "README.md", *sorted((given.root / "docs").rglob("*.md"))]:
        name, text = path.relative_to(given.root), path.read_text()
        try:
            filled = fill(text, given.root / "docs" / "results")
        except ValueError as error:
            faults.append(f"{name}: {error}")
            continue
        if filled != text and given.check:
            faults.append(f"{name}: differs from docs/results/*.json; run make docs")
        elif filled != text:
            path.write_text(filled)
            print(f"wrote {name}")
        if given.check:
            faults += [f"{name}: {link} does not exist" for link in dead_links(path)]
            if name != NOTEBOOK:
                faults += [
                    f"{name}:{line}: {number} stands outside a generated part"
                    for line, number in stray_numbers(text)
                ]
    print("\n".join(faults), file=sys.stderr, end="\n" if faults else "")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
