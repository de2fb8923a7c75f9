"""The door: every method takes what users hand it, refuses what cannot be meant, compiles once."""

import dataclasses
import gc
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fex_jax import attributions
from fex_jax.refine import refine_scores
from tests.attributions.white_box import KEY, images, perceptron, rows, targets, tiny

SMALL = {
    "rise": {"num_queries": 8},
    "smooth_rise": {"num_queries": 8, "cells": 3},
    "lime": {"num_queries": 8},
    "kernel_shap": {"num_queries": 12},
    "integrated_gradients": {"steps": 3},
    "grad_shap": {"samples": 3},
    "smooth_grad": {"samples": 3},
    "empirical": {"num_queries": 12},
}
# One of each kind of inner loop: queries, a regression, gradients, taps.
SOME = ("occlusion", "kernel_shap", "grad_shap", "rollout")
INSIDE = ("gradcam_attention", "gradcam_norm1", "rollout", "attcat", "attlrp")


def run(name, model, x, y, key=KEY, **options):
    return attributions.METHODS[name](model, x, y, key, **SMALL.get(name, {}) | options)


@pytest.fixture(scope="module")
def model():
    return dataclasses.replace(tiny("vit"))


@pytest.mark.parametrize(
    "name", sorted(attributions.METHODS.keys() - attributions.CONVOLUTIONS_ONLY)
)
def test_numpy_and_64_bits_give_the_map_of_32(name, model):
    """Breaks if a NumPy array, an array of 64 bits or jax_enable_x64 fails or changes a map."""
    x, y = images(), targets()
    if name not in SOME + INSIDE:  # they take any model, and a ViT compiles for long
        model, x = perceptron(4, 4), rows(2, 4, 4)
    found = run(name, model, x, y)
    assert found.dtype == jnp.float32 and np.ptp(found) > 0
    with jax.enable_x64(True):
        again = run(name, model, jnp.asarray(x, jnp.float64), jnp.asarray(y, jnp.int64))
        assert again.dtype == jnp.float32
        np.testing.assert_array_equal(again, found)


@pytest.mark.parametrize("name", SOME)
def test_inside_jit_under_x64(name, model):
    """Breaks if a caller's own program, traced with jax_enable_x64, draws or computes otherwise."""
    x, y = images(), targets()
    expected = run(name, model, x, y)
    with jax.enable_x64(True):
        found = jax.jit(lambda x, y, key: run(name, model, x, y, key))(x.astype(np.float64), y, KEY)
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("name", [*SOME, "lime"])
def test_inside_vmap(name, model):
    """Breaks if a caller who maps over inputs, or over classes, gets other maps than of a batch."""
    x, y = jnp.asarray(images()), jnp.asarray(targets())
    expected = np.asarray(run(name, model, x, y))
    bound = 1e-4 * np.abs(expected).max()
    each = jax.vmap(lambda x, y: run(name, model, x[None], y[None])[0])(x, y)
    np.testing.assert_allclose(each, expected, atol=bound)
    classes = jax.vmap(lambda y: run(name, model, x, y))(jnp.stack([y + 1, y]))
    np.testing.assert_allclose(classes[1], expected, atol=bound)


@pytest.mark.parametrize("name", ["occlusion", "kernel_shap", "gradient_x_input"])
def test_maps_have_gradients(name):
    """Breaks if what a caller differentiates is cut, or NaN: beside a difference quotient."""
    one, x, y = perceptron(), jnp.asarray(rows(1)), targets(1)

    def first(x):
        return run(name, one, x, y)[0, 0]

    slopes = np.asarray(jax.grad(first)(x))
    place = np.unravel_index(np.abs(slopes).argmax(), x.shape)
    step = jnp.zeros_like(x).at[place].set(1e-2)
    assert abs(slopes[place]) > 1e-3
    quotient = float(first(x + step) - first(x - step)) / 2e-2
    assert slopes[place] == pytest.approx(quotient, rel=0.05)


@pytest.mark.parametrize("name", ["random", "rise", "lime", "kernel_shap", "grad_shap"])
def test_an_input_does_not_depend_on_its_neighbours(name):
    """Breaks if one key draws other numbers for an input first, last or alone; cases/19."""
    one, x, y = perceptron(), rows(3), targets(3)
    together = np.asarray(run(name, one, x, y))
    scale = np.abs(together).max()
    turned = run(name, one, x[::-1], y[::-1])[::-1]
    np.testing.assert_allclose(turned, together, atol=1e-4 * scale)
    np.testing.assert_allclose(run(name, one, x[1:2], y[1:2])[0], together[1], atol=1e-4 * scale)


