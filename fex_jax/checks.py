"""Checks at the public door: of files from strangers, before anything is built, and of options."""

import contextlib
import errno
import json
import os
import pathlib
import re
import reprlib
import tempfile
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open

from fex_jax import escape

if TYPE_CHECKING:  # options are checked before anything that takes seconds is imported
    import jax

_MAX_JSON = 2**26  # bytes; the largest tokenizer.json in use has a quarter of that


class Check(NamedTuple):
    """What a field must hold: in words, and as a test."""

    wanted: str
    fits: Callable[[Any], bool]


def integer(low: int, high: int) -> Check:
    """An integer of Python's or NumPy's, and no bool, from `low` to `high`."""
    return Check(
        f"an integer from {low} to {high}",
        lambda x: (
            isinstance(x, int | np.integer) and type(x) is not bool and bool(low <= x <= high)
        ),
    )


def number(low: float, high: float) -> Check:
    """A finite integer or float of Python's or NumPy's, and no bool, from `low` to `high`."""
    kinds = int, float, np.integer, np.floating
    return Check(
        f"a number from {low:g} to {high:g}",
        # NaN is not in between.
        lambda x: isinstance(x, kinds) and type(x) is not bool and bool(low <= x <= high),
    )


def flag() -> Check:
    """True or false."""
    return Check("true or false", lambda x: type(x) is bool)


def nothing() -> Check:
    """None, JSON's null."""
    return Check("none", lambda x: x is None)


def one_of(*values: Any) -> Check:
    """One of a few values."""
    return Check(
        "one of " + ", ".join(map(repr, values)),
        lambda x: any(type(x) is type(value) and x == value for value in values),
    )


def several(check: Check, count: int | None = None, at_least: int = 0) -> Check:
    """A list, of `count` values if that is given, or `at_least` so many; each fits `check`."""
    words = f"a list of {count}" if count is not None else "a list"
    words += f" of {at_least} or more" if at_least else ""
    return Check(
        f"{words}, each {check.wanted}",
        lambda x: (
            isinstance(x, list | tuple)
            and (count is None or len(x) == count)
            and len(x) >= at_least
            and all(map(check.fits, x))
        ),
    )


def text() -> Check:
    """A string."""
    return Check("a string", lambda x: isinstance(x, str))


def mapping() -> Check:
    """An object of JSON, or another mapping."""
    return Check("an object", lambda x: isinstance(x, Mapping))


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


def folder(path: Any, where: Any) -> pathlib.Path:
    """The folder that a path names, made if it is not there, for files to be written to.

    Raises:
      ValueError: no path, or a folder that cannot be made or written to.
    """
    if (
        not isinstance(path, str | os.PathLike)
        or not isinstance(os.fspath(path), str)
        or path == ""
    ):
        raise ValueError(f"{where} is {reprlib.repr(path)}; expected the path of a folder")
    try:
        found = pathlib.Path(path).expanduser()
        found.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=found).close()  # permissions alone say less
    except (OSError, RuntimeError, ValueError) as error:
        raise ValueError(
            f"{where}: {escape.terminal(os.fspath(path))} is no folder to write to: {error}"
        ) from error
    return found


@contextlib.contextmanager
def room(folder: pathlib.Path) -> Iterator[None]:
    """Names the folder where a disk is full: the system's own error may name none."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise OSError(
            f"{folder} cannot be written to ({error}): make room there; the same call continues"
        ) from error


def read_json(path: pathlib.Path, most: int = _MAX_JSON) -> dict[str, Any]:
    """The object in a JSON file of at most `most` bytes; NaN and Infinity are no JSON.

    Raises:
      ValueError: the file is too large, no JSON, or holds something else than an object.
    """
    try:
        size = path.stat().st_size
        if size > most:
            raise ValueError(f"it has {size:,} bytes, more than {most:,}")
        values = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse)
    except (OSError, ValueError, RecursionError) as error:  # JSON and Unicode errors are values'
        raise ValueError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path} holds a JSON {type(values).__name__}; expected an object")
    return values


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no number")


def tensor_shapes(path: pathlib.Path) -> "dict[str, jax.ShapeDtypeStruct]":
    """What tensors a safetensors file holds; only its header is read.

    Raises:
      ValueError: it is damaged or another kind of file, or a tensor is no float32.
    """
    import jax  # takes seconds, and settings are checked before

    with _opened(path) as file:
        slices = {name: file.get_slice(name) for name in file.keys()}
        for name, tensor in slices.items():
            if tensor.get_dtype() != "F32":
                raise ValueError(
                    f"{path}: {escape.terminal(name)} holds {tensor.get_dtype()}, expected F32"
                )
        return {
            name: jax.ShapeDtypeStruct(tuple(tensor.get_shape()), np.float32)
            for name, tensor in slices.items()
        }


def read_tensors(path: pathlib.Path) -> dict[str, np.ndarray]:
    """All tensors of a safetensors file.

    Raises:
      ValueError: it is damaged or another kind of file, or numpy has no such dtype.
    """
    try:
        with _opened(path) as file:
            return {name: file.get_tensor(name) for name in file.keys()}
    except (OSError, SafetensorError, TypeError, AttributeError) as error:
        raise _unreadable(path, error) from error


def _opened(path: pathlib.Path) -> Any:
    try:
        with open(path, "rb"):  # safetensors says of what it may not open that it is not there
            pass
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error
    try:
        return safe_open(path, framework="np")
    except (OSError, SafetensorError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: pathlib.Path, error: Exception) -> ValueError:
    return ValueError(f"{path} cannot be read as safetensors, is it whole? ({error})")


def file_inside(directory: pathlib.Path, name: Any) -> pathlib.Path:
    """The file `name` of a directory, which may be a link only within it or the hub's cache.

    Raises:
      ValueError: the name is a path, or leads elsewhere, or to a pipe or device, of which reading
        might not end.
    """
    plain = (
        isinstance(name, str)
        and name not in ("", ".", "..")
        and name.isprintable()
        and not re.search(r"[/\\]", name)
        and len(name.encode()) < 256
    )
    if not plain:
        raise ValueError(
            f"{directory} names the file {reprlib.repr(name)}; expected a plain name inside it"
        )
    home = pathlib.Path(os.path.realpath(directory))
    # huggingface_hub links a snapshot's files to its blobs.
    allowed = [home, *(p.parent / "blobs" for p in home.parents if p.name == "snapshots")]
    target = pathlib.Path(os.path.realpath(directory / name))  # of a loop, the link itself
    if not any(target.is_relative_to(place) for place in allowed):
        raise ValueError(f"{directory / name} links to {target}, outside its directory")
    if target.exists() and not (target.is_file() or target.is_dir()):
        raise ValueError(f"{directory / name} is neither a file nor a folder")
    return directory / name


def not_finite_floats(tensors: Mapping[str, np.ndarray]) -> list[str]:
    """A line for each tensor that holds something else than floats that are finite in float32."""
    import jax

    lines = []
    for name, tensor in tensors.items():
        if not jax.dtypes.issubdtype(tensor.dtype, np.floating):
            lines.append(f"{name} holds {tensor.dtype}, expected floats")
            continue
        with np.errstate(over="ignore"):
            finite = np.isfinite(tensor.astype(np.float32)).all()
        if not finite:
            lines.append(f"{name} holds NaN or infinite values")
    return lines
