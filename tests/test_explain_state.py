"""Explainers as joblib, Ray, threads and spawned workers treat them."""

import concurrent.futures
import contextlib
import copy
import multiprocessing
import pickle
import threading
from collections.abc import Iterator

import jax
import numpy as np
import pytest

from fex_jax import explain
from fex_jax.models.policy import functional_policy
from tests import tiny_text
from tests.conftest import random_params

PICTURES = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)
TEXTS = ["a funny film , very good !", "dull plot ."]


def make(kind: str) -> tuple[explain.Explainer, object]:
    """An explainer that has not been called, and what to call it with."""
    if kind == "images":
        return explain.load("models/digits_fex"), PICTURES
    predictor = tiny_text.checkpoint()
    init, _ = functional_policy(predictor.config, predictor.config.num_classes)
    return explain.Explainer(predictor, predictor.config, random_params(init)), TEXTS


def scores(explainer: explain.Explainer, things: object) -> np.ndarray:
    found = explainer(things, batch_size=2)
    if isinstance(found, list):
        return np.concatenate([explanation.scores for explanation in found])
    return found.logits.ravel()


@contextlib.contextmanager
def compilations() -> Iterator[list[str]]:
    """Filled with an entry for each program that XLA compiles."""
    found: list[str] = []

    def listen(event: str, _: float, **__: object) -> None:
        if event.endswith("backend_compile_duration"):
            found.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield found
    jax.monitoring.unregister_event_duration_listener(listen)


@pytest.mark.parametrize("kind", ["images", "texts"])
def test_copies_explain_alike_before_and_after_a_call(kind):
    """Breaks if compiled programs are part of the state: they cannot be pickled or copied."""
    fresh, things = make(kind)
    copies = [pickle.loads(pickle.dumps(fresh)), copy.deepcopy(fresh)]
    expected = scores(fresh, things)
    copies += [pickle.loads(pickle.dumps(fresh)), copy.deepcopy(fresh), copy.copy(fresh)]
    for other in copies[-3:]:
        np.testing.assert_array_equal(scores(other, things), expected)
    for other in copies[:2]:
        assert jax.tree.all(jax.tree.map(np.array_equal, other.params, fresh.params))


@pytest.mark.parametrize("kind", ["images", "texts"])
def test_eight_threads_compile_once(kind):
    """Breaks if first calls at once compile once each, or mix up each other's maps."""
    explainer, things = make(kind)
    alone, _ = make(kind)
    expected = scores(alone, things)
    start = threading.Barrier(8)

    def call(_: int) -> np.ndarray:
        start.wait()
        return scores(explainer, things)

    with compilations() as events, concurrent.futures.ThreadPoolExecutor(8) as pool:
        results = list(pool.map(call, range(8)))
    for found in results:
        np.testing.assert_array_equal(found, expected)
    assert len(events) == 1  # for f(x) and the map


def test_a_spawned_worker_explains():
    """Breaks if an explainer that was called cannot be sent to a process of its own."""
    explainer, things = make("images")
    expected = scores(explainer, things)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        found = pool.apply(scores, (explainer, things))
    np.testing.assert_allclose(found, expected, atol=1e-4)
