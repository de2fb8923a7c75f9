"""Work that threads do while the caller is busy with what came before."""

import collections
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Thing = TypeVar("Thing")
Made = TypeVar("Made")


def ahead(
    function: Callable[[Thing], Made],
    things: Iterable[Thing],
    most: int,
    threads: int | None = None,
) -> Iterator[Made]:
    """function(thing) of each thing, in order, up to `most` of them before they are asked for.

    Things are taken in the caller's thread. What `function` raises, the caller gets in its turn;
    what has not begun by then never does.

    Args:
      function: that several threads may call at once.
      threads: how many; None: one a core.
    """
    waiting: collections.deque[Future[Made]] = collections.deque()
    pool = ThreadPoolExecutor(threads or os.cpu_count())
    try:
        for thing in things:
            waiting.append(pool.submit(function, thing))
            if len(waiting) > most:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
