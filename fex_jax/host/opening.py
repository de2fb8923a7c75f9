"""Opening a black box by its name: a file, an endpoint, a function."""

import importlib
import inspect
import json
import os
import pathlib
import re
import sys
from typing import Any

from fex_jax.host.answers import brief
from fex_jax.host.predictor import HostPredictor, host

_SUFFIXES = {".onnx": "onnx", ".tflite": "tflite", ".keras": "keras"}
_FUNCTION = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")


def open(where: str | os.PathLike[str], **options: Any) -> HostPredictor:
    """The black box that a name stands for.

    Args:
      where: "model.onnx", "model.tflite", "model.keras", "http://…" or "https://…", or
        "package.module:function", also of a module in the working directory. A function is
        called with batches; instead of one the name may be that of a `HostPredictor`, or of a
        function that makes one and takes keyword arguments alone, which are options, or none.
      options: of the adapter, `labels` and `input` before all; see `host`.

    Raises:
      ValueError: a name of another form, a library that is not installed, a module or function
        that is not there, or an option that the adapter does not take.
    """
    where = os.fspath(where)
    if re.match(r"https?://", where):
        return _adapter("http", where, options)
    if suffix := _suffix(where):
        return _adapter(suffix, where, options)
    if not is_name(where):
        raise ValueError(
            f"{where!r} names no black box; give a file ending in {', '.join(_SUFFIXES)}, an "
            "http:// or https:// address, or package.module:function"
        )
    found = _attribute(*where.split(":"))
    parameters = inspect.signature(found).parameters if inspect.isfunction(found) else {"": None}
    if all(p and p.kind is p.KEYWORD_ONLY for p in parameters.values()):
        found = found(**{name: options.pop(name) for name in parameters if name in options})
    if isinstance(found, HostPredictor):
        other = [name for name, value in options.items() if getattr(found, name, None) != value]
        if other:
            raise ValueError(f"{where} is a predictor already, and takes no {', '.join(other)}")
        return found
    for name, what in (("labels", "names of the classes"), ("input", "the shape of an input")):
        if name not in options:
            raise ValueError(f"{where} needs {name}: {what}")
    return host(found, **{"name": where, "digest": where} | options)


def is_name(where: str) -> bool:
    """Whether `open` takes a name of this form; names of checkpoints have others."""
    endpoint = re.match(r"https?://", where)
    return bool(endpoint or _suffix(where) or _FUNCTION.fullmatch(where))


def parse_options(given: str) -> dict[str, Any]:
    """Options of `open` as a command line has them, a JSON object.

    Raises:
      ValueError: something else.
    """
    try:
        options = json.loads(given)
    except ValueError as error:
        raise ValueError(f"predictor.options is {given!r}, no JSON: {error}") from None
    if not isinstance(options, dict):
        raise ValueError(f"predictor.options is {given!r}; give an object, {{...}}")
    return options


def _suffix(where: str) -> str | None:
    return _SUFFIXES.get(pathlib.Path(where).suffix.lower())


def _adapter(name: str, where: str, options: dict[str, Any]) -> HostPredictor:
    adapter = getattr(importlib.import_module(f"fex_jax.host.{name}"), name)
    try:
        return adapter(where, **options)
    except ImportError as error:  # its library's
        raise ValueError(f"{where}: {error}") from error
    except TypeError as error:  # an option that it does not take, or one that it misses
        raise ValueError(f"{where} cannot be opened so: {error}") from error


def _attribute(module: str, name: str) -> Any:
    if "" not in sys.path and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found = importlib.import_module(module)
    except Exception as error:
        raise ValueError(f"{module}:{name}: importing {module} failed: {brief(error)}") from error
    for part in name.split("."):
        if not hasattr(found, part):
            raise ValueError(f"{module} has no {name}; it is looked up in {found!r}")
        found = getattr(found, part)
    return found
