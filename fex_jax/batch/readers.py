"""What reads files that hold several items: tables, tars and TFRecord files."""

import csv
import io
import json
import os
import pathlib
import re
import tarfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from fex_jax import escape, modalities
from fex_jax.data.folders import is_hidden

# What readers raise of such a file.
DAMAGED = (OSError, EOFError, zlib.error, tarfile.TarError, csv.Error)
MOST = 2**28  # bytes of one item, that all are read into memory
_ROWS = 64  # of a Parquet file that are read at a time


class Part(NamedTuple):
    """An item of a table or an archive."""

    place: str  # behind the file's name
    thing: Any
    within: float  # the share of the file that is read
    key: Any = None  # of the column of ids, if one is named


class NoColumn(ValueError):
    """A table has not the columns that are to be read."""


class Columns(NamedTuple):
    """Which columns of tables are read."""

    modality: str
    item: str | None  # None: see `modalities`
    key: str | None  # of ids; None: they are numbers of rows

    def find(self, rows: Iterable[Sequence[str]], path: str) -> str | None:
        """The column of the items, in the first of some rows that has it; without any rows None.

        Raises:
          NoColumn: no row has it, or that of ids.
        """
        wanted = modalities.named(self.modality).COLUMNS if self.item is None else (self.item,)
        problem = None
        for there in rows:
            found = next((name for name in wanted if name in there), None)
            if found is not None and (self.key is None or self.key in there):
                return found
            missing = " or ".join(wanted) if found is None else self.key
            shown = ", ".join(map(str, list(there)[:20])) or "none"
            problem = problem or NoColumn(
                f"{escape.terminal(path)} has no column {missing}; it has "
                f"{escape.terminal(shown)}: name the one to read by column, that of ids by key"
            )
        if problem:
            raise problem
        return None


def reader_of(name: str) -> Callable[[str, Columns], Iterator[Part]] | None:
    """What reads a file of several items; None: it is one item."""
    lower = name.lower()
    found = next((reader for ending, reader in _READERS.items() if lower.endswith(ending)), None)
    if found is None and re.search(r"\.tfrecords?(-|$)|-\d{5}-of-\d{5}$", lower):
        return _tfrecord
    return found


def _csv(path: str, columns: Columns) -> Iterator[Part]:
    """Rows of a .csv file, or of a .tsv file without quoting; numbers count rows, from 1 on."""
    tabs = path.lower().endswith(".tsv")
    style: dict[str, Any] = {"delimiter": "\t", "quoting": csv.QUOTE_NONE} if tabs else {}
    csv.field_size_limit(MOST)
    size = max(os.path.getsize(path), 1)
    # What is no UTF-8 stays as half surrogates, which name their cell below.
    utf8: dict[str, Any] = {"encoding": "utf-8", "errors": "surrogateescape", "newline": ""}
    with open(path, "rb") as file, io.TextIOWrapper(file, **utf8) as lines:
        rows = csv.reader(lines, strict=True, **style)
        header = [name.removeprefix("\ufeff") for name in next(rows, [])]
        if not header:
            return
        wanted = columns.find([header], path)
        number = 0
        while True:
            try:
                row: Any = next(rows)
                if row and len(row) != len(header):
                    row = ValueError(f"the row has {len(row)} cells, the first line {len(header)}")
            except StopIteration:
                return
            except csv.Error as error:
                row = ValueError(str(error))
            if row == []:  # an empty line
                continue
            number, within = number + 1, file.tell() / size
            if isinstance(row, ValueError):
                yield Part(f":{number}", row, within)
                continue
            cells = dict(zip(header, row, strict=True))
            thing = cell(cells[wanted], columns.modality, path)
            yield Part(f":{number}", thing, within, cells[columns.key] if columns.key else None)


def _jsonl(path: str, columns: Columns) -> Iterator[Part]:
    """Objects of a file of JSON lines; numbers count lines, from 1 on."""
    wanted = columns.find(
        (list(x.thing) for x in _objects(path) if isinstance(x.thing, dict)), path
    )
    for part in _objects(path):
        if isinstance(row := part.thing, dict):
            thing = cell(row.get(wanted), columns.modality, path)
            part = part._replace(thing=thing, key=row.get(columns.key))
        yield part


def _objects(path: str) -> Iterator[Part]:
    """What the lines of a file hold: dicts, or errors."""
    size = max(os.path.getsize(path), 1)
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise ValueError("it is no object")
            except (ValueError, RecursionError) as error:
                row = ValueError(f"the line is no JSON object: {error}")
            yield Part(f":{number}", row, file.tell() / size)


