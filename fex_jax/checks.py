"""One value at the public door: an option of a call, or a field of a file."""

import math
import numbers
from collections.abc import Collection
from typing import Any

import numpy as np


def whole_number(value: Any, name: str, least: int, most: int | None = None) -> int:
    """An int of Python's or NumPy's in [least, most]; True and 8.0 are none.

    Raises:
      ValueError: what came and what is expected.
    """
    wanted = f"a whole number from {least} " + ("on" if most is None else f"to {most}")
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise ValueError(f"{name} is {shown(value)}; expected {wanted}")
    if value < least or (most is not None and value > most):
        raise ValueError(f"{name} is {shown(value)}; expected {wanted}")
    return int(value)


def number(value: Any, name: str, least: float = -math.inf, most: float = math.inf) -> float:
    """A finite real number in [least, most]; True is none.

    Raises:
      ValueError: what came and what is expected.
    """
    real = isinstance(value, numbers.Real) and not isinstance(value, bool)
    # Comparisons, because float(10**400) raises.
    if not real or not -1e300 < value < 1e300 or not least <= value <= most:
        bounded = math.isfinite(least) or math.isfinite(most)
        wanted = "a finite number" + (f" from {least:g} to {most:g}" if bounded else "")
        raise ValueError(f"{name} is {shown(value)}; expected {wanted}")
    return float(value)


def choice(value: Any, name: str, choices: Collection[str]) -> Any:
    """One of a few strings.

    Raises:
      ValueError: what came and what is expected.
    """
    if not isinstance(value, str) or value not in choices:
        wanted = " or ".join(map(repr, choices))
        raise ValueError(f"{name} is {shown(value)}; expected {wanted}")
    return value


def boolean(value: Any, name: str) -> bool:
    """True or False; 1 and "true" are neither.

    Raises:
      ValueError: what came and what is expected.
    """
    if not isinstance(value, bool | np.bool_):
        raise ValueError(f"{name} is {shown(value)}; expected true or false")
    return bool(value)


def shown(value: Any, most: int = 60) -> str:
    """A value in an error: on one line, short, and without control characters."""
    try:
        text = " ".join(repr(value).split())
    except ValueError:  # whole numbers of more than 4,300 digits
        text = f"a huge {type(value).__name__}"
    return text if len(text) <= most else f"{text[:most]}…"
