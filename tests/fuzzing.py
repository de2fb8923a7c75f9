"""What fuzzing tests share: nasty values, bounds of time and memory, and what may come out."""

import pathlib
import resource
import signal
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

import fex_jax
from fex_jax import escape

MOST_SECONDS, MOST_KILOBYTES = 300, 2 * 2**20  # of one test; 2 GiB
PACKAGE = pathlib.Path(fex_jax.__file__).parent
NASTY = [
    None, True, False, 0, -1, 1, 2, 3, 7, 8, 64, 80_000, 10**5, 10**9, 10**400, 0.0, -0.5, 1.5, 8.0,
    1e-300, 1e999, float("nan"), "", "8", "fex", "FEX", "vit", "..", "/etc/passwd", "\x1b[2J",
    "x" * 99, [], [1], [3, 4], [None], {}, {"height": 8}, {"a": [{}]},
]  # fmt: skip
SEEDS = st.integers(0, 2**31)


def fuzz(examples: int) -> Callable:
    """The same examples in every run."""
    return settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


@pytest.fixture(autouse=True)
def bounded() -> Iterator[None]:
    """Fails a test that hangs or takes too much memory."""

    def stop(*_: Any) -> None:
        raise TimeoutError(f"not done after {MOST_SECONDS} seconds")

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    old = signal.signal(signal.SIGALRM, stop)
    signal.alarm(MOST_SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, old)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MOST_KILOBYTES


def outcome(call: Callable[[], Any]) -> Any:
    """What a call returns; None where it raised one clear sentence of ours."""
    try:
        return call()
    except (ValueError, OSError) as error:
        place = traceback.extract_tb(error.__traceback__)[-1].filename
        assert pathlib.Path(place).is_relative_to(PACKAGE), f"{error!r} comes from {place}"
        message = str(error)
        assert 10 < len(message) < 1000
        assert escape.terminal(message) == message
        return None
