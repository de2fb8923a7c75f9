"""The folder of a job: what it is a job of, and its parts, each written whole or not at all.

A part is a Parquet file of a process's next rows. It is on disk before it gets its name, so what
has a name is finished. Files that begin with an underscore are no data to Parquet's readers.
"""

import json
import os
import pathlib
import time
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from fex_jax import checks

JOB = "_job.json"
_BYTES = 2**25  # of rows that are held in memory before they are written


def open_folder(
    path: str | os.PathLike, settings: Mapping[str, Any], first: Mapping[str, Any]
) -> tuple[pathlib.Path, dict[str, Any]]:
    """The folder of a new job, or of one with the same settings; and the job's settings.

    Args:
      path: of the folder; it is made if it is not there.
      settings: that may not change.
      first: settings of a new job, that stay what they were.

    Raises:
      ValueError: it has a job with other settings or files of something else, or cannot be
        written to.
    """
    folder = checks.folder(path, "output")
    file = folder / JOB
    if not file.exists():
        if any(folder.glob("*.parquet")):
            raise ValueError(f"{folder} has Parquet files of something else: choose another folder")
        part = folder / f"{JOB}.{os.getpid()}"
        try:
            with checks.room(folder):
                part.write_text(json.dumps({**settings, **first}, indent=2) + "\n")
                os.link(part, file)  # the first of several processes makes it
        except FileExistsError:
            pass
        finally:
            part.unlink(missing_ok=True)
    old = checks.read_json(file)
    new = json.loads(json.dumps({**first, **settings}))
    changed = [n for n in new if n not in first and old.get(n) != new[n] or n not in old]
    if changed:
        raise ValueError(
            f"{folder} has a job with another {' and '.join(changed)} (see {JOB} there): go on "
            "with that, or choose another folder"
        )
    return folder, old


def ids(folder: pathlib.Path, prefix: str) -> Iterator[str]:
    """Of the rows in the parts that begin with `prefix`; of an item with several maps, again.

    Raises:
      ValueError: a part is damaged.
    """
    for path in sorted(folder.glob(f"{prefix}*.parquet")):
        try:
            column = pq.read_table(path, columns=["id"])["id"]
        except (OSError, pa.ArrowException) as error:
            raise ValueError(
                f"{path} cannot be read ({error}): delete it, and its items are explained again"
            ) from error
        yield from column.to_pylist()


def write(folder: pathlib.Path, name: str, table: pa.Table) -> None:
    """Writes one part, so that after a crash at any moment it is there whole or not at all."""
    part = folder / f"_{name}.tmp"
    with checks.room(folder):
        with open(part, "wb") as file:
            pq.write_table(table, file, compression="zstd")
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, folder / name)
        directory = os.open(folder, os.O_RDONLY)  # the name is its folder's to keep
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


class Writer:
    """Collects rows and writes a part of them from time to time.

    Args:
      folder: see `open_folder`.
      prefix: of the names of parts, this process's own.
      seconds: after so long a part is written.
    """

    def __init__(self, folder: pathlib.Path, prefix: str, seconds: float) -> None:
        self.folder, self.prefix, self.seconds = folder, prefix, seconds
        for left in folder.glob(f"_{prefix}*"):  # by a kill
            left.unlink()
        numbers = [int(p.stem.rpartition("-")[2]) for p in folder.glob(f"{prefix}*.parquet")]
        self._next = max(numbers, default=-1) + 1
        self._tables: list[pa.Table] = []
        self._since = time.monotonic()

    def add(self, table: pa.Table) -> None:
        """Takes rows; they are on disk after `flush`, or when enough have come."""
        self._tables.append(table)
        held = sum(table.nbytes for table in self._tables)
        if held > _BYTES or time.monotonic() - self._since > self.seconds:
            self.flush()

    def flush(self) -> None:
        """Writes what has come since the last part.

        Raises:
          OSError: the disk is full.
        """
        if self._tables:
            name = f"{self.prefix}{self._next:06}.parquet"
            write(self.folder, name, pa.concat_tables(self._tables))
            self._next += 1
            self._tables = []
        self._since = time.monotonic()
