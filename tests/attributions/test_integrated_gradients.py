"""Integrated Gradients: completeness, the quadrature and bounded memory."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fex_jax.attributions.integrated_gradients import integrated_gradients
from tests.attributions.white_box import KEY, perceptron, rows, targets, texts, tiny_bert


@pytest.fixture(scope="module")
def model():
    """One hidden layer; on a ViT, see `test_white_box`."""
    return perceptron()


@pytest.mark.parametrize("output", ["probability", "logit", "log_probability"])
def test_completeness(model, output):
    """Breaks if the scores do not sum to f_y(x) − f_y(x′), as the axiom demands."""
    x, y, baseline = rows(), targets(), rows(3)[2]
    f = {
        "probability": jax.nn.softmax,
        "logit": lambda logits: logits,
        "log_probability": jax.nn.log_softmax,
    }[output]
    scores = jax.jit(
        lambda x, y: integrated_gradients(
            model, x, y, KEY, steps=32, baseline=baseline, output=output, chunk=8
        )
    )(x, y)
    outputs = jax.jit(lambda x: f(model.logits(x, x)))(jnp.concatenate([x, baseline[None]]))
    expected = outputs[np.arange(2), y] - outputs[2, y]
    np.testing.assert_allclose(scores.sum(1), expected, atol=1e-5)


def test_path_begins_where_no_feature_is(model):
    """Breaks if the default baseline is zero where removed features become something else."""
    filled = dataclasses.replace(model, mask=lambda x, m: jnp.where(m[..., None], x, 0.3))
    default, given = jax.jit(
        lambda x, y: [
            integrated_gradients(filled, x, y, KEY, steps=3, baseline=baseline)
            for baseline in (None, 0.3)
        ]
    )(rows(), targets())
    np.testing.assert_allclose(default, given, atol=1e-6)


@pytest.mark.parametrize("mask_id", [4, None])
def test_path_of_a_text(mask_id):
    """Breaks if scores do not sum to f(x) − f([MASK] …), or are 0 where words are deleted."""
    model = tiny_bert(12, mask_id)

    def run(x, y):
        start = jax.nn.softmax(model.logits(model.embed(model.blank(x)), x))
        scores = integrated_gradients(model, x, y, KEY, steps=24, chunk=8)
        return scores, model.predict(x) - start, model.predict(model.blank(x)) - start

    scores, gain, error = jax.jit(run)(texts(), np.array([0, 1]))
    np.testing.assert_allclose(scores.sum(1), gain[np.arange(2), [0, 1]], atol=1e-6)
    assert (np.abs(gain) > 1e-5).all()
    if mask_id is not None:
        np.testing.assert_allclose(error, 0, atol=1e-6)


def test_chunk_changes_nothing(model):
    """Breaks if a step is lost, or one that does not exist is counted, where a chunk ends."""
    x, y = rows(3), targets(3)
    expected, *scores = jax.jit(
        lambda x, y: [
            integrated_gradients(model, x, y, KEY, steps=5, chunk=chunk)
            for chunk in (None, 1, 2, 4, 15, 100)
        ]
    )(x, y)
    for actual in scores:
        np.testing.assert_allclose(actual, expected, atol=1e-6)


def test_memory_is_bounded_by_the_chunk(model):
    """Breaks if gradients of many steps are in memory together."""

    def size(steps, chunk):  # in bytes
        score = jax.jit(
            lambda x, y: integrated_gradients(model, x, y, KEY, steps=steps, chunk=chunk)
        )
        compiled = score.lower(rows(), targets()).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    # A step is a number, and one gradient is 36 of them.
    assert size(512, 2) - size(4, 2) < 512 * 16
    assert size(512, 64) > 4 * size(512, 2)


def test_pixels(model):
    """Breaks if scores cannot be had per number, as a map of pixels, by a `pool` that sums less."""
    pixels = dataclasses.replace(model, pool=lambda values, _: values)
    scores, maps = jax.jit(
        lambda x, y: [integrated_gradients(m, x, y, KEY, steps=3) for m in (model, pixels)]
    )(rows(), targets())
    assert maps.shape == (2, 12, 3)
    np.testing.assert_allclose(maps.sum(-1), scores, atol=1e-6)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"steps": 0}, "steps must be at least 1"),
        ({"steps": 10**12}, "steps must be at most 1,073,741,824"),
        ({"chunk": 0}, "chunk must be at least 1"),
        ({"output": "odds"}, "probability, logit, log_probability"),
    ],
)
def test_option_errors(model, options, message):
    """Breaks if an option that cannot work fails somewhere inside JAX."""
    with pytest.raises(ValueError, match=message):
        integrated_gradients(model, rows(), targets(), KEY, **options)
