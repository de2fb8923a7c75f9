"""The explainer network: one map costs one column, whichever backbone."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fex_jax import tokens
from fex_jax.models.policy import functional_policy, make_backbone
from fex_jax.models.unet import UNetConfig
from fex_jax.models.vit import ViTConfig
from tests import tiny_text
from tests.conftest import random_params

VIT = ViTConfig("vit", 16, 4, 7, 16, 1, 2, 32)
DEIT = ViTConfig("deit", 16, 4, 7, 16, 1, 2, 32)
DINOV2 = ViTConfig("dinov2", 16, 4, 7, 16, 1, 2, 32)
UNET = UNetConfig(16, 4, hidden_size=16)
IMAGES = np.random.default_rng(0).normal(size=(3, 16, 16, 3)).astype(np.float32)


def build(backbone, num_classes=7, map_head="token"):
    init, bind = functional_policy(backbone, num_classes, map_head=map_head)
    return bind(random_params(init))


@pytest.mark.parametrize(
    "backbone, map_head",
    [(VIT, "token"), (DEIT, "token"), (UNET, "token"), (DINOV2, "wide")],
    ids=["vit", "deit", "unet", "wide"],
)
def test_one_map_and_the_class_means_equal_all_maps(backbone, map_head):
    """Breaks if the short cuts through the linear last layer differ from computing every map."""
    init, bind = functional_policy(backbone, 7, map_head=map_head, critic=True)
    targets = jnp.array([[2, 5], [0, 2], [6, 6]])
    every = jnp.broadcast_to(jnp.arange(7), (3, 7))

    @jax.jit
    def said(params):
        policy = bind(params)
        contrasted = policy.maps(IMAGES, targets, contrastive=True)
        both = policy(IMAGES, targets), policy(IMAGES, targets, "paper")
        return policy.maps(IMAGES, every), contrasted, *both

    maps, contrasted, (logits, means, values, valid, *_), (_, log_means, *_) = said(
        random_params(init)
    )
    assert maps.shape == (3, 7, 16)
    np.testing.assert_allclose(logits, maps[jnp.arange(3)[:, None], targets], rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(means, maps.mean(-1), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(log_means, jax.nn.log_sigmoid(maps).mean(-1), rtol=1e-5)
    assert valid is None  # every image has all features
    p = jax.nn.softmax(means).at[jnp.arange(3)[:, None], targets[:, :1]].set(0)  # of the others
    by_hand = logits[:, 0] - jnp.einsum("bk,bkn->bn", p, maps)
    np.testing.assert_allclose(contrasted[:, 0], by_hand, rtol=1e-4, atol=1e-5)
    assert values.shape == (3, 2) and len(np.unique(values)) == 5  # the last class stands twice


@pytest.mark.parametrize("backbone, remat", [(DEIT, False), (DINOV2, True)], ids=["deit", "remat"])
def test_what_a_wide_map_head_reads(backbone, remat):
    """Breaks if a patch is read beside another image's or patch's tokens, or of other blocks, or if
    recomputed blocks do not let them out."""
    config = dataclasses.replace(backbone, num_layers=4)
    first = config.num_prefix_tokens
    init, bind = functional_policy(config, 7, remat=remat, map_head="wide")
    params = random_params(init)
    plain = functional_policy(config, 7, map_head="wide")[1]

    @jax.jit
    def looked_at(params):
        seen = []
        watch = lambda name, x: (seen.append(x), x)[1] if name == "hidden" else x  # noqa: E731
        return plain(params).backbone(IMAGES, watch), seen, bind(params).read(IMAGES).each

    tokens, seen, parts = looked_at(params)
    read = jnp.concatenate([jnp.broadcast_to(part, (3, 16, part.shape[-1])) for part in parts], -1)
    mean = tokens[:, first:].mean(1)
    for image, patch in [(0, 0), (1, 5), (2, 15)]:
        earlier = [seen[block][image, first + patch] for block in (2, 3)]
        earlier = [(x - x.mean()) / jnp.sqrt(x.var() + 1e-5) for x in earlier]
        expected = [tokens[image, first + patch], tokens[image, 0], mean[image], *earlier]
        np.testing.assert_allclose(read[image, patch], jnp.concatenate(expected), atol=1e-4)
    targets = jnp.zeros((3, 1), int)
    gradient = jax.jit(jax.grad(lambda params: bind(params).maps(IMAGES, targets).std()))(params)
    assert float(jnp.abs(gradient["backbone"]["blocks"]["0"]["attention"]["query"]["kernel"]).max())


def test_parts_are_read_as_one_array():
    """Breaks if a part meets another's weights: against products of what lies side by side."""
    init, bind = functional_policy(dataclasses.replace(VIT, num_layers=4), 7, map_head="wide")
    params = random_params(init)
    head, targets = params["heads"], np.array([[1, 4], [0, 2], [6, 3]])

    @jax.jit
    def said(params):
        policy = bind(params)
        contrast = policy.maps(IMAGES, targets, contrastive=True)
        return policy.read(IMAGES).each, policy(IMAGES, targets), contrast

    parts, (logits, means, *_), contrast = said(params)
    read = np.concatenate([np.broadcast_to(x, (3, 16, x.shape[-1])) for x in parts], -1)
    hidden = read
    for layer in ("map_in", "map_mid"):
        hidden = np.maximum(hidden @ head[layer]["kernel"] + head[layer]["bias"], 0)
    z = np.concatenate([hidden, read], -1) @ head["map_out"]["kernel"] + head["map_out"]["bias"]
    expected = np.take_along_axis(z, targets[:, None], -1).transpose(0, 2, 1)
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(means, z.mean(1), rtol=1e-4, atol=1e-4)
    p = np.asarray(jax.nn.softmax(means))
    others = np.einsum("bnk,bk->bn", z, p)[:, None]
    own = np.take_along_axis(p, targets, -1)[..., None]
    np.testing.assert_allclose(contrast, expected - (others - own * expected), atol=1e-3)


