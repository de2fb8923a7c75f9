"""Fingerprints of whatever a number may depend on: arrays, settings, whole data classes, code.

`of` knows a value by its type and content, never by its name or address, and walks every field of a
data class or named tuple: a field that is added later is part of the fingerprint without a line
here. What it cannot know is an error, so nothing is left out in silence.
"""

import dataclasses
import functools
import hashlib
import inspect
import pathlib
import sys
import sysconfig
import types
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import version
from typing import Any

import jax
import numpy as np

# Files of this package that show numbers but do not make them; every other one counts as code.
_SHOWS = {"plotting.py", "page.py", "report.py", "gallery.py", "text_explanation.py", "logs.py"}
_PACKAGE = pathlib.Path(__file__).resolve().parent.parent
_LIBRARIES = tuple(sysconfig.get_path(name) for name in ("purelib", "platlib", "stdlib"))


def of(*values: Any) -> str:
    """16 hexadecimal digits of SHA-256 over the values, in their order.

    Raises:
      TypeError: a value whose content cannot be known.
    """
    found = hashlib.sha256()
    try:
        for part in _parts(values, set()):
            found.update(part)
    except RecursionError:
        raise TypeError("a value that holds itself has no end") from None
    return found.hexdigest()[:16]


@functools.cache
def of_this_package() -> str:
    """The code that makes numbers: this package's, and the versions of what it computes with."""
    sources = [path for path in sorted(_PACKAGE.rglob("*.py")) if path.name not in _SHOWS]
    names = [str(path.relative_to(_PACKAGE)) for path in sources]
    libraries = {name: version(name) for name in ("jax", "jaxlib", "flax", "numpy")}
    return of(names, [path.read_bytes() for path in sources], libraries)


def _parts(value: Any, seen: set[int]) -> Iterable[bytes]:
    """The value as bytes; what holds others begins with its kind and size."""
    match value:
        case None | bool() | int() | float() | complex() | str() | pathlib.PurePath() | np.dtype():
            yield _frame(type(value).__name__, str(value).encode("utf-8", "surrogatepass"))
        case bytes():
            yield _frame("bytes", value)
        case np.ndarray() | np.generic() | jax.Array():
            yield from _of_array(value, seen)
        case Mapping():
            items = sorted(value.items(), key=lambda item: (type(item[0]).__name__, str(item[0])))
            yield _frame("mapping", str(len(items)).encode())
            for item in items:
                yield from _parts(item, seen)
        case set() | frozenset():
            yield _frame("set", "".join(sorted(of(member) for member in value)).encode())
        case tuple() | list():  # named tuples, too
            yield _frame(type(value).__name__, str(len(value)).encode())
            for member in value:
                yield from _parts(member, seen)
        case type():
            yield _frame("type", f"{value.__module__}.{value.__qualname__}".encode())
            yield from _of_class(value, seen)
        case _ if dataclasses.is_dataclass(value):
            yield _frame(type(value).__qualname__, b"")
            # What a class leaves out of its equality is no part of what it is.
            compared = [f.name for f in dataclasses.fields(value) if f.compare]
            fields = {name: getattr(value, name) for name in compared}
            yield from _parts(fields, seen)
        case _ if hasattr(value, "to_str"):  # a tokenizer of Hugging Face's library
            yield _frame(type(value).__qualname__, value.to_str().encode())
        case _ if callable(value):
            yield from _of_callable(value, seen)
        case _ if not _is_library(sys.modules.get(type(value).__module__)):  # of one's own class
            yield from _parts(("object", type(value), vars(value)), seen)
        case _:
            raise TypeError(f"a {type(value).__qualname__} has no content that could be compared")


def _frame(kind: str, content: bytes) -> bytes:
    return f"{kind}:{len(content)}:".encode() + content


def _of_array(array: Any, seen: set[int]) -> Iterable[bytes]:
    if jax.dtypes.issubdtype(array.dtype, jax.dtypes.prng_key):
        array = jax.random.key_data(array)
    array = np.asarray(array)
    yield _frame("array", f"{array.dtype}{array.shape}".encode())
    if array.dtype.hasobject:
        yield from _parts(array.tolist(), seen)
    else:
        yield np.ascontiguousarray(array).tobytes()


