"""What a job explains, item by item: files of a folder or a pattern, and what such files hold.

Nothing but the names of files is held in memory. An item has an id that is the same at every
reading: the name of its file below the folder, with the row or the member behind it.
"""

import dataclasses
import glob
import hashlib
import logging
import os
import pathlib
import re
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from fex_jax import escape, modalities
from fex_jax.batch.readers import DAMAGED, Columns, NoColumn, reader_of, tar_members
from fex_jax.data.folders import walk

_log = logging.getLogger(__name__)


class Item(NamedTuple):
    """One thing to explain."""

    id: str
    thing: Any  # a file's path or its content, or a text; a ValueError says why it is none of them
    share: float  # of the input, that is read when this item is


@dataclasses.dataclass(frozen=True)
class Input:
    """Files to read, and how.

    Attributes:
      root: the folder that names are relative to.
      names: of the files, sorted.
      columns: of tables.
    """

    root: str
    names: tuple[str, ...]
    columns: Columns

    @property
    def loose(self) -> bool:
        """Whether every file is one item."""
        return not any(map(reader_of, self.names))

    def items(self, mine: Callable[[str], bool] = lambda name: True) -> Iterator[Item]:
        """All items of the files that are `mine`.

        A damaged file gives what can be read of it, and then an item of its own that says so; and
        so does a table without the columns, if another one has them.

        Raises:
          ValueError: no table has the columns.
        """
        names = [name for name in self.names if mine(name)]
        seen: set[bytes] = set()
        without: list[Item] = []  # tables, until one has the columns
        found = False
        for number, name in enumerate(names):
            path, reader = os.path.join(self.root, name), reader_of(name)
            if reader is None:
                yield Item(_shown(name), pathlib.Path(path), (number + 1) / len(names))
                continue
            named = self.columns.key is not None or reader is tar_members  # and so perhaps twice
            if self.columns.key is None:
                seen.clear()
            try:
                for index, part in enumerate(reader(path, self.columns), 1):
                    share = (number + part.within) / len(names)
                    item = Item(_shown(name + part.place), part.thing, share)
                    yield from without
                    without, found = [], True
                    yield self._known(item, part.key, f"{name}:{index}", seen) if named else item
            except NoColumn as error:
                item = Item(_shown(name), error, (number + 1) / len(names))
                if found:
                    yield item
                else:
                    without.append(item)
            except DAMAGED as error:
                reason = ValueError(f"the file cannot be read to its end: {_brief(error)}")
                yield Item(_shown(name), reason, (number + 1) / len(names))
        if without:
            raise without[0].thing

    def _known(self, item: Item, key: Any, place: str, seen: set[bytes]) -> Item:
        """An item under its key; of two with the same id, the second is an error at its place."""
        if self.columns.key is not None:
            if key is None or key == "":
                broken = isinstance(item.thing, ValueError)
                return item if broken else item._replace(thing=ValueError("it has no id"))
            item = item._replace(id=_shown(str(key)))
        digest = hashlib.blake2b(item.id.encode(), digest_size=16).digest()
        if digest in seen:
            twice = ValueError(f"an item before it has its id, {item.id}")
            return item._replace(id=_shown(place), thing=twice)
        seen.add(digest)
        return item


def open_input(
    path: str | os.PathLike, modality: str, column: str | None = None, key: str | None = None
) -> Input:
    """The files that a path names.

    Args:
      path: a folder, a file, or a pattern as *.jpg or **/*.tar. Of a folder all pictures or .txt
        files at any depth count, or if there are none all tables and archives.
      modality: images or texts.
      column: of tables, what holds the items: a file's content, its path beside the table, or a
        text; None: image, image/encoded, jpg, png or path, and of texts text, sentence, review,
        content or document.
      key: of tables, what holds their ids; None: ids are the file's name and the number of the row.

    Raises:
      ValueError: nothing is there to explain, or a file is of no known kind.
    """
    given = os.path.expanduser(os.fspath(path))
    suffixes = modalities.named(modality).SUFFIXES
    wanted = (
        f"{', '.join(sorted(suffixes))}, or .csv, .tsv, .jsonl, .ndjson, .parquet, .tar, .tar.gz, "
        ".tfrecord"
    )
    if os.path.isdir(given):
        root, names = given, _of_folder(given, suffixes, wanted)
    elif os.path.isfile(given):
        root, names = os.path.split(given)[0], [os.path.basename(given)]
    else:
        root = os.path.dirname(re.split(r"[*?[]", given, maxsplit=1)[0])
        found = glob.glob(given, recursive=True)
        names = sorted(os.path.relpath(f, root or ".") for f in found if os.path.isfile(f))
        if not names:
            raise ValueError(f"there is no file {escape.terminal(given)}, and none of this pattern")
    for name in names:
        if not reader_of(name) and not _is_loose(name, suffixes):
            raise ValueError(
                f"{escape.terminal(name)} is of no kind that is read; expected {wanted}"
            )
    return Input(root, tuple(names), Columns(modality, column, key))


def _of_folder(folder: str, suffixes: frozenset[str], wanted: str) -> list[str]:
    names = sorted(os.path.relpath(f, folder) for f in walk(pathlib.Path(folder), Counter()))
    loose = [name for name in names if _is_loose(name, suffixes)]
    chosen = loose or [name for name in names if reader_of(name)]
    if not chosen:
        raise ValueError(f"{escape.terminal(folder)} has nothing to explain; expected {wanted}")
    if len(chosen) < len(names):
        _log.warning("%s: skipped %d files of other kinds", folder, len(names) - len(chosen))
    return chosen


def _is_loose(name: str, suffixes: frozenset[str]) -> bool:
    return os.path.splitext(name)[1].lower() in suffixes


def _shown(name: str) -> str:
    """A name as UTF-8 has it: what it has not is written as \\udcNN."""
    return name.encode("utf-8", "backslashreplace").decode()


def _brief(error: BaseException) -> str:
    return escape.terminal(" ".join(str(error).split())[:200]) or type(error).__name__
