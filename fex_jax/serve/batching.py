"""Concurrent requests in batches: what waits while one batch is explained is the next one."""

import concurrent.futures
import queue
import threading
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

Work = Callable[[list[Any], Any], Sequence[Any]]  # (things, options) → a result for each


class Full(Exception):
    """As many things wait as may."""


class _Waiting(NamedTuple):
    thing: Any
    options: Any
    result: concurrent.futures.Future


class Batcher:
    """Calls `work` in a thread of its own, with things of equal options together.

    A batch that fails is tried thing by thing, so that none pays for another's fault.

    Args:
      work: explains a list of things.
      most: things in a batch.
      waiting: things that may wait; others are refused.
    """

    def __init__(self, work: Work, most: int, waiting: int):
        self.most, self.batches = most, 0
        self._work, self._queue = work, queue.Queue[_Waiting | None](waiting)
        self._kept: _Waiting | None = None  # of other options than the batch before it
        self._thread = threading.Thread(target=self._run, name="explain", daemon=True)
        self._thread.start()

    @property
    def length(self) -> int:
        """How many things wait."""
        return self._queue.qsize()

    def submit(self, thing: Any, options: Any) -> concurrent.futures.Future:
        """The result that is to come.

        Raises:
          Full: too many wait.
        """
        waiting = _Waiting(thing, options, concurrent.futures.Future())
        try:
            self._queue.put_nowait(waiting)
        except queue.Full:
            raise Full(f"{self._queue.maxsize} things wait already: try again later") from None
        return waiting.result

    def close(self) -> None:
        """Ends the thread after what waits."""
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (batch := self._next()) is not None:
            asked = [one for one in batch if one.result.set_running_or_notify_cancel()]
            if not asked:
                continue
            self.batches += 1
            try:
                self._answer(asked)
            except Exception as error:
                if len(asked) == 1:
                    asked[0].result.set_exception(error)
                    continue
                for one in asked:
                    try:
                        self._answer([one])
                    except Exception as own:
                        one.result.set_exception(own)

    def _answer(self, asked: list[_Waiting]) -> None:
        results = self._work([one.thing for one in asked], asked[0].options)
        for one, result in zip(asked, results, strict=True):
            one.result.set_result(result)

    def _next(self) -> list[_Waiting] | None:
        """What waits and has the first one's options; None at the end."""
        first = self._kept or self._queue.get()
        self._kept = None
        if first is None:
            return None
        batch = [first]
        while len(batch) < self.most:
            try:
                one = self._queue.get_nowait()
            except queue.Empty:
                break
            if one is None:
                self._queue.put(None)
                break
            if one.options != first.options:
                self._kept = one
                break
            batch.append(one)
        return batch
