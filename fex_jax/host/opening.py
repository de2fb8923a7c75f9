"""Opening a black box: a file, an endpoint or a function by its name, or an object of a library."""

import importlib
import importlib.util
import inspect
import json
import os
import pathlib
import re
import sys
from collections.abc import Mapping
from typing import Any

from fex_jax.host.answers import brief
from fex_jax.host.predictor import HostPredictor, host, read_labels

_SUFFIXES = {".onnx": "onnx", ".tflite": "tflite", ".keras": "keras"}
# Adapters of objects, by the library and the name of one of their types: no library is imported.
_OBJECTS = {
    ("transformers", "Pipeline"): "huggingface",
    ("torch", "Module"): "torch_module",
    ("onnxruntime", "InferenceSession"): "onnx",
    ("keras", "Model"): "keras",
}
_HOW = (
    ": give fex_jax.host.open(object, labels=…, input=…) what fex_jax.host.{name}.{name} takes, or "
    "what this makes of it in the object's place"
)
_FUNCTION = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")


def open(where: str | os.PathLike[str] | Any, **options: Any) -> HostPredictor:
    """The black box that a name stands for, or that an object of a library is.

    Args:
      where: "model.onnx", "model.tflite", "model.keras", "http://…" or "https://…", or
        "package.module:function", also of a module in the working directory. A function is
        called with batches; instead of one the name may be that of a `HostPredictor`, or of a
        function that makes one and takes keyword arguments alone, which are options, or none.
        Or an object, also by such a name: a Keras model, a torch module (with `labels` and
        `input`), an ONNX Runtime session, a pipeline of Hugging Face, or a fitted estimator with
        scikit-learn's interface.
      options: of the adapter, `labels` and `input` before all; see `host`.

    Raises:
      ValueError: a name of another form, an object of another kind, a library that is not
        installed, a module or function that is not there, or an option that the adapter does not
        take or misses.
    """
    if not isinstance(where, str | os.PathLike):
        if isinstance(where, HostPredictor) and not options:
            return where
        if not is_object(where):
            raise ValueError(
                f"an object of type {type(where).__name__} is no black box that is known; give a "
                "name, or fex_jax.host(function, labels=…, input=…)"
            )
        return _adapter(_kind(where), where, options)
    where = os.fspath(where)
    if re.match(r"https?://", where):
        return _adapter("http", where, options)
    if suffix := _suffix(where):
        return _adapter(suffix, where, options)
    check(where)
    found = _attribute(*where.split(":"))
    parameters = inspect.signature(found).parameters if inspect.isfunction(found) else {"": None}
    if all(p and p.kind is p.KEYWORD_ONLY for p in parameters.values()):
        found = found(**{name: options.pop(name) for name in parameters if name in options})
    if isinstance(found, HostPredictor):
        other = [name for name, value in options.items() if getattr(found, name, None) != value]
        if other:
            raise ValueError(f"{where} is a predictor already, and takes no {', '.join(other)}")
        return found
    if is_object(found):
        return open(found, **options)
    for name, what in (("labels", "names of the classes"), ("input", "the shape of an input")):
        if name not in options:
            raise ValueError(f"{where} needs {name}: {what}")
    return host(found, **{"name": where, "digest": where} | options)


def is_name(where: str) -> bool:
    """Whether `open` takes a name of this form; names of checkpoints have others."""
    endpoint = re.match(r"https?://", where)
    return bool(endpoint or _suffix(where) or _FUNCTION.fullmatch(where))


def is_object(thing: Any) -> bool:
    """Whether `open` takes an object of this type: of a library that has an adapter."""
    return not isinstance(thing, str | os.PathLike) and _kind(thing) is not None


def check(where: str, options: Mapping[str, Any] | None = None) -> None:
    """Raises what `open` would, of what can be told without importing a library or a function.

    Args:
      where: a name that `open` takes.
      options: None: what an address needs comes from elsewhere.

    Raises:
      ValueError: a file or a module that is not there, or an address that is none.
    """
    labels = (options or {}).get("labels")
    if isinstance(labels, str):
        read_labels(labels)
    if re.match(r"https?://", where):
        if options is not None:
            open(where, **options)  # which asks nobody
    elif _suffix(where):
        try:
            os.stat(where)
        except OSError as error:
            raise ValueError(f"cannot read {where}: {error.strerror}") from error
    elif is_name(where):
        module = where.partition(":")[0]
        try:
            find_module(module)
        except Exception as error:
            raise ValueError(f"{where}: importing {module} failed: {brief(error)}") from error
    else:
        raise ValueError(
            f"{where!r} names no black box; give a file ending in {', '.join(_SUFFIXES)}, an "
            "http:// or https:// address, or package.module:function"
        )


def find_module(name: str) -> None:
    """Looks for a module, also in the working directory.

    It is not imported, but packages that it is in are.

    Raises:
      ModuleNotFoundError: it is not there. Others are of the packages' own code.
    """
    if "" not in sys.path and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    if name not in sys.modules and importlib.util.find_spec(name) is None:
        raise ModuleNotFoundError(f"No module named {name!r}")


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


def _kind(thing: Any) -> str | None:
    """The adapter of an object; of what only predicts, that of estimators."""
    for base in type(thing).__mro__:
        found = _OBJECTS.get((base.__module__.partition(".")[0], base.__name__))
        if found:
            return found
    return "estimator" if hasattr(thing, "predict") else None


def _adapter(name: str, where: Any, options: dict[str, Any]) -> HostPredictor:
    adapter = getattr(importlib.import_module(f"fex_jax.host.{name}"), name)
    what = where if isinstance(where, str) else f"an object of type {type(where).__name__}"
    try:
        return adapter(where, **options)
    except ImportError as error:  # its library's
        raise ValueError(f"{what}: {error}") from error
    except TypeError as error:  # an option that it does not take, or one that it misses
        how = "" if isinstance(where, str) else _HOW.format(name=name)
        raise ValueError(f"{what} cannot be opened so: {error}{how}") from error


def _attribute(module: str, name: str) -> Any:
    try:
        found = importlib.import_module(module)
    except Exception as error:
        raise ValueError(f"{module}:{name}: importing {module} failed: {brief(error)}") from error
    for part in name.split("."):
        if not hasattr(found, part):
            raise ValueError(f"{module} has no {name}; it is looked up in {found!r}")
        found = getattr(found, part)
    return found