def _parquet(path: str, columns: Columns) -> Iterator[Part]:
    """Rows of a Parquet file; numbers from 1 on."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path, buffer_size=2**20) as file:
            wanted = columns.find([file.schema_arrow.names], path)
            read, number = [wanted, *filter(None, [columns.key])], 0
            for batch in file.iter_batches(_ROWS, columns=read):
                keys = batch[columns.key].to_pylist() if columns.key else [None] * len(batch)
                for value, key in zip(batch[wanted], keys, strict=True):
                    number += 1
                    thing = cell(value.as_py(), columns.modality, path)
                    yield Part(f":{number}", thing, number / file.metadata.num_rows, key)
    except pa.ArrowException as error:
        raise OSError(str(error)) from error


def tar_members(path: str, columns: Columns) -> Iterator[Part]:
    """The pictures or .txt files of a tar, as WebDataset writes them, by their names.

    What is hidden is passed over, as in folders.
    """
    size, suffixes = max(os.path.getsize(path), 1), modalities.named(columns.modality).SUFFIXES
    with open(path, "rb") as file, tarfile.open(fileobj=file) as tar:
        while (member := tar.next()) is not None:
            tar.members = []  # type: ignore[attr-defined]  # else they pile up
            suffix = os.path.splitext(member.name)[1].lower()
            places = pathlib.PurePosixPath(member.name).parts
            hidden = any(is_hidden(place) for place in places if place != "..")
            if hidden or not member.isfile() or suffix not in suffixes:
                continue
            thing: Any = ValueError(f"it has {member.size:,} bytes; at most {MOST:,} are read")
            if member.size <= MOST:
                thing = tar.extractfile(member).read()
            yield Part(f"/{member.name}", thing, file.tell() / size)
        tar.fileobj.seek(tar.offset)  # a damaged header looks like the end
        if tar.fileobj.read(tarfile.BLOCKSIZE).strip(b"\0"):
            raise tarfile.ReadError("a header is damaged")


def _tfrecord(path: str, columns: Columns) -> Iterator[Part]:
    """tf.train.Examples of a TFRecord file; numbers from 1 on."""
    named = (x.thing for x in _examples(path) if not isinstance(x.thing, ValueError))
    wanted = columns.find(map(sorted, named), path)
    for part in _examples(path):
        if not isinstance(part.thing, ValueError):
            thing = cell(_value(part.thing, wanted), columns.modality, path)
            key = _value(part.thing, columns.key)
            key = os.fsdecode(key) if isinstance(key, bytes) else key
            part = part._replace(thing=thing, key=key)
        yield part


def _examples(path: str) -> Iterator[Part]:
    """The fields of the Examples of a file, by name; or errors."""
    try:
        import tensorflow as tf
    except ModuleNotFoundError:
        raise ValueError(
            f"{escape.terminal(path)} is a TFRecord file, which TensorFlow reads: "
            "pip install 'fex-jax[train]'"
        ) from None
    size, position = max(os.path.getsize(path), 1), 0
    records = tf.data.TFRecordDataset(path).as_numpy_iterator()
    number = 0
    while True:
        number += 1
        try:
            record = next(records)
        except StopIteration:
            return
        except tf.errors.OpError as error:
            raise OSError(error.message.split("\n")[0]) from error
        position += len(record) + 16  # its length and two checksums
        try:
            fields: Any = tf.train.Example.FromString(record).features.feature
        except Exception as error:  # protobuf's, of a class that differs between versions
            fields = ValueError(f"no tf.train.Example: {error}")
        yield Part(f":{number}", fields, position / size)


def _value(fields: Any, name: str | None) -> bytes | int | float | None:
    """A field's only value."""
    if name is None or name not in fields:
        return None
    kind = fields[name].WhichOneof("kind")
    values: Sequence[Any] = getattr(fields[name], kind).value if kind else ()
    return values[0] if len(values) == 1 else None


def cell(value: Any, modality: str, path: str) -> Any:
    """The thing in a cell: a picture's content or path, or a text."""
    module = modalities.named(modality)
    if isinstance(value, dict) and module.BY_PATH:  # as Hugging Face's datasets have it
        value = value.get("bytes") or value.get("path")
    if value is None or value == "":
        return ValueError("there is none")
    if isinstance(value, str) and re.search("[\ud800-\udfff]", value):
        return ValueError("it is not UTF-8")
    if isinstance(value, str) and module.BY_PATH:
        return pathlib.Path(os.path.dirname(path), value)
    if isinstance(value, bytes | str):
        return value
    return ValueError(f"it is of type {type(value).__name__}; expected {module.CELL}")


_READERS: dict[str, Callable[[str, Columns], Iterator[Part]]] = {
    ".csv": _csv,
    ".tsv": _csv,
    ".jsonl": _jsonl,
    ".ndjson": _jsonl,
    ".parquet": _parquet,
    ".tar": tar_members,
    ".tar.gz": tar_members,
    ".tgz": tar_members,
}
