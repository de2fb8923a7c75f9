"""AttLRP: each rule conserves relevance, and a slow NumPy computation gives the same scores."""

import dataclasses
from math import erf

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
TEXT_FAMILIES = {"bert": {}, "distilbert": {"num_types": 0}, "roberta": {}}
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
        params = random_like(shapes(lambda rngs: BertClassifier(config, rngs=rngs)))
        return bert(config, params, 7, mask_id=8), config, params, TEXTS
    config = dataclasses.replace(CONFIG, family=family, **changes)
    params = random_like(shapes(lambda rngs: ViTClassifier(config, rngs=rngs)))
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


def slow_attlrp(config, params, one, target):
    """Of one image or of one text's ids: what CLS reads of each token, [T].

    Gradients are by finite differences, each rule is from its contributions.
    """
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    blocks = config.num_layers
    seen = forward(config, params, one)
    shape = seen["weights"][0].shape
    gradients = []
    for number in range(blocks):
        gradient = np.zeros(shape)
        for place in np.ndindex(shape):
            shift = np.zeros(shape)
            shift[place] = 1e-5
            up, down = (
                forward(config, params, one, {number: sign * shift})["logits"][target]
                for sign in (1, -1)
            )
            gradient[place] = (up - down) / 2e-5
        gradients.append(gradient)

    tokens, relevance = seen["normed"], np.zeros_like(seen["normed"])
    if config.family in TEXT_FAMILIES:
        head = params["head"]
        of_logits = np.eye(config.num_classes)[target : target + 1]
        of_pooled = slow_linear(seen["pooled"][None], head["out"]["kernel"], of_logits)
        relevance[:1] = slow_linear(tokens[:1], head["dense"]["kernel"], of_pooled)
    else:
        # The head, as one linear map of all the tokens that it reads.
        kernel, weights = params["head"]["kernel"][:, target], np.zeros_like(tokens)
        weights[0] = kernel[: config.hidden_size]
        if config.family == "dinov2":
            weights[1:] = kernel[config.hidden_size :] / config.num_patches
        relevance = np.maximum(weights * tokens, 0)
        relevance /= relevance.sum()

    rolled = np.eye(len(tokens))
    for number in reversed(range(blocks)):
        layer = params["backbone"]["blocks"][str(number)]
        get = {name: seen[name][number] for name in seen if isinstance(seen[name], list)}
        first, second = slow_sum(get["middle"], get["update2"], relevance)
        second = slow_linear(get["hidden"], layer["mlp"]["fc2"]["kernel"], second)
        second = slow_linear(get["normed2"], layer["mlp"]["fc1"]["kernel"], second)
        first, second = slow_sum(get["tokens"], get["update"], first + second)
        second = slow_linear(get["mixed"], layer["attention"]["out"]["kernel"], second)
        size = config.hidden_size // config.num_heads
        of = {name: np.zeros_like(second) for name in ("query", "key", "value")}
        of_weights = np.zeros(shape)
        for head in range(config.num_heads):
            columns = slice(head * size, (head + 1) * size)
            query, key, value = (get[name][:, columns] for name in ("query", "key", "value"))
            of_weights[head], of["value"][:, columns] = slow_product(
                get["weights"][head], value, second[:, columns]
            )
            of["query"][:, columns], of_key = slow_product(query, key.T, of_weights[head])
            of["key"][:, columns] = of_key.T
        relevance = first + sum(
            slow_linear(get["normed1"], layer["attention"][name]["kernel"], of[name]) for name in of
        )
        attention = np.maximum(gradients[number] * of_weights, 0).mean(0)
        rolled = rolled @ (np.eye(len(tokens)) + attention)
    return rolled[0]


def slow_words(config, params, texts, row, target):
    """Of one text of a batch: what CLS reads of each of its features, [N]."""
    real = texts.attention[row]
    of_tokens = slow_attlrp(config, params, texts.ids[row, real], target)
    scores = np.zeros(len(real))
    for feature, score in zip(texts.features[row, real], of_tokens, strict=True):
        if feature >= 0:
            scores[feature] += score
    return scores


def first_tokens(config, backbone, one):
    """The first block's input, of one image or of one text's ids."""
    if config.family in TEXT_FAMILIES:
        start = config.pad_id + 1 if config.family == "roberta" else 0
        positions = backbone["position_embedding"][start : start + len(one)]
        tokens = backbone["word_embedding"][one] + positions
        if config.family != "distilbert":
            tokens = tokens + backbone["type_embedding"][0]
        return normalise(config, tokens, backbone["norm"])
    side = config.patch_size
    rows, columns = config.grid
    patches = [
        one[side * r : side * (r + 1), side * c : side * (c + 1)].ravel()
        for r in range(rows)
        for c in range(columns)
    ]
    tokens = affine(np.array(patches, np.float64), backbone["patch_embedding"]["projection"])
    prefix = [backbone[name][0] for name in ("cls_token", "distillation_token") if name in backbone]
    return np.concatenate([*prefix, tokens]) + backbone["position_embedding"][0]


