"""What is kept of finished methods, and when it counts: fingerprints of all that numbers need."""

import dataclasses
import functools
import importlib
import sys
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fex_jax import attributions, evaluation, explain, predictors
from fex_jax.evaluation import cache, fingerprint, tasks
from fex_jax.models.policy import functional_policy
from tests import tiny_text
from tests.conftest import random_params


@pytest.fixture(scope="module")
def task(predictor) -> tasks.Task:
    """One of which every field holds something."""
    rng = np.random.default_rng(0)
    scenes = rng.integers(0, 3, (4, 32, 32)).astype(np.uint8)
    spans = np.array([[0, 1]])
    return tasks.Task(
        inputs=rng.integers(0, 256, (4, 32, 32, 3), np.uint8),
        grid=(4, 4),
        true_classes=np.arange(4),
        names=("a", "b", "c", "d"),
        known=np.arange(4),
        accuracy=0.5,
        targets=np.arange(4),
        second=np.arange(4)[::-1],
        reference=np.arange(4),
        segmentation=scenes,
        pairs=np.array([0, 2]),
        agreed=np.array([True, False]),
        documents=[tasks.Document("a", spans, np.array([True]), "a")] * 4,
    )


def changed(value):
    """The same kind of thing with another content."""
    match value:
        case np.ndarray() if value.dtype == bool:
            return ~value
        case np.ndarray():
            return np.concatenate([value[:-1], value[-1:] + 1])
        case tuple() | list() if hasattr(value[0], "_replace"):
            return [value[0]._replace(rationale=~value[0].rationale), *value[1:]]
        case tuple():
            return (*value, value[0])
        case str():
            return value + "x"
        case bool():
            return not value
        case None:
            return -1.0
        case int() | float():
            return value + 1
    return jax.tree.map(lambda x: x + 1, value)


def test_every_field_of_a_task_counts(task):
    """Breaks if corrected classes, rationales or any field, also one to come, are not noticed."""
    whole = cache.common(task, protocol="fex")
    assert whole == cache.common(task._replace(inputs=task.inputs.copy()), protocol="fex")
    assert whole != cache.common(task, protocol="chefer")
    for field, value in task._asdict().items():
        other = cache.common(task._replace(**{field: changed(value)}), protocol="fex")
        assert other != whole, field


def test_every_field_of_an_explainer_counts(predictor):
    """Breaks if maps of other weights, settings or preprocessing are taken for these."""
    init, _ = functional_policy(predictor.config, 10)
    explainer = explain.Explainer(predictor, predictor.config, random_params(init), budget=-3.0)
    whole = cache.key("", evaluation.trained(explainer))
    assert whole == cache.key("", evaluation.trained(dataclasses.replace(explainer)))
    assert whole != cache.key("", evaluation.trained(explainer, refine=8))
    preprocessing = dataclasses.replace(predictor.preprocessing, mean=(0.0, 0.0, 0.0))
    special = {
        "predictor": dataclasses.replace(predictor, preprocessing=preprocessing),
        "backbone": dataclasses.replace(predictor.config, layer_norm_eps=1e-3),
        "method": "fastshap",
        "unit": "token",
        "removal": "delete",
        "map_head": "wide",
    }
    for field in dataclasses.fields(explainer):
        name = field.name
        value = special[name] if name in special else changed(getattr(explainer, name))
        other = dataclasses.replace(explainer, **{field.name: value})
        assert cache.key("", evaluation.trained(other)) != whole, field.name


def test_options_count_with_their_defaults(predictor):
    """Breaks if a default and the same value given differ, or another value does not."""
    bind = predictors.from_checkpoint(predictor)

    def key(name, **options):
        function = attributions.METHODS[name]
        return cache.key("", evaluation.of_function(name, function, options, bind, {}))

    assert key("rise") == key("rise", keep=0.5)
    assert key("rise") != key("rise", keep=0.4)
    assert key("occlusion") != key("random")