@pytest.mark.parametrize("name", ["random", "rise", "kernel_shap", "grad_shap"])
def test_keys_of_their_own(name):
    """Breaks if B keys are not one for each input: equal inputs then share their errors."""
    one, x, y = perceptron(), np.repeat(rows(1), 3, 0), np.array([1, 1, 1])
    keys = jax.random.split(KEY, 3)
    found = np.asarray(run(name, one, x, y, keys))
    assert np.abs(found[0] - found[1]).max() > 1e-4
    alone = run(name, one, x[:1], y[:1], keys[2])
    np.testing.assert_allclose(alone[0], found[2], atol=1e-4 * np.abs(found).max())


def test_old_keys_are_keys():
    """Breaks if jax.random.PRNGKey, uint32 [2], is not the same as jax.random.key."""
    found = [
        run("rise", perceptron(), rows(), targets(), key) for key in (KEY, jax.random.PRNGKey(0))
    ]
    np.testing.assert_array_equal(*found)


def test_compiles_once():
    """Breaks if a call outside jit traces again, or another shape takes an old program."""
    traced, one = [], perceptron()

    def predict(x):
        traced.append(x.shape)
        return one.predict(x)

    model = dataclasses.replace(one, predict=predict)
    first = run("rise", model, rows(), targets())
    count = len(traced)
    again = run("rise", model, rows(), targets(), num_queries=np.int64(8))
    np.testing.assert_array_equal(again, first)
    assert len(traced) == count
    assert np.abs(run("rise", model, rows(), targets(), num_queries=9) - first).max() > 0
    assert run("rise", model, rows(3), targets(3)).shape == (3, 12)
    assert len(traced) > count
    # Options that are arrays are arguments: other values, the same program.
    maps = [
        run("integrated_gradients", model, rows(), targets(), baseline=np.float32(b))
        for b in (0, 1)
    ]
    assert np.abs(maps[0] - maps[1]).max() > 0


def test_programs_go_with_their_model():
    """Breaks if compiled programs keep the parameters of every model that was ever explained."""
    model = perceptron()
    run("rise", model, rows(), targets())
    gone = weakref.ref(model.predict)
    del model
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize("name", ["occlusion", "integrated_gradients", "kernel_shap"])
@pytest.mark.parametrize(
    "wrong, message",
    [
        (np.array([5, 0]), "class 5 is out of range; expected 0 to 4"),
        (np.array([0, -1]), "class -1 is out of range"),
        (np.array([2**33, 0]), "out of range"),
        (np.array([0.0, 1.0]), "integers"),
        (np.array([True, False]), "integers"),
        (np.array([0, 1, 2]), r"\[2\]"),
        (3, r"\[2\]"),
        (["a", "b"], "integers"),
    ],
)
def test_targets_that_are_no_classes(name, wrong, message):
    """Breaks if such targets give NaN, zeros or the map of the last class."""
    with pytest.raises(ValueError, match=message):
        run(name, perceptron(), rows(), wrong)


def test_inside_jit_such_a_map_is_nan():
    """Breaks if a class out of range, whose value is not known there, gets another's map."""
    model = perceptron()
    score = jax.jit(lambda x, y: run("occlusion", model, x, y))
    found = score(rows(3), np.array([5, 0, -1]))
    np.testing.assert_array_equal(np.isnan(found).all(-1), [True, False, True])
    with pytest.raises(ValueError, match="class 9"):  # known while tracing
        jax.jit(lambda x: run("occlusion", model, x, np.array([9, 0])))(rows())
    known = {"baseline": jnp.zeros(3), "steps": 1}  # a JAX array that is no part of the program
    score = jax.jit(lambda x: run("integrated_gradients", model, x, jnp.array([1, 0]), **known))
    assert np.isfinite(score(rows())).all()


@pytest.mark.parametrize(
    "name, options, message",
    [
        *[
            (name, {option: value}, f"{option} must be {rule}")
            for name, option in (
                ("rise", "num_queries"), ("smooth_rise", "cells"), ("lime", "num_queries"),
                ("kernel_shap", "num_queries"), ("integrated_gradients", "steps"),
                ("grad_shap", "samples"), ("occlusion", "chunk"), ("greedy", "chunk"),
                ("gradient_x_input", "chunk"),
            )
            for value, rule in (
                (0, "at least 1, got 0"), (-3, "at least 1, got -3"),
                (2.5, "a whole number"), (True, "a whole number"), ("9", "a whole number"),
            )
        ],
        ("rise", {"keep": 0}, "keep must be between 0 and 1"),
        ("rise", {"keep": 1.0}, "keep must be between 0 and 1"),
        ("smooth_rise", {"keep": np.nan}, "keep must be between 0 and 1"),
        ("smooth_rise", {"fill": np.inf}, "fill must be a number"),
        ("lime", {"kernel_width": 0.0}, "kernel_width must be a number above 0"),
        ("lime", {"kernel_width": None}, "kernel_width must be a number above 0"),
        ("lime", {"ridge": -1e-9}, "ridge must be a number from 0 on"),
        ("grad_shap", {"std": -0.1}, "std must be a number from 0 on"),
        ("integrated_gradients", {"baseline": np.zeros(5)}, r"baseline has shape \(5,\)"),
        ("integrated_gradients", {"baseline": np.nan}, "baseline: NaN"),
        ("integrated_gradients", {"output": "odds"}, "probability, logit, log_probability"),
    ],
)  # fmt: skip
def test_options_that_cannot_be_meant(name, options, message):
    """Breaks if such an option gives a map, or an error from deep inside; cases/25."""
    with pytest.raises(ValueError, match=message):
        run(name, perceptron(), rows(), targets(), **options)


