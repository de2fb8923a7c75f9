"""The one door to every attribution function: what comes in is checked and made ready here.

Inside are pure functions of arrays: float32 and int32, one random key for each input.
"""

import functools
import inspect
import operator
from collections.abc import Callable
from typing import Any, TypeVar, cast

import jax
import jax.numpy as jnp
import numpy as np

from fex_jax.errors import HostError
from fex_jax.predictors import Inputs, Model

F = TypeVar("F", bound=Callable[..., jax.Array])


def public(function: F) -> F:
    """An attribution function (model, inputs, targets, key, ...) → [B, N], as users call it.

    Arrays may be NumPy's or JAX's, of 32 or 64 bits: all is computed in 32, with `jax_enable_x64`
    too. `key` is one key, whose draws are then the same for every input, or B of them, one for
    each: what is drawn for an input depends on its key alone, never on its neighbours. The mean
    over many inputs wants keys of their own, `jax.random.split(key, B)`.

    Outside `jax.jit` a function is compiled once for a model, the shapes of its arrays and its
    options; the programs are kept as long as the model. Inside, it becomes part of the caller's
    program. Values cannot be checked there: the map of a target that is no class is NaN.

    Raises:
      ValueError: names the argument or option that cannot be meant, and what is.
      TypeError: names an option that the function has not.
    """

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> jax.Array:
        with jax.enable_x64(False):
            signature = inspect.signature(function)
            parameters = signature.parameters
            try:
                given = signature.bind(*args, **kwargs).arguments
            except TypeError as error:
                takes = ", ".join(parameters)
                raise TypeError(f"{function.__name__}: {error}; it takes {takes}") from None
            model = given.pop("model")
            given = {name: _checked_option(name, value) for name, value in given.items()}
            given["inputs"], batch = _inputs(given["inputs"])
            given["targets"], known = _targets(given["targets"], batch)
            optional = parameters["key"].default is not inspect.Parameter.empty
            if given.get("key") is not None or not optional:
                given["key"] = _keys(given["key"], batch)
            static = {n: v for n, v in given.items() if n not in _ARRAYS and not _is_array(v)}
            arrays = {n: v for n, v in given.items() if n not in static}

            def run(arrays: dict[str, Any]) -> jax.Array:
                return function(model, **arrays, **static)

            if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(arrays)):
                classes = _num_classes(model, arrays["inputs"])
                _check_range(known, classes)
                inside = (arrays["targets"] >= 0) & (arrays["targets"] < classes)
                found = run(arrays)
                return jnp.where(inside.reshape(-1, *[1] * (found.ndim - 1)), found, jnp.nan)
            program, classes = _program(function, model, static, arrays, run)
            _check_range(known, classes)
            found = program(arrays)
            if not jnp.isfinite(found).all():
                raise ValueError(
                    f"{function.__name__} gave NaN or infinite scores: the model's answers are not "
                    "finite, or numbers this large or small do not fit float32"
                )
            return found

    return cast(F, call)


# ---------------------------------------------------------------- programs

_ARRAYS = frozenset({"inputs", "targets", "key"})


def _program(
    function: Callable, model: Model, static: dict, arrays: dict, run: Callable
) -> tuple[Callable[[dict], jax.Array], int]:
    """The compiled `run` and the number of classes; kept in the model, with which they go."""
    leaves, tree = jax.tree.flatten(arrays)
    shapes = tuple((leaf.shape, leaf.dtype) for leaf in leaves)
    kept = vars(model).setdefault("_programs", {})
    which = (function, tuple(sorted(static.items())), tree, shapes)
    if which not in kept:
        classes = _num_classes(model, arrays["inputs"])
        # The model's parameters become arguments; as constants they would be copied and folded.
        traced = jax.make_jaxpr(run)(arrays)
        compiled = jax.jit(functools.partial(jax.core.eval_jaxpr, traced.jaxpr))

        def program(arrays: dict) -> jax.Array:
            return compiled(traced.consts, *jax.tree.leaves(arrays))[0]

        kept[which] = program, classes
    return kept[which]


def _num_classes(model: Model, inputs: Inputs) -> int:
    """K, or a ValueError that says what the model makes of the inputs."""
    shapes = ", ".join(f"{x.dtype}{list(x.shape)}" for x in jax.tree.leaves(inputs))
    try:
        embedded = None if model.embed is None else jax.eval_shape(model.embed, inputs)
        valid = jax.eval_shape(model.features, inputs)
        answers = jax.eval_shape(model.predict, jax.eval_shape(model.blank, inputs))
    except HostError:  # a black box that is not at hand
        raise
    except Exception as error:
        first = next(iter(str(error).splitlines()), "")
        raise ValueError(
            f"inputs are {shapes}, which the model does not take: {type(error).__name__}: {first}"
        ) from error
    if embedded is not None and not jnp.issubdtype(embedded.dtype, jnp.floating):
        raise ValueError(f"inputs are {shapes}; the model takes floats, normalised as f reads them")
    if valid.shape[-1] != model.num_features or len(valid.shape) != 2:
        raise ValueError(f"model.features gives {valid.shape}; expected [B, {model.num_features}]")
    if len(answers.shape) != 2 or answers.shape[0] != valid.shape[0]:
        raise ValueError(
            f"model.predict gives {answers.shape} of {valid.shape[0]} inputs; expected [B, K]"
        )
    return answers.shape[1]


