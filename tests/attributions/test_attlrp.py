"""AttLRP: each rule conserves relevance, and a slow NumPy computation gives the same scores."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fex_jax.attributions.attlrp import _block, _head, _linear, _product, _sum, attlrp
from fex_jax.attributions.gradients import tapped
from fex_jax.models import shapes
from fex_jax.models.bert import BertClassifier, BertConfig
from fex_jax.models.vit import ViTClassifier, ViTConfig
from fex_jax.predictors import bert
from fex_jax.predictors import image as vit
from fex_jax.token_batch import TokenBatch
from tests.attributions.slow_attlrp import TEXT_FAMILIES, slow_attlrp, slow_words
from tests.attributions.white_box import FAMILIES, KEY, checkpoint, images, in_torch, targets
from tests.conftest import random_like

CONFIG = ViTConfig(
    family="vit", image_size=8, patch_size=4, num_classes=10, hidden_size=6, num_layers=3,
    num_heads=2, mlp_dim=12,
)  # fmt: skip
TEXT_CONFIG = BertConfig(
    family="bert", vocab_size=9, num_classes=10, hidden_size=6, num_layers=3, num_heads=2,
    mlp_dim=12, max_positions=8,
)  # fmt: skip
# Six tokens, the second and third of them one word; and five of which padding follows.
TEXTS = TokenBatch(
    ids=np.array([[1, 3, 4, 5, 6, 2, 0], [1, 7, 8, 3, 2, 0, 0]]),
    attention=np.arange(7) < np.array([[6], [5]]),
    features=np.array([[-1, 0, 0, 1, 2, -1, -1], [-1, 0, 1, 2, -1, -1, -1]]),
)


def classifier(family, **changes):
    """(Model, config, random parameters, two images of 8 × 8 pixels or two texts)."""
    if family in TEXT_FAMILIES:
        changes |= TEXT_FAMILIES[family]
        config = dataclasses.replace(TEXT_CONFIG, family=family, **changes)
        params = random_like(shapes(BertClassifier, config))
        return bert(config, params, 7, mask_id=8), config, params, TEXTS
    config = dataclasses.replace(CONFIG, family=family, **changes)
    params = random_like(shapes(ViTClassifier, config))
    images = np.random.default_rng(3).normal(size=(2, 8, 8, 3)).astype(np.float32)
    return vit(config, params), config, params, images


def normal(*shape):
    """Float32 numbers, and the same ones for a shape."""
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)


# --- Conservation ------------------------------------------------------------------------------


def test_linear_rule_conserves():
    """Breaks if a linear layer, with inputs and weights of both signs, makes or loses relevance."""
    relevance = normal(2, 5, 7)
    shares = _linear(normal(40, 7), normal(2, 5, 40), relevance)
    np.testing.assert_allclose(shares.sum((1, 2)), relevance.sum((1, 2)), rtol=1e-4)


def test_product_rule_conserves():
    """Breaks if the two factors of a product do not take one half each."""
    u, v, relevance = np.abs(normal(2, 5, 6)), normal(2, 6, 7), normal(2, 5, 7)
    for share in _product(u, v, relevance):
        np.testing.assert_allclose(share.sum((1, 2)), relevance.sum((1, 2)) / 2, rtol=1e-3)


def test_sum_rule_conserves():
    """Breaks if a residual sum loses relevance, or an image's share depends on its neighbours."""
    u, v, relevance = normal(3, 5, 6), normal(3, 6, 5).reshape(3, 5, 6), normal(3, 30)
    relevance = relevance.reshape(3, 5, 6)
    shares = _sum(u, v, relevance)
    total = sum(share.sum((1, 2)) for share in shares)
    np.testing.assert_allclose(total, relevance.sum((1, 2)), rtol=1e-4)
    alone = _sum(u[:1], v[:1], relevance[:1])
    for share, one in zip(shares, alone, strict=True):
        np.testing.assert_allclose(share[:1], one, rtol=1e-5)