def test_a_shared_head_mixes_what_all_classes_have_with_what_each_has():
    """Breaks if z = a z_0 + b c is put together otherwise, a contrast touches z_0, the means are
    not those of c, or a and b learn from gradients."""
    init, bind = functional_policy(DINOV2, 7, map_head="shared")
    params = random_params(init)
    params["heads"]["mix"] = jnp.array([0.9, 0.3])
    targets = jnp.array([[2, 5], [0, 2], [6, 6]])
    plain = {k: v for k, v in params["heads"].items() if k not in ("map_all", "mix")}

    def said(policy):
        contrasted = policy.maps(IMAGES, targets, contrastive=True)
        return policy(IMAGES, targets), policy.maps(IMAGES, targets), contrasted

    (logits, means, _, _, (shared, own), _), maps, contrasted = jax.jit(lambda p: said(bind(p)))(
        params
    )
    bind_wide = functional_policy(DINOV2, 7, map_head="wide")[1]
    wide = jax.jit(lambda p: said(bind_wide(p)))(params | {"heads": plain})
    assert shared.shape == (3, 1, 16) and own.shape == (3, 2, 16)
    np.testing.assert_allclose(logits, 0.9 * shared + 0.3 * own, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(maps, logits, rtol=1e-5)
    of_wide, maps_of_wide, contrasted_of_wide = wide
    np.testing.assert_allclose(own, maps_of_wide, rtol=1e-5)
    np.testing.assert_allclose(means, of_wide[1], rtol=1e-5)
    expected = 0.9 * shared + 0.3 * contrasted_of_wide
    np.testing.assert_allclose(contrasted, expected, rtol=1e-4, atol=1e-6)
    gradient = jax.jit(jax.grad(lambda p: bind(p).maps(IMAGES, targets).std()))(params)
    assert not gradient["heads"]["mix"].any()


def test_cost_hardly_depends_on_the_number_of_classes():
    """Breaks if explaining one of 1000 classes computes all maps; FLOPs counted by XLA."""

    def flops(num_classes, batch=3):
        init, bind = functional_policy(VIT, num_classes)
        params = jax.eval_shape(init, jax.random.key(0))
        images = jax.ShapeDtypeStruct((batch, 16, 16, 3), jnp.float32)
        targets = jax.ShapeDtypeStruct((batch, 1), jnp.int32)
        explain = jax.jit(lambda params, x, y: bind(params).maps(x, y))
        return explain.lower(params, images, targets).compile().cost_analysis()["flops"]

    assert flops(1000) < 1.01 * flops(10)


def test_maps_start_near_one_half():
    """Breaks if the first policy is not exploratory: λ far from 1/2 draws the same masks."""
    init, bind = functional_policy(VIT, 7)
    lam = jax.nn.sigmoid(bind(init(jax.random.key(0))).maps(IMAGES, jnp.zeros((3, 1), int)))
    assert float(jnp.abs(lam - 0.5).max()) < 0.2


def test_unet_cells_stay_in_place():
    """Breaks if the output grid is transposed: a changed cell moves the map around itself most."""
    policy = build(UNetConfig(32, 4, hidden_size=16))
    maps = jax.jit(policy.maps)
    images = np.random.default_rng(0).normal(size=(1, 32, 32, 3)).astype(np.float32)
    changed = images.copy()
    changed[0, 4:8, 20:24] += 5.0  # row 1, column 5 of 8
    target = jnp.zeros((1, 1), int)
    difference = jnp.abs(maps(changed, target) - maps(images, target))
    row, column = np.unravel_index(int(difference.argmax()), (8, 8))
    assert abs(row - 1) <= 1 and abs(column - 5) <= 1


def test_make_backbone():
    """Breaks if a U-Net gets another grid than the predictor's, or a typo passes."""
    assert make_backbone("vit", VIT) is VIT
    assert make_backbone("unet", VIT).grid == VIT.grid
    with pytest.raises(ValueError, match="choose vit or unet"):
        make_backbone("resnet", VIT)
    with pytest.raises(ValueError, match="choose token, wide or shared"):
        build(VIT, map_head="broad")
    bert = tiny_text.config()
    assert make_backbone("bert", bert) is bert
    with pytest.raises(ValueError, match="choose bert"):
        make_backbone("unet", bert)


@pytest.mark.parametrize("family", ["bert", "distilbert", "roberta"])
def test_text_maps_and_means_are_over_the_features_a_text_has(family):
    """Breaks if padding enters the KL's mean map or what a map is trusted for, or a short text
    depends on its bucket."""
    init, bind = functional_policy(tiny_text.config(family), 3, faithful=True, critic=True)
    params, tokenizer = random_params(init), tiny_text.tokenizer()
    texts = tokenizer(["the film was funny !", "great"], "word")
    targets, every = jnp.array([[2, 1], [0, 2]]), jnp.tile(jnp.arange(3), (2, 1))
    batch = tokens.collate(texts, 12, tokenizer)

    @jax.jit
    def said(params, batch):
        policy = bind(params)
        maps, contrasted = policy.maps(batch, every), policy.maps(batch, targets, contrastive=True)
        others = maps, contrasted, policy.faithfulness(batch, targets)
        return policy(batch, targets), policy(batch, targets, "paper")[1], *others

    (logits, means, values, valid, _, faith), log_means, maps, contrasted, trusted = said(
        params, batch
    )
    np.testing.assert_array_equal(valid.sum(-1), [[5], [1]])
    np.testing.assert_allclose(logits, maps[jnp.arange(2)[:, None], targets], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(means, maps.mean(-1, where=valid), rtol=1e-4, atol=1e-6)
    expected = jax.nn.log_sigmoid(maps).mean(-1, where=valid)
    np.testing.assert_allclose(log_means, expected, rtol=1e-5)
    longer = said(params, tokens.collate(texts, 32, tokenizer))[0]
    there = jnp.broadcast_to(valid, logits.shape)
    np.testing.assert_allclose(longer[0][..., :12][there], logits[there], atol=1e-5)
    np.testing.assert_allclose(longer[1], means, atol=1e-5)
    np.testing.assert_allclose(longer[5], faith, atol=1e-5)
    np.testing.assert_allclose(trusted[:, :1], faith, atol=1e-5)
    by_hand = (1 + jax.nn.softmax(means)[jnp.arange(2), targets[:, 0]])[:, None] * logits[:, 0]
    by_hand -= jnp.einsum("bk,bkn->bn", jax.nn.softmax(means), maps)
    np.testing.assert_allclose(contrasted[:, 0], by_hand, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(longer[2], values, atol=1e-5)


def test_text_policy_starts_from_the_predictor():
    """Breaks if the predictor's backbone does not fit into the policy."""
    checkpoint = tiny_text.checkpoint()
    init, _ = functional_policy(checkpoint.config, 2)
    theirs, ours = checkpoint.params["backbone"], random_params(init)["backbone"]
    assert jax.tree.map(jnp.shape, theirs) == jax.tree.map(jnp.shape, ours)


def test_a_critic_is_there_where_it_is_asked_for():
    """Breaks if a head is built that nothing trains, or the others are drawn otherwise without."""
    (with_one, _), (without, bind) = (
        functional_policy(VIT, 7, faithful=True, critic=critic) for critic in (True, False)
    )
    more, fewer = (jax.jit(init)(jax.random.key(0)) for init in (with_one, without))
    critic = {"value_in", "value_mid", "value_out"}
    assert more["heads"].keys() - fewer["heads"].keys() == critic
    left = more | {"heads": {n: x for n, x in more["heads"].items() if n not in critic}}
    jax.tree.map(np.testing.assert_array_equal, left, fewer)
    assert bind(fewer)(IMAGES, jnp.zeros((3, 1), int))[2] is None