# ---------------------------------------------------------------- arrays


def _is_array(value: Any) -> bool:
    return isinstance(value, np.ndarray | jax.Array)


def _to_32_bits(name: str, value: Any) -> jax.Array:
    if not isinstance(value, jax.Array):
        try:
            value = np.asarray(value)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
    if isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        raise ValueError(f"{name} is a random key; it comes after inputs and targets")
    if value.dtype.kind not in "biuf" and value.dtype != jnp.bfloat16:
        raise ValueError(f"{name} has dtype {value.dtype}; expected an array of numbers")
    if not isinstance(value, jax.core.Tracer):
        with np.errstate(over="ignore"):  # NumPy's, for JAX's would join a caller's program
            finite = np.isfinite(np.asarray(value).astype(np.float32)).all()
        if not finite:
            raise ValueError(f"{name}: NaN or infinite numbers, or too large for float32")
    return jnp.asarray(value, jax.dtypes.canonicalize_dtype(value.dtype))


def _inputs(inputs: Inputs) -> tuple[Inputs, int]:
    check = functools.partial(_to_32_bits, "inputs")
    # A list is one array: as a pytree, it would be an array for each of its numbers.
    inputs = jax.tree.map(check, inputs, is_leaf=lambda x: isinstance(x, list))
    shapes = [leaf.shape for leaf in jax.tree.leaves(inputs)]
    lengths = {shape[0] if shape else 0 for shape in shapes}
    if len(lengths) != 1 or 0 in lengths:
        raise ValueError(f"inputs have shapes {shapes}; expected a batch [B, ...], B at least 1")
    return inputs, lengths.pop()


def _targets(targets: Any, batch: int) -> tuple[jax.Array, np.ndarray | None]:
    """The classes [B], and their values where these are known."""
    raw = targets if _is_array(targets) else np.asarray(targets)
    if raw.shape != (batch,) or raw.dtype.kind not in "iu":
        raise ValueError(
            f"targets are {raw.dtype}{list(raw.shape)}; expected one class number for each of the "
            f"{batch} inputs, integers [{batch}]"
        )
    known = None if isinstance(raw, jax.core.Tracer) else np.asarray(raw)
    return jnp.asarray(raw, jnp.int32), known


def _check_range(targets: np.ndarray | None, classes: int) -> None:
    if targets is not None and not ((targets >= 0) & (targets < classes)).all():
        wrong = targets[(targets < 0) | (targets >= classes)][0]
        raise ValueError(f"class {wrong} is out of range; expected 0 to {classes - 1}")


def _keys(key: Any, batch: int) -> jax.Array:
    """One key for each input [B], from one for all or from B; old uint32 keys, too."""
    if _is_array(key) and key.dtype == np.uint32 and key.shape[-1:] == (2,):
        key = jax.random.wrap_key_data(jnp.asarray(key), impl="threefry2x32")
    if not _is_array(key) or not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        raise ValueError(f"key is {type(key).__name__}; expected jax.random.key(seed), or B keys")
    if key.shape not in ((), (batch,)):
        raise ValueError(f"key has shape {key.shape}; expected one key, or {batch}")
    return jnp.broadcast_to(key, (batch,))


# ---------------------------------------------------------------- options


_MOST = 2**30  # twice as many are an index of 32 bits


def _count(name: str, value: Any) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool | np.bool_):
        raise ValueError(f"{name} must be a whole number, got {value!r}") from None
    if number < 1:
        raise ValueError(f"{name} must be at least 1, got {number}")
    if number > _MOST:
        raise ValueError(f"{name} must be at most {_MOST:,}, got {number:,}")
    return number


def _number(least: float, most: float, wanted: str) -> Callable[[str, Any], Any]:
    """A check that a number lies strictly between two others."""

    def check(name: str, value: Any) -> Any:
        if isinstance(value, jax.core.Tracer):
            return value
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = np.nan
        if isinstance(value, bool | np.bool_ | str) or not least < number < most:
            raise ValueError(f"{name} must be {wanted}, got {value!r}")
        return number

    return check


_LEAST = float(np.nextafter(0, -1))  # so that 0 itself lies above
_OPTIONS = {
    "num_queries": _count,
    "steps": _count,
    "samples": _count,
    "cells": _count,
    "classes": _count,
    "chunk": lambda name, value: None if value is None else _count(name, value),
    "keep": _number(0, 1, "between 0 and 1"),
    "kernel_width": _number(0, np.inf, "a number above 0"),
    "ridge": _number(_LEAST, np.inf, "a number from 0 on"),
    "step_size": _number(0, np.inf, "a number above 0"),
    "std": _number(_LEAST, np.inf, "a number from 0 on"),
    "budget_range": _number(0, np.inf, "a number above 0"),
    "fill": _number(-np.inf, np.inf, "a number"),
    "baseline": lambda name, value: None if value is None else _to_32_bits(name, value),
    "scores": _to_32_bits,
}


def _checked_option(name: str, value: Any) -> Any:
    return _OPTIONS[name](name, value) if name in _OPTIONS else value
