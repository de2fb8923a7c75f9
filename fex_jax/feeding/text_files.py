"""Texts in files, for all that read them: folders, tables and lines, with labels if there are any.

Jobs (`fex_jax.batch`) stream larger files, and look for the same columns.
"""

import collections
import csv
import io
import json
import os
import pathlib
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from fex_jax.feeding.given import Named, choose, walk
from fex_jax.modalities.texts import COLUMNS
from fex_jax.windows import Pair

# Columns of pairs.
PAIRS = ("premise", "hypothesis"), ("sentence1", "sentence2"), ("text", "text_pair")
_HALF = re.compile("[\ud800-\udfff]")


class Row(NamedTuple):
    """A text, and what stands beside it."""

    place: str  # begins a sentence
    text: str | Pair
    label: str | None  # a class's name or number


def read(path: str | os.PathLike, column: Named, skipped: collections.Counter) -> list[Row]:
    """The texts of a file or a folder, in its order, without blank ones; what is none is counted.

    Of a file see `rows`. Of a folder each .txt file is a text, labelled if all lie in class
    folders; without them, or with `column`, the rows of its tables are texts.

    Raises:
      ValueError: names the file and line that cannot be used, and why.
    """
    root = pathlib.Path(path).expanduser()
    if not root.is_dir():
        if not root.exists():
            raise ValueError(
                f"there is no file or folder {root}; a text of your own goes in a list"
            )
        return rows(root, column, skipped)
    files = walk(root, {".txt", *_TABLES}, "texts", skipped)
    loose = [] if column else [file for file in files if file.suffix.lower() == ".txt"]
    chosen = loose or [file for file in files if file.suffix.lower() != ".txt"]
    skipped.update(file.suffix.lower() for file in files if file not in set(chosen))
    if not loose:
        return [row for file in chosen for row in rows(file, column, skipped)]
    classes = all(file.parent != root for file in loose)
    found = (
        Row(str(f), content(f), f.relative_to(root).parts[0] if classes else None) for f in loose
    )
    return _cleaned(found, skipped)


def rows(path: pathlib.Path, column: Named, skipped: collections.Counter) -> list[Row]:
    """The texts of a file.

    A .csv, .tsv, .jsonl, .ndjson or .parquet file has a column of texts, or two of pairs: `column`,
    or see `choose`. Its column `label`, where it has one, holds class numbers or names. Of a .txt
    file each line is a text.

    Raises:
      ValueError: names the line that cannot be used, and why.
    """
    suffix = path.suffix.lower()
    if suffix in _TABLES:
        return _cleaned(_table(path, column), skipped)
    if suffix != ".txt":
        raise ValueError(
            f"{path} is no file of texts: expected {', '.join(_TABLES)} or .txt (a text a line), "
            "or a folder of them"
        )
    if column:
        raise ValueError(f"column is {column!r}, but {path} is no table: leave it out")
    lines = content(path).removesuffix("\n").split("\n")  # a text may hold other separators
    found = (Row(f"{path}, line {i},", line, None) for i, line in enumerate(lines, 1))
    return _cleaned(found, skipped)


def checked(text: Any, place: str, skipped: collections.Counter) -> str | Pair | None:
    """The text or pair of texts; None, and counted, where there is none.

    Raises:
      ValueError: something else.
    """
    is_pair = isinstance(text, list | tuple) and len(text) == 2
    parts = tuple(text) if is_pair else (text,)
    if any(map(_is_blank, parts)):
        skipped["without text"] += 1
        return None
    if not all(isinstance(part, str) for part in parts):
        raise ValueError(
            f"{place} is of type {type(text).__name__}; expected a string, or a pair of them"
        )
    if any(map(_HALF.search, parts)):
        skipped["with half a surrogate, which UTF-8 has not"] += 1
        return None
    return (parts[0], parts[1]) if is_pair else text


def content(path: str | os.PathLike) -> str:
    """A file of UTF-8, or a ValueError."""
    path = pathlib.Path(path)
    if not path.exists():
        beside = sorted(f.name for f in path.parent.glob(f"*{path.suffix}"))
        beside[5:] = ["…"] if len(beside) > 5 else []
        found = f"; its folder holds {', '.join(beside)}" if beside else ""
        raise ValueError(f"there is no file {path}{found}")
    if not path.is_file():  # of a pipe or a device, reading might not end
        raise ValueError(f"{path} is no file to read")
    data = path.read_bytes()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"{path}, line {line}, is not UTF-8 (byte 0x{data[error.start]:02x}). Convert the "
            f"file: iconv -f LATIN1 -t UTF-8, or whatever encoding it has"
        ) from None


