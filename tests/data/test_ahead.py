"""Threads that work ahead, against a plain loop."""

import threading
import time

import pytest

from fex_jax.data.ahead import ahead


def test_order_and_number_are_kept():
    """Breaks if a slow thing is overtaken, or one is lost or doubled where few or none come."""

    def slow_first(number: int) -> int:
        time.sleep(0.02 if number == 0 else 0)
        return number * number

    for count in (0, 1, 3, 50):
        for most in (1, 4, 100):
            assert list(ahead(slow_first, range(count), most, threads=3)) == [
                number * number for number in range(count)
            ]


def test_works_ahead_but_not_further_than_asked():
    """Breaks if nothing is made while the caller is busy, or memory holds everything there is."""
    taken: list[int] = []

    def things():
        for number in range(100):
            taken.append(number)
            yield number

    done = threading.Semaphore(0)
    found = ahead(lambda number: done.release() or number, things(), most=5, threads=2)
    assert next(found) == 0
    for _ in range(6):  # the first, and five that nobody has asked for
        assert done.acquire(timeout=10)
    assert taken == list(range(6))


def test_an_error_comes_in_its_turn():
    """Breaks if an error is lost, or comes before the results of what stands before it."""

    def fail_at_two(number: int) -> int:
        if number == 2:
            raise ValueError("two")
        return number

    found = ahead(fail_at_two, range(10), most=10)
    assert [next(found), next(found)] == [0, 1]
    with pytest.raises(ValueError, match="two"):
        next(found)
