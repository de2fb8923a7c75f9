"""A server in a thread of the test's process, and an explainer of texts to serve."""

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import Any

from fex_jax import explain
from fex_jax.models.policy import functional_policy
from fex_jax.serve import application
from fex_jax.serve.connections import server
from tests import tiny_text
from tests.conftest import random_params


def text_explainer() -> explain.Explainer:
    """Of a tiny classifier of three classes, with random weights."""
    predictor = tiny_text.checkpoint(num_classes=3)
    init, _ = functional_policy(predictor.config, 3)
    return explain.Explainer(predictor, predictor.config, random_params(init), budget=-3.0)


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
