"""Things that wait, and the batches that are made of them."""

import threading
import time

import pytest

pytest.importorskip("uvicorn")
pytest.importorskip("starlette")

from fex_jax.serve.batching import Batcher, Full  # noqa: E402


def test_a_batch_is_what_waits():
    """Breaks if things are explained one by one, in batches that are too large, with others'
    options, or if a thing's error is another's; and if more may wait than is said."""
    seen, go = [], threading.Event()

    def work(things, options):
        go.wait(10)
        seen.append((list(things), options))
        if "bad" in things:
            raise ValueError("bad")
        return [thing.upper() for thing in things]

    batcher = Batcher(work, most=2, waiting=6)
    first = batcher.submit("a", 1)
    while batcher.length:  # taken
        time.sleep(0.001)
    given = [("b", 1), ("bad", 1), ("c", 2), ("d", 2), ("e", 2), ("f", 1)]
    others = [batcher.submit(*one) for one in given]
    with pytest.raises(Full, match="6 things wait already"):
        batcher.submit("g", 1)
    go.set()
    assert first.result(10) == "A"
    assert [o.result(10) for o in others if o is not others[1]] == ["B", "C", "D", "E", "F"]
    with pytest.raises(ValueError, match="bad"):
        others[1].result(10)
    batcher.close()
    together = [(["a"], 1), (["b", "bad"], 1), (["b"], 1), (["bad"], 1)]
    assert seen == [*together, (["c", "d"], 2), (["e"], 2), (["f"], 1)]