def test_code_counts(tmp_path, monkeypatch):
    """Breaks if an edited method, or what it calls or closes over, is not computed again."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    (tmp_path / "own_helpers.py").write_text("def scale(x):\n    return 2 * x\n")
    source = (
        "import own_helpers\nfrom own_helpers import scale\nFACTOR = 2.0\n"
        "def inner(x):\n    return x\n"
        "def mine(model, inputs, targets, key):\n"
        "    return inner(FACTOR * scale(own_helpers.scale(inputs)))\n"
    )
    (tmp_path / "own_method.py").write_text(source)

    def now() -> str:
        for name in ("own_helpers", "own_method"):
            sys.modules.pop(name, None)
        importlib.invalidate_caches()
        import linecache

        linecache.checkcache()
        return fingerprint.of(importlib.import_module("own_method").mine)

    first = now()
    assert first == now()
    for old, new in (("FACTOR *", "3 *"), ("FACTOR = 2", "FACTOR = 5"), ("return x", "return -x")):
        (tmp_path / "own_method.py").write_text(source.replace(old, new))
        assert now() != first, new
    (tmp_path / "own_method.py").write_text(source)
    assert now() == first
    (tmp_path / "own_helpers.py").write_text("def scale(x):\n    return 4 * x\n")
    assert now() != first


def test_what_is_around_a_function_counts():
    """Breaks if closures, defaults, partials, callable objects or functions at a prompt do not."""

    def make(weight):
        return lambda model, inputs, targets, key: inputs * weight

    class Mine:
        def __init__(self, weight):
            self.weight = weight

        def __call__(self, model, inputs, targets, key):
            return inputs * self.weight

    def at_a_prompt(text):
        names = {}
        exec(text, names)
        return names["mine"]

    line = "def mine(m, x, t, k):\n    return x * {}\n"
    for kind in (
        make,
        Mine,
        lambda w: functools.partial(make, w),
        lambda w: jax.jit(make(w)),
        lambda w: Mine(w).__call__,
        lambda w: at_a_prompt(line.format(w)),
        lambda w: make(np.full(3, w)),
        lambda w: make(jnp.full(3, w)),
    ):
        assert fingerprint.of(kind(1)) == fingerprint.of(kind(1))
        assert fingerprint.of(kind(1)) != fingerprint.of(kind(2))

    def recursive(n):
        return recursive(n - 1)

    assert fingerprint.of(recursive) == fingerprint.of(recursive)


def test_what_cannot_be_known_is_not_kept(predictor):
    """Breaks if a method whose content is hidden is taken for another: it is computed each time."""
    lock = threading.Lock()

    def mine(model, inputs, targets, key):
        with lock:
            return inputs

    method = evaluation.of_function("mine", mine, {}, predictors.from_checkpoint(predictor), {})
    with pytest.warns(UserWarning, match="mine is not kept for another time: a lock has no conten"):
        assert cache.key("", method) is None


def test_values_are_told_apart():
    """Breaks if type, shape, order or the borders between values do not count."""
    values = [
        1, 1.0, True, "1", None, b"1", (1,), [1], [[1]], {"1": 1}, {1: 1}, {"1": "1"}, np.int32(1),
        np.ones(1, np.int32), np.ones(1, np.int64), np.ones((1, 1), np.int32), ("a", "b"), ("ab",),
        ["a", ["b"]], [["a"], "b"], tiny_text.tokenizer(), jax.random.key(1), jnp.bfloat16,
    ]  # fmt: skip
    assert len({fingerprint.of(value) for value in values}) == len(values)
    assert fingerprint.of({"a": 1, "b": 2}) == fingerprint.of({"b": 2, "a": 1})
    assert fingerprint.of(tiny_text.tokenizer()) == fingerprint.of(tiny_text.tokenizer())
    assert fingerprint.of(jnp.ones(3)) == fingerprint.of(np.ones(3, np.float32))


def test_finished_methods_are_kept_under_their_key(tmp_path):
    """Breaks if an interrupted comparison starts anew, or takes results of another experiment."""
    scores = evaluation.Scores(np.ones((3, 4)), np.zeros((1, 2, 4)), {"predictions": 1.5})
    path = tmp_path / "methods" / "rise.npz"
    assert cache.load(path, "a") is None
    cache.save(path, "a", scores, {"mass": np.array([0.5])})
    again, found = cache.load(path, "a")
    np.testing.assert_array_equal(again.targets, scores.targets)
    np.testing.assert_array_equal(again.pairs, scores.pairs)
    assert again.cost == scores.cost and found["mass"] == 0.5
    assert cache.load(path, "b") is None
    assert [file.name for file in path.parent.iterdir()] == ["rise.npz"]


def test_a_damaged_file_is_computed_again_with_a_word(tmp_path):
    """Breaks if half a file, a foreign one or flipped bits end in a traceback or in a number."""
    path = tmp_path / "rise.npz"
    cache.save(path, "a", evaluation.Scores(np.random.rand(50, 40), None, {}), {"x": np.ones(9)})
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 255
    for content in (whole[: len(whole) // 2], b"", b"PK\x03\x04 no", bytes(flipped)):
        path.write_bytes(content)
        with pytest.warns(UserWarning, match="rise.npz is damaged .*: it is computed again"):
            assert cache.load(path, "a") is None
    np.savez(path, key="a", other=np.ones(3))
    with pytest.warns(UserWarning, match="is damaged"):
        assert cache.load(path, "a") is None
    np.save(tmp_path / "one.npy", np.ones(3))
    (tmp_path / "one.npy").rename(path)
    with pytest.warns(UserWarning, match="is damaged"):
        assert cache.load(path, "a") is None