def test_options_that_are_not_there():
    """Breaks if a misspelt option does not say which there are."""
    with pytest.raises(TypeError, match="rise: .*'queries'; it takes .*num_queries, keep, chunk"):
        run("rise", perceptron(), rows(), targets(), queries=3)


@pytest.mark.parametrize(
    "x, key, message",
    [
        (np.zeros((0, 12, 3), np.float32), KEY, "B at least 1"),
        (np.float32(1), KEY, r"expected a batch"),
        (rows()[..., :2], KEY, r"float32\[2, 12, 2\], which the model does not take"),
        (np.full((2, 12, 3), np.nan), KEY, "inputs: NaN or infinite"),
        (np.full((2, 12, 3), 1e300), KEY, "inputs: NaN or infinite numbers, or too large"),
        (np.zeros((2, 12, 3), np.uint8), KEY, "the model takes floats"),
        (np.full((2, 12, 3), "a"), KEY, "dtype <U1; expected an array of numbers"),
        (rows(), 0, "key is int; expected jax.random.key"),
        (rows(), None, "key is NoneType; expected jax.random.key"),
        (rows(), jax.random.split(KEY, 3), r"key has shape \(3,\); expected one key, or 2"),
    ],
)
@pytest.mark.filterwarnings("ignore:overflow")
def test_inputs_and_keys_that_do_not_fit(x, key, message):
    """Breaks if such arrays fail deep inside, or give a map of something else."""
    # The model itself lets uint8 meet float32.
    with jax.numpy_dtype_promotion("standard"), pytest.raises(ValueError, match=message):
        run("rise", perceptron(), x, targets(), key)


def test_a_list_is_one_array():
    """Breaks if nested lists are a pytree of thousands of numbers, each an array of its own."""
    model, x = perceptron(), rows()
    np.testing.assert_array_equal(
        run("occlusion", model, x.tolist(), targets()), run("occlusion", model, x, targets())
    )
    with pytest.raises(ValueError, match="inputs: .*inhomogeneous"):
        run("occlusion", model, [[1.0], [2.0, 3.0]], targets())


def test_answers_that_are_not_finite():
    """Breaks if a model that answers NaN gets a map all the same."""
    model = dataclasses.replace(perceptron(), predict=lambda x: jnp.full((len(x), 5), jnp.nan))
    with pytest.raises(ValueError, match="occlusion gave NaN"):
        run("occlusion", model, rows(), targets())


def test_refining_has_the_same_door():
    """Breaks if refine_scores takes scores or targets that its neighbours refuse."""
    model, x, y, s = perceptron(), rows(), targets(), np.zeros((2, 12))
    assert refine_scores(model, x, y, s, KEY, num_queries=8).shape == (2, 12)
    with pytest.raises(ValueError, match="class 7"):
        refine_scores(model, x, np.array([7, 0]), s, KEY, num_queries=8)
    with pytest.raises(ValueError, match=r"scores have shape \(2, 5\); expected \(2, 12\)"):
        refine_scores(model, x, y, s[:, :5], KEY, num_queries=8)
    with pytest.raises(ValueError, match="scores: NaN"):
        refine_scores(model, x, y, s + np.nan, KEY, num_queries=8)


@pytest.mark.parametrize(
    "name", ["rise", "smooth_rise", "lime", "kernel_shap", "integrated_gradients", "grad_shap"]
)
def test_memory_does_not_grow_with_queries(name):
    """Breaks if masks or gradients of all queries are in memory together.

    What may grow is what f answered, and each query's number, 4 bytes each.
    """
    option = {"integrated_gradients": "steps", "grad_shap": "samples"}.get(name, "num_queries")
    model, batch = perceptron(4, 4), 4

    def size(count):  # in bytes
        def score(x, y, key):
            return run(name, model, x, y, key, **{option: count, "chunk": 8})

        compiled = jax.jit(score).lower(rows(batch, 4, 4), targets(batch), KEY).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert size(1000) - size(200) < 800 * batch * 16
