"""Folders of class folders: which file shows which class, and what is passed over."""

import collections
import logging
import os
import pathlib
from collections.abc import Collection, Iterator

from fex_jax.escape import terminal
from fex_jax.targets import fold

_log = logging.getLogger(__name__)


def class_files(
    directory: str | os.PathLike, suffixes: Collection[str]
) -> dict[str, list[pathlib.Path]]:
    """Class → its files, sorted, of `<directory>/<class>/**`; a warning counts what is skipped.

    Files count whose ending, in any case, is one of `suffixes`. Hidden files and folders and
    __MACOSX are passed over, and so are folders without such a file. Links are followed, but for
    those to a folder that they are in.

    Raises:
      ValueError: no folder, no class, or two folders whose names differ in case or spaces only.
    """
    root = pathlib.Path(directory).expanduser()
    wanted = f"expected {root}/<class>/<file>, with the endings {', '.join(sorted(suffixes))}"
    if not os.fspath(directory) or not root.is_dir():
        raise ValueError(f"{os.fspath(directory)!r} is no folder: {wanted}")
    skipped, found, empty = collections.Counter(), {}, []
    for entry in sorted(root.iterdir()):
        if is_hidden(entry.name):
            skipped["hidden"] += 1
        elif not entry.is_dir():
            skipped["beside the class folders"] += 1
        else:
            files = list(walk(entry, skipped))
            found[entry.name] = sorted(f for f in files if f.suffix.lower() in suffixes)
            others = (f.suffix.lower() for f in files if f.suffix.lower() not in suffixes)
            skipped.update(suffix or "without an ending" for suffix in others)
            if not found[entry.name]:
                empty.append(entry.name)
                del found[entry.name]
    passed = _summary(skipped, empty)
    if not found:
        raise ValueError(f"{root} holds no class folders with files to read: {wanted}{passed}")
    if passed:
        _log.warning("%s: %s", root, passed.removeprefix("; "))
    same = {}
    for name in found:
        other = same.setdefault(fold(name), name)
        if other != name:
            raise ValueError(
                f"{root} has the folders {other!r} and {name!r}, which name one class: merge or "
                "rename them"
            )
    return found


def plain_files(directory: str | os.PathLike, suffixes: Collection[str]) -> list[pathlib.Path]:
    """The files of a folder that has no folders in it, sorted; of another one none."""
    root = pathlib.Path(directory).expanduser()
    if not os.fspath(directory) or not root.is_dir():
        return []
    entries = [entry for entry in root.iterdir() if not is_hidden(entry.name)]
    if any(entry.is_dir() for entry in entries):
        return []
    return sorted(entry for entry in entries if entry.suffix.lower() in suffixes)


def walk(folder: pathlib.Path, skipped: collections.Counter) -> Iterator[pathlib.Path]:
    """All files below a folder that are not hidden."""

    def fail(error: OSError) -> None:
        raise ValueError(f"{error.filename} cannot be listed: {error.strerror}") from error

    for place, folders, files in os.walk(folder, onerror=fail, followlinks=True):
        here = os.path.realpath(place)
        for name in list(folders):
            inside = os.path.realpath(os.path.join(place, name))
            loop = os.path.commonpath([here, inside]) == inside
            if loop or is_hidden(name):
                skipped["links to a folder above" if loop else "hidden"] += 1
                folders.remove(name)
        for name in files:
            if is_hidden(name):
                skipped["hidden"] += 1
            else:
                yield pathlib.Path(place, name)


def is_hidden(name: str) -> bool:
    """Whether files and folders of this name are passed over."""
    return name.startswith(".") or name == "__MACOSX"


def _summary(skipped: collections.Counter, empty: list[str]) -> str:
    """What was passed over, as the end of a sentence."""
    text = ""
    if skipped:
        kinds = ", ".join(f"{count} {kind}" for kind, count in skipped.most_common(10))
        more = ", …" if len(skipped) > 10 else ""
        total = skipped.total()
        text = f"; skipped {total} file{'s' if total > 1 else ''}: {kinds}{more}"
    if empty:
        text += f"; folders without a file to read: {', '.join(empty[:10])}"
        text += f", … ({len(empty)})" if len(empty) > 10 else ""
    return terminal(text)