def json_lines(path: pathlib.Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(place, object) of each line."""
    for number, line in enumerate(content(path).split("\n"), 1):
        if not line.strip():
            continue
        place = f"{path}, line {number},"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{place} is not JSON: {error}") from None
        if not isinstance(row, dict):
            raise ValueError(f"{place} is no JSON object")
        yield place, row


def _cleaned(rows: Iterable[Row], skipped: collections.Counter) -> list[Row]:
    texts = ((row, checked(row.text, row.place, skipped)) for row in rows)
    return [row._replace(text=text) for row, text in texts if text is not None]


def _table(path: pathlib.Path, column: Named) -> list[Row]:
    places, names, cells = _TABLES[path.suffix.lower()](path)
    chosen = choose(names, column, COLUMNS, PAIRS, str(path))
    parts = [chosen] if isinstance(chosen, str) else list(chosen)
    texts = [cells(name) for name in parts]
    for name, own in zip(parts, texts, strict=True):
        written = [cell for cell in own if not _is_blank(cell)]
        if written and all(map(_is_number, written)):
            raise ValueError(
                f"{path}: the column {name!r} holds numbers; name that of the texts: column=, or "
                "--config.data.column"
            )
    labelled = "label" in names and "label" not in parts
    labels = cells("label") if labelled else [None] * len(places)
    return [
        Row(place, text, None if _is_blank(label) else str(label).strip())
        for place, text, label in zip(
            places, texts[0] if len(parts) == 1 else zip(*texts, strict=True), labels, strict=True
        )
    ]


def _is_blank(text: Any) -> bool:
    """Whether there is no text; NaN is how pandas has a missing one."""
    return text is None or text != text or (isinstance(text, str) and not text.strip())


def _is_number(cell: Any) -> bool:
    try:
        return float(cell) is not None
    except (TypeError, ValueError):
        return False


# Places, columns, and a column's name → its cells.
_Table = tuple[list[str], list[str], Callable[[str], list[Any]]]


def _separated(path: pathlib.Path) -> _Table:
    """Of .csv, or of .tsv, which has no quoting.

    Raises:
      ValueError: a column that is there twice; a row with more or fewer cells than line 1; a quote
        that does not end, for all that follows would be one text.
    """
    tabs = path.suffix.lower() == ".tsv"
    style: dict[str, Any] = {"delimiter": "\t", "quoting": csv.QUOTE_NONE} if tabs else {}
    csv.field_size_limit(2**31 - 1)
    reader = csv.DictReader(io.StringIO(content(path), newline=""), strict=True, **style)
    places, rows, begin = [], [], 1
    try:
        names = list(reader.fieldnames or ())
        if twice := [name for name in names if name and names.count(name) > 1]:
            raise ValueError(f"{path} has the column {twice[0]!r} twice: rename one")
        for row in reader:
            begin = reader.line_num
            if None in row or None in row.values():
                raise ValueError(
                    f"{path}, line {begin}, has not the {len(names)} columns of line 1; a text "
                    "that holds the separator needs quotes, in .csv only"
                )
            places.append(f"{path}, line {begin},")
            rows.append(row)
    except csv.Error as error:
        raise ValueError(
            f"{path}, after line {begin}, is no CSV: {error}; a quote in a text is written twice"
        ) from None
    return places, names, lambda name: [row[name] for row in rows]


def _json(path: pathlib.Path) -> _Table:
    found = list(json_lines(path))
    names = list(dict.fromkeys(name for _, row in found for name in row))
    return [place for place, _ in found], names, lambda name: [row.get(name) for _, row in found]


def _parquet(path: pathlib.Path) -> _Table:
    try:
        from pyarrow import parquet
    except ModuleNotFoundError:
        raise ValueError(f"{path} needs pyarrow: pip install pyarrow") from None

    def cells(*names: str) -> Any:
        try:
            with parquet.ParquetFile(path) as file:
                return file.read(list(names))[names[0]].to_pylist() if names else file
        except (OSError, ValueError) as error:  # as Arrow's own errors are
            raise ValueError(f"{path} cannot be read as Parquet: {error}") from None

    file = cells()
    count = file.metadata.num_rows
    return [f"{path}, row {i}," for i in range(1, count + 1)], file.schema_arrow.names, cells


_TABLES: dict[str, Callable[[pathlib.Path], _Table]] = {
    ".csv": _separated,
    ".tsv": _separated,
    ".jsonl": _json,
    ".ndjson": _json,
    ".parquet": _parquet,
}