def forward(config, params, one, shifts=None):
    """All activations of one input; `shifts` are added to the attention of some blocks."""
    backbone, text = params["backbone"], config.family in TEXT_FAMILIES
    tokens = first_tokens(config, backbone, one)
    names = "tokens normed1 query key value weights mixed update middle normed2 hidden update2"
    seen = {name: [] for name in names.split()}
    size = config.hidden_size // config.num_heads
    for number in range(config.num_layers):
        layer = backbone["blocks"][str(number)]
        now = {"tokens": tokens, "normed1": tokens}
        if not text:
            now["normed1"] = normalise(config, tokens, layer["norm1"])
        for name in ("query", "key", "value"):
            now[name] = affine(now["normed1"], layer["attention"][name])
        weights, mixed = [], []
        for head in range(config.num_heads):
            part = slice(head * size, (head + 1) * size)
            scores = now["query"][:, part] @ now["key"][:, part].T / np.sqrt(size)
            scores = np.exp(scores - scores.max(-1, keepdims=True))
            weights.append(scores / scores.sum(-1, keepdims=True))
            if shifts and number in shifts:
                weights[-1] = weights[-1] + shifts[number][head]
            mixed.append(weights[-1] @ now["value"][:, part])
        now["weights"], now["mixed"] = np.array(weights), np.concatenate(mixed, -1)
        gains = [layer.get(f"scale{i}", {"scale": 1.0})["scale"] for i in (1, 2)]
        now["update"] = gains[0] * affine(now["mixed"], layer["attention"]["out"])
        now["middle"] = tokens + now["update"]
        if text:
            now["middle"] = normalise(config, now["middle"], layer["norm1"])
            now["normed2"] = now["middle"]
        else:
            now["normed2"] = normalise(config, now["middle"], layer["norm2"])
        hidden = affine(now["normed2"], layer["mlp"]["fc1"])
        now["hidden"] = hidden * (1 + np.vectorize(erf)(hidden / np.sqrt(2))) / 2
        now["update2"] = gains[1] * affine(now["hidden"], layer["mlp"]["fc2"])
        tokens = now["middle"] + now["update2"]
        tokens = normalise(config, tokens, layer["norm2"]) if text else tokens
        for name in seen:
            seen[name].append(now[name])
    if text:
        pooled = affine(tokens[0], params["head"]["dense"])
        pooled = np.maximum(pooled, 0) if config.family == "distilbert" else np.tanh(pooled)
        logits = affine(pooled, params["head"]["out"])
        return seen | {"normed": tokens, "pooled": pooled, "logits": logits}
    normed = normalise(config, tokens, backbone["norm"])
    features = normed[0]
    if config.family == "dinov2":
        features = np.concatenate([features, normed[config.num_prefix_tokens :].mean(0)])
    return seen | {"normed": normed, "logits": affine(features, params["head"])}


def affine(x, layer):
    """x W + b."""
    return x @ layer["kernel"] + layer["bias"]


def normalise(config, x, layer):
    """LayerNorm."""
    x = x - x.mean(-1, keepdims=True)
    x = x / np.sqrt(np.square(x).mean(-1, keepdims=True) + config.layer_norm_eps)
    return x * layer["scale"] + layer["bias"]


def slow_linear(x, kernel, relevance):
    """Row by row, output by output: in proportion to the positive contributions."""
    shares = np.zeros_like(x)
    for row in range(len(x)):
        for output in range(kernel.shape[1]):
            positive = np.maximum(x[row] * kernel[:, output], 0)
            if positive.sum() > 0:
                shares[row] += positive / positive.sum() * relevance[row, output]
    return shares


def slow_product(u, v, relevance):
    """Term by term of each Σ_k u_ik v_kj, half to either factor."""
    of_u, of_v = np.zeros_like(u), np.zeros_like(v)
    for i, j in np.ndindex(relevance.shape):
        terms = u[i] * v[:, j]
        share = terms / terms.sum() * relevance[i, j] / 2
        of_u[i] += share
        of_v[:, j] += share
    return of_u, of_v


def slow_sum(u, v, relevance):
    """In proportion to the terms, then scaled to keep the total."""
    of_u, of_v = u / (u + v) * relevance, v / (u + v) * relevance
    sum_u, sum_v, total = of_u.sum(), of_v.sum(), relevance.sum()
    whole = abs(sum_u) + abs(sum_v)
    return of_u * abs(sum_u) / whole * total / sum_u, of_v * abs(sum_v) / whole * total / sum_v


@pytest.mark.parametrize("family", FAMILIES)
def test_equals_slow_computation(family):
    """Breaks if a rule, a branch, a head or the order of the blocks differs from the paper's."""
    model, config, params, images = classifier(family)
    scores = jax.jit(lambda x, y: attlrp(model, x, y, KEY))(images, targets())
    for actual, image, target in zip(scores, images, targets(), strict=True):
        expected = slow_attlrp(config, params, image, target)[config.num_prefix_tokens :]
        np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-6 * expected.max())


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
