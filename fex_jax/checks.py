"""Checks of files from strangers, made before anything is built from them."""

import json
import math
import os
import pathlib
import re
import reprlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

_MAX_JSON = 2**26  # bytes; the largest tokenizer.json in use has a quarter of that


class Check(NamedTuple):
    """What a field must hold: in words, and as a test."""

    wanted: str
    fits: Callable[[Any], bool]


def integer(low: int, high: int) -> Check:
    """An integer, and no bool, from `low` to `high`."""
    return Check(f"an integer from {low} to {high}", lambda x: type(x) is int and low <= x <= high)


def number(low: float, high: float) -> Check:
    """A finite integer or float, from `low` to `high`."""
    return Check(
        f"a number from {low:g} to {high:g}",
        lambda x: type(x) in (int, float) and math.isfinite(x) and low <= x <= high,
    )


def flag() -> Check:
    """True or false."""
    return Check("true or false", lambda x: type(x) is bool)


def one_of(*values: Any) -> Check:
    """One of a few values."""
    return Check(
        "one of " + ", ".join(map(repr, values)),
        lambda x: any(type(x) is type(value) and x == value for value in values),
    )


def several(check: Check, count: int | None = None) -> Check:
    """A list, of `count` values if that is given, each of which fits `check`."""
    words = "a list" if count is None else f"a list of {count}"
    return Check(
        f"{words}, each {check.wanted}",
        lambda x: (
            isinstance(x, list | tuple)
            and (count is None or len(x) == count)
            and all(map(check.fits, x))
        ),
    )


def text() -> Check:
    """A string."""
    return Check("a string", lambda x: isinstance(x, str))


def mapping() -> Check:
    """An object of JSON."""
    return Check("an object", lambda x: isinstance(x, dict))


def either(*checks: Check) -> Check:
    """What fits one of several checks."""
    return Check(
        ", or ".join(check.wanted for check in checks),
        lambda x: any(check.fits(x) for check in checks),
    )


def require(values: Mapping[str, Any], wanted: Mapping[str, Check], where: Any) -> None:
    """Raises a ValueError at the first of the `wanted` fields that is there and does not fit."""
    for name, check in wanted.items():
        if name in values and not check.fits(values[name]):
            raise ValueError(
                f"{where}: {name} is {reprlib.repr(values[name])}; expected {check.wanted}"
            )


def printable(name: str | bytes | os.PathLike) -> str:
    """A name as it may be shown: control characters and bytes that are no text are escaped."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode() for c in os.fsdecode(name)
    )


def read_json(path: pathlib.Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
      ValueError: the file is too large, no JSON, or holds something else than an object.
    """
    try:
        size = path.stat().st_size
        if size > _MAX_JSON:
            raise ValueError(f"it has {size:,} bytes, more than {_MAX_JSON:,}")
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:  # JSON and Unicode errors are values'
        raise ValueError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path} holds a JSON {type(values).__name__}; expected an object")
    return values


def file_inside(directory: pathlib.Path, name: Any) -> pathlib.Path:
    """The file `name` of a directory, which may be a link only within it or the hub's cache.

    Raises:
      ValueError: the name is a path, or leads elsewhere.
    """
    plain = (
        isinstance(name, str) and name not in ("", ".", "..") and not re.search(r"[/\\\0]", name)
    )
    if not plain:
        raise ValueError(
            f"{directory} names the file {reprlib.repr(name)}; expected a plain name inside it"
        )
    home = directory.resolve()
    allowed = [home]
    if home.parent.name == "snapshots":  # huggingface_hub links a snapshot's files to its blobs
        allowed.append(home.parent.parent / "blobs")
    target = (directory / name).resolve()
    if not any(target.is_relative_to(place) for place in allowed):
        raise ValueError(f"{directory / name} links to {target}, outside its directory")
    return directory / name


def not_finite_floats(tensors: Mapping[str, np.ndarray]) -> list[str]:
    """A line for each tensor that holds something else than floats that are finite in float32."""
    lines = []
    for name, tensor in tensors.items():
        if not jax.dtypes.issubdtype(tensor.dtype, np.floating):
            lines.append(f"{name} holds {tensor.dtype}, expected floats")
        elif not np.isfinite(tensor.astype(np.float32)).all():
            lines.append(f"{name} holds NaN or infinite values")
    return lines