@pytest.mark.parametrize("family", [*FAMILIES, *TEXT_FAMILIES])
def test_walk_conserves(family):
    """Breaks if a branch is left out on the way from the logit to the first block's input."""
    # Wide enough for each output of a layer to have positive contributions.
    model, _, _, inputs = classifier(family, hidden_size=48, mlp_dim=96, num_layers=2)

    @jax.jit
    def totals(inputs, targets):
        backbone = model.network.backbone
        relevance = _head(model.network, backbone(inputs), targets)
        found = [relevance.sum((1, 2))]
        seen = tapped(model, inputs, "hidden", "attention")
        walk = zip(backbone.blocks, seen["hidden"], seen["attention"], strict=True)
        for block, hidden, weights in reversed(list(walk)):
            relevance, _ = _block(block, hidden, weights, relevance)
            found.append(relevance.sum((1, 2)))
        return jnp.stack(found), relevance

    found, relevance = totals(inputs, targets())
    np.testing.assert_allclose(found, 1, atol=2e-4)
    if family in TEXT_FAMILIES:  # padding takes no share
        assert not relevance[~inputs.attention].any()


# --- A slow, separate computation, in NumPy and float64 ------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_equals_slow_computation(family):
    """Breaks if a rule, a branch, a head or the order of the blocks differs from the paper's."""
    model, config, params, images = classifier(family)
    scores = jax.jit(lambda x, y: attlrp(model, x, y, KEY))(images, targets())
    for actual, image, target in zip(scores, images, targets(), strict=True):
        expected = slow_attlrp(config, params, image, target)[config.num_prefix_tokens :]
        np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-6 * expected.max())


def test_two_heads_share_the_relevance():
    """Breaks if one of the heads of a DeiT with teacher is left out, or counts twice."""
    model, config, params, images = classifier("deit", distilled=True, num_layers=1)
    scores = jax.jit(lambda x, y: attlrp(model, x, y, KEY))(images[:1], targets()[:1])
    expected = slow_attlrp(config, params, images[0], targets()[0])[config.num_prefix_tokens :]
    np.testing.assert_allclose(scores[0], expected, rtol=0, atol=1e-6 * expected.max())


@pytest.mark.parametrize("family", TEXT_FAMILIES)
def test_equals_slow_computation_of_texts_without_padding(family):
    """Breaks if a rule differs in a family, a word loses a piece, or padding has influence."""
    model, config, params, texts = classifier(family)
    scores = np.asarray(jax.jit(lambda x, y: attlrp(model, x, y, KEY))(texts, targets()))
    for row, (actual, target) in enumerate(zip(scores, targets(), strict=True)):
        expected = slow_words(config, params, texts, row, target)
        np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-6 * expected.max())
        assert not actual[3:].any() and (actual[:3] > 0).any()


# --- Rounding, which divisions by sums near zero magnify from block to block --------------------


def test_twelve_blocks_equal_torch_in_float64():
    """Breaks if anything on the way is float32: errors are then up to .01 of the map's maximum."""
    for package in ("torch", "transformers", "captum"):
        pytest.importorskip(package)
    from tests.attributions import torch_reference

    one = checkpoint("dinov2", num_layers=12, hidden_size=48, num_heads=4, mlp_dim=96)
    model, x, y = vit(one.config, one.params), images(), targets()
    expected = torch_reference.attlrp(in_torch(one), x, y)
    scores = np.asarray(jax.jit(lambda x, y: attlrp(model, x, y, KEY))(x, y))
    assert scores.dtype == np.float32
    np.testing.assert_array_equal(scores.argsort(-1), expected.argsort(-1))
    scale = expected.max(-1, keepdims=True)
    np.testing.assert_allclose(scores / scale, expected / scale, rtol=0, atol=1e-6)


def test_no_setting_changes_the_map():
    """Breaks under `jax_enable_x64`, or if products run in the type that queries run in."""
    model, config, params, x = classifier("vit")
    expected = jax.jit(lambda x, y: attlrp(model, x, y, KEY))(x, targets())
    half = vit(config, params, dtype=jnp.bfloat16)
    # flax's LayerNorm asks what bfloat16 and float32 have in common, which "strict" forbids.
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        scores = jax.jit(lambda x, y: attlrp(half, x, y, KEY))(x, targets())
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-6 * expected.max())


# --- What it cannot do ---------------------------------------------------------------------------


def test_swiglu_is_an_error():
    """Breaks if a gated MLP gets the relevance of a plain one."""
    model, _, _, images = classifier("dinov2", swiglu=True)
    with pytest.raises(ValueError, match="SwiGLU"):
        attlrp(model, images, targets(), KEY)


def test_other_network_is_an_error():
    """Breaks if another classifier fails at a missing attribute."""
    model, _, _, images = classifier("vit")
    model = dataclasses.replace(model, network=lambda inputs, tap: inputs)
    with pytest.raises(ValueError, match="ViTClassifier and BertClassifier only"):
        attlrp(model, images, targets(), KEY)
