"""A server in a thread of the test's process."""

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import Any

import uvicorn

from fex_jax.serve import application


@contextlib.contextmanager
def served(explainer: Any, limits: Any = None) -> Iterator[int]:
    """A server of an explainer, called "mine"; yields its port."""
    app = application(explainer, "mine", limits)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    thread.join()
