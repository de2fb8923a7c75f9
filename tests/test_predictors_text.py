"""A text classifier as training and attributions see it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fex_jax import contrast, ppo, predictors, tokens, updates
from fex_jax.models.policy import functional_policy
from tests import tiny_text
from tests.conftest import random_params

TEXTS = ["the film was not funny !", "great"]


def _inputs(unit="token", length=12):
    tokenizer = tiny_text.tokenizer()
    return tokens.collate(tokenizer(TEXTS, unit), length, tokenizer)


def _model(family="bert", mask_id=4):
    checkpoint = tiny_text.checkpoint(family)
    return predictors.bert(checkpoint.config, checkpoint.params, 12, mask_id)


@pytest.mark.parametrize("family", ["bert", "distilbert", "roberta"])
def test_embeddings_give_the_same_logits(family):
    """Breaks if gradients on embeddings see another network than the one that is explained."""
    model, inputs = _model(family), _inputs()
    x = model.embed(inputs)
    assert x.shape == (2, 12, 16)
    probabilities = model.predict(inputs)
    np.testing.assert_allclose(probabilities.sum(-1), 1, rtol=1e-5)
    np.testing.assert_allclose(
        jax.nn.softmax(model.logits(x, inputs)), probabilities, rtol=1e-5, atol=1e-6
    )


def test_embeddings_of_what_is_deleted_are_zero():
    """Breaks if deleting words does not move x, from where no gradient's path would begin."""
    model, inputs = _model(mask_id=None), _inputs()
    deleted = model.mask(inputs, jnp.tile(jnp.arange(12) < 2, (2, 1)))
    x = model.embed(deleted)
    np.testing.assert_array_equal((x != 0).any(-1), deleted.attention)
    assert deleted.attention.sum() < inputs.attention.sum() < inputs.attention.size
    np.testing.assert_allclose(
        jax.nn.softmax(model.logits(x, deleted)), model.predict(deleted), rtol=1e-5, atol=1e-6
    )


def test_padding_and_length_change_nothing():
    """Breaks if padding is attended to: a text must not depend on the bucket it falls into."""
    checkpoint = tiny_text.checkpoint("roberta")
    short, long = (
        predictors.bert(checkpoint.config, checkpoint.params, length, 4).predict(_inputs("word", n))
        for length, n in ((9, 9), (32, 32))
    )
    np.testing.assert_allclose(short, long, atol=1e-6)


@pytest.mark.parametrize("mask_id", [4, None])
def test_removing_all_features_leaves_a_text_of_masks(mask_id):
    """Breaks if CLS or SEP are removed, or features of a short text beyond its end matter."""
    model, inputs = _model(mask_id=mask_id), _inputs()
    masks = jnp.zeros((2, 12), bool)
    blank = model.mask(inputs, masks)
    if mask_id is None:
        np.testing.assert_array_equal(blank.attention.sum(-1), 2)
        np.testing.assert_array_equal(blank.ids, inputs.ids)
    else:
        np.testing.assert_array_equal(blank.ids[1][:4], [2, 4, 3, 0])
        np.testing.assert_array_equal(blank.attention, inputs.attention)
    beyond = masks.at[1, 1:].set(True)
    np.testing.assert_array_equal(model.predict(model.mask(inputs, beyond))[1],
                                  model.predict(blank)[1])  # fmt: skip
    assert np.abs(model.predict(inputs) - model.predict(blank)).max() > 1e-4


def test_values_of_tokens_become_values_of_features():
    """Breaks if a word loses a piece, or CLS, SEP and padding count for a feature."""
    model, inputs = _model(), _inputs("word")
    # [CLS] the film was not fun ##ny ! [SEP]: "funny" is feature 4, "!" feature 5.
    values = jnp.tile(jnp.arange(12.0), (2, 1))
    np.testing.assert_array_equal(
        model.tokens(values, inputs),
        [[1, 2, 3, 4, 5 + 6, 7, 0, 0, 0, 0, 0, 0], [1] + [0] * 11],
    )
    x = jnp.tile(values[..., None], (1, 1, 16))
    np.testing.assert_array_equal(model.pool(x, inputs), 16 * model.tokens(values, inputs))
    np.testing.assert_array_equal(model.valid(inputs).sum(-1), [6, 1])


def test_taps_see_and_replace():
    """Breaks if attention weights cannot be read, or what a tap returns is ignored."""
    model, inputs = _model(), _inputs()
    seen = []

    def tap(name, value):
        seen.append((name, value.shape))
        return value * 0 if name == "norm1" else value

    changed = model.network(inputs, tap)
    expected = [("hidden", (2, 12, 16)), ("norm1", (2, 12, 16)), ("attention", (2, 2, 12, 12))]
    assert seen == expected + [("output", (2, 12, 16))]
    assert np.abs(changed - model.network(inputs)).max() > 1e-3
    weights = []
    model.network(inputs, lambda name, x: weights.append(x) or x if name == "attention" else x)
    np.testing.assert_allclose(weights[0].sum(-1), 1, rtol=1e-5)
    assert float(weights[0][1, :, :, 3:].max()) == 0  # "great" is 3 tokens, the rest padding


def test_too_long_a_batch_is_refused():
    """Breaks if positions beyond the table silently repeat its last row."""
    with pytest.raises(ValueError, match="40 tokens is longer than the model's window of 32"):
        _model().predict(_inputs(length=40))


@pytest.mark.parametrize("unit", ["token", "word"])
def test_an_explainer_is_trained_on_texts(unit):
    """Breaks if text needs anything of training but predict, mask and policy."""
    checkpoint = tiny_text.checkpoint()
    model = predictors.bert(checkpoint.config, checkpoint.params, 12, checkpoint.tokenizer.mask_id)
    init, bind = functional_policy(checkpoint.config, 2)
    params = random_params(init) | {"backbone": checkpoint.params["backbone"]}
    optimizer = optax.sgd(1e-2)
    state = updates.TrainState(params, optimizer.init(params), jnp.zeros((), jnp.int32))
    step = functools.partial(
        contrast.train_step, read=lambda params, x: None, optimizer=optimizer,
        policy=lambda params, pair, y: ppo.PolicyOutput(*bind(params)(pair[0], y)),
        objective=contrast.Objective(num_masks=4, num_updates=2),
    )  # fmt: skip
    inputs = jax.tree.map(lambda x: np.tile(x, (2, 1)), _inputs(unit))
    compiled = jax.jit(lambda state, x: step(state, model, x, jax.random.key(0)))
    after, metrics = compiled(state, inputs)
    assert all(np.isfinite(value) for value in metrics.values())
    assert metrics["policy/num_features"] == {"token": 4.0, "word": 3.5}[unit]
    assert metrics["policy/kept_features"] <= metrics["policy/num_features"]
    words = [p["backbone"]["word_embedding"] for p in (state.params, after.params)]
    moved = np.abs(np.subtract(*words)).max(-1) > 0
    assert moved[np.unique(inputs.ids[inputs.attention])].all()
