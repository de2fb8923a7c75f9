"""Finished methods on disk: each under the fingerprint of everything that its numbers depend on."""

import json
import pathlib
import re
import tempfile
import warnings
import zipfile
import zlib
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from fex_jax.evaluation import fingerprint
from fex_jax.evaluation.run import Method, Scores
from fex_jax.evaluation.tasks import Task

Result = tuple[Scores, dict[str, np.ndarray]]  # a method's scores and its statistics
# What a file raises that was cut, flipped, or is something else.
_DAMAGE = (
    OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip
_NAME = re.compile(r"\w[\w.+-]{0,79}")


def common(task: Task, **settings: Any) -> str:
    """What the numbers of all methods on a task depend on.

    That is every field of the task, `settings`, this package's code, and the device that is timed.
    """
    device = f"{jax.local_device_count()} {jax.devices()[0].device_kind}"
    return fingerprint.of(task, settings, device, fingerprint.of_this_package())


def key(common: str, method: Method) -> str | None:
    """What the numbers of one method depend on: on all that, and on its own settings and code.

    None, with a warning, where its code cannot be known.
    """
    try:
        return fingerprint.of(common, method.name, method.settings)
    except TypeError as error:
        warnings.warn(f"{method.name} is not kept for another time: {error}", stacklevel=2)
        return None


def save(path: pathlib.Path, key: str, scores: Scores, found: dict[str, np.ndarray]) -> None:
    """One method's scores and statistics; a file of this name is always whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = {f"statistics/{name}": value for name, value in found.items()}
    if scores.pairs is not None:
        arrays["pairs"] = scores.pairs
    with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".partial", delete=False) as file:
        partial = pathlib.Path(file.name)
        try:
            np.savez_compressed(
                file, key=key, cost=json.dumps(scores.cost), scores=scores.targets, **arrays
            )
        except BaseException:
            partial.unlink()
            raise
    partial.replace(path)


def load(path: pathlib.Path, key: str) -> Result | None:
    """What `save` wrote under the same key, or None; of a damaged file None and a warning."""
    if not path.is_file():
        return None
    try:
        # Opened here, for of a damaged file NumPy leaves its own open.
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            if "key" not in file or str(file["key"]) != key:
                return None
            arrays = {name: file[name] for name in file}
        scores = Scores(arrays["scores"], arrays.get("pairs"), json.loads(str(arrays["cost"])))
    except _DAMAGE as error:
        warnings.warn(f"{path} is damaged ({error}): it is computed again", stacklevel=2)
        return None
    prefix = "statistics/"
    found = {n.removeprefix(prefix): a for n, a in arrays.items() if n.startswith(prefix)}
    return scores, found


def check_names(names: Sequence[str]) -> None:
    """Refuses names of rows that are no file names, and rows of one name.

    Raises:
      ValueError: names the first of them.
    """
    for i, name in enumerate(names):
        if not _NAME.fullmatch(name):
            raise ValueError(
                f"{name!r} cannot name a row: expected letters, digits and _ . + -, beginning with "
                "a letter, a digit or _, 80 at most"
            )
        same = [other for other in names[:i] if other.casefold() == name.casefold()]
        if same:  # for some file systems, even where case differs
            raise ValueError(f"{name!r} and {same[0]!r} would be two rows of one name; rename one")