# ---------------------------------------------------------------- code


def _of_callable(function: Callable, seen: set[int]) -> Iterable[bytes]:
    """What a function does: its source, its defaults, and what it takes from around it."""
    if id(function) in seen:  # it calls itself, or what calls it
        yield _frame("again", getattr(function, "__qualname__", "").encode())
        return
    seen.add(id(function))
    if isinstance(function, functools.partial):
        yield from _parts(("partial", function.func, function.args, function.keywords), seen)
    elif isinstance(function, types.MethodType):
        yield from _parts(("method", function.__func__, function.__self__), seen)
    elif isinstance(function, types.FunctionType):
        yield from _of_function(function, seen)
    elif hasattr(function, "__wrapped__"):  # jitted, cached, decorated
        yield from _parts(("wrapped", function.__wrapped__), seen)
    elif isinstance(function, types.BuiltinFunctionType | np.ufunc):
        yield _frame("builtin", f"{function.__module__}.{function.__name__}".encode())
    else:  # an object that can be called
        yield from _parts(("object", type(function), vars(function)), seen)


def _of_function(function: types.FunctionType, seen: set[int]) -> Iterable[bytes]:
    yield _frame("function", f"{function.__module__}.{function.__qualname__}".encode())
    yield from _parts((function.__defaults__, function.__kwdefaults__), seen)
    if _is_library(sys.modules.get(function.__module__)):
        return  # known by `of_this_package`, or by another library's version
    yield from _of_source(function, seen)
    yield from _parts([cell.cell_contents for cell in function.__closure__ or ()], seen)
    yield from _of_names(function.__code__, function.__globals__, seen)
    if wrapped := getattr(function, "__wrapped__", None):
        yield from _parts(wrapped, seen)


def _of_class(kind: type, seen: set[int]) -> Iterable[bytes]:
    if _is_library(sys.modules.get(kind.__module__)) or id(kind) in seen:
        return
    seen.add(id(kind))
    yield from _of_source(kind, seen)
    for member in vars(kind).values():
        if isinstance(member, types.FunctionType):
            yield from _parts(member, seen)


def _of_names(code: types.CodeType, around: dict, seen: set[int]) -> Iterable[bytes]:
    """The globals that a function's code names, inner functions included."""
    for name in sorted(set(code.co_names) & around.keys()):
        value = around[name]
        if isinstance(value, types.ModuleType):
            if not _is_library(value) and id(value) not in seen:
                seen.add(id(value))
                yield from _of_module(value)
        else:
            yield _frame("global", name.encode())
            yield from _parts(value, seen)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _of_names(constant, around, seen)


def _of_module(module: types.ModuleType) -> Iterable[bytes]:
    """The files of a module of one's own; of a package all, whichever a function reaches for."""
    path = pathlib.Path(getattr(module, "__file__", None))  # a TypeError if there is none
    files = sorted(path.parent.rglob("*.py")) if path.name == "__init__.py" else [path]
    for file in files:
        yield _frame("file", file.read_bytes())


def _of_source(thing: Any, seen: set[int]) -> Iterable[bytes]:
    """The source text, or where there is none, as at a prompt, the compiled code."""
    try:
        yield _frame("source", inspect.getsource(thing).encode())
    except (OSError, TypeError):
        if not isinstance(thing, types.FunctionType):
            raise TypeError(f"the source of {thing!r} is not to be found") from None
        yield from _of_code(thing.__code__, seen)


def _of_code(code: types.CodeType, seen: set[int]) -> Iterable[bytes]:
    yield _frame("code", code.co_code)
    yield from _parts((code.co_names, code.co_varnames), seen)
    for constant in code.co_consts:
        inner = isinstance(constant, types.CodeType)
        yield from _of_code(constant, seen) if inner else _parts(repr(constant), seen)


def _is_library(module: Any) -> bool:
    """Whether a module is this package's, Python's or an installed one: known by its version."""
    if not isinstance(module, types.ModuleType):
        return False
    file = getattr(module, "__file__", None)
    if file is None:
        return module.__name__ != "__main__"
    path = pathlib.Path(file).resolve()
    return path.is_relative_to(_PACKAGE) or any(map(path.is_relative_to, _LIBRARIES))
