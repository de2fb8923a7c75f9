"""A server in a thread of the test's process."""

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import Any

from fex_jax.serve import application
from fex_jax.serve.connections import server


@contextlib.contextmanager
def served(explainer: Any, limits: Any = None) -> Iterator[int]:
    """A server of an explainer, called "mine"; yields its port."""
    app = application(explainer, "mine", limits)
    found = server(app, port=0, log_level="error")
    thread = threading.Thread(target=found.run)
    thread.start()
    while not found.started:
        time.sleep(0.01)
    yield found.servers[0].sockets[0].getsockname()[1]
    found.should_exit = True
    thread.join()
