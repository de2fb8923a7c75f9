"""Vision transformers: structure, numerics and the functional interface, without torch."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from fex_jax.models import functional, shapes
from fex_jax.models.vit import ViT, ViTClassifier, ViTConfig

CONFIG = ViTConfig(
    family="vit",
    image_size=16,
    patch_size=4,
    num_classes=5,
    hidden_size=12,
    num_layers=1,
    num_heads=3,
    mlp_dim=24,
)


@pytest.fixture(scope="module")
def params():
    """Random parameters of a tiny classifier."""
    rng = np.random.default_rng(0)
    template = shapes(ViTClassifier, CONFIG)
    return jax.tree.map(lambda x: jnp.asarray(0.3 * rng.normal(size=x.shape), x.dtype), template)


@pytest.fixture(scope="module")
def images():
    """Two normalised images [2, 16, 16, 3]."""
    return jax.random.normal(jax.random.key(1), (2, 16, 16, 3))


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"image_size": 17}, "16 and 20"),
        ({"num_heads": 5}, "does not divide into 5 heads"),
        ({"family": "swin"}, "vit, deit, dinov2"),
        ({"num_classes": 0}, "num_classes must be at least 1"),
        ({"swiglu": True}, "dinov2 only"),
        ({"family": "dinov2", "mlp_dim": 25}, "multiple of hidden_size"),
    ],
)
def test_config_errors(changes, message):
    """A config that cannot work fails on construction, with what to change."""
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(CONFIG, **changes)


@pytest.mark.parametrize("family, prefix", [("vit", 1), ("deit", 2), ("dinov2", 1)])
def test_token_layout(family, prefix):
    """Attribution slices off the prefix tokens, so their number must match the output's."""
    config = dataclasses.replace(CONFIG, family=family)
    assert (config.grid, config.num_patches, config.num_prefix_tokens) == ((4, 4), 16, prefix)
    init, bind = functional(ViT, config)
    tokens = jax.eval_shape(lambda: bind(init(jax.random.key(0)))(jnp.zeros((2, 16, 16, 3))))
    assert tokens.shape == (2, prefix + 16, 12)


def test_a_network_is_traced_once():
    """Breaks if to open a classifier or an explainer takes the time of another trace each."""
    alike = dataclasses.replace(CONFIG)
    assert functional(ViTClassifier, CONFIG) is functional(ViTClassifier, alike)


def test_init():
    """Parameters need flat string names, float32 leaves, and different weights in each block."""
    config = dataclasses.replace(CONFIG, num_layers=2)
    init, _ = functional(ViTClassifier, config)
    params = init(jax.random.key(0))
    flat = traverse_util.flatten_dict(params, sep="/")
    assert "backbone/blocks/1/attention/query/kernel" in flat
    assert {leaf.dtype for leaf in flat.values()} == {jnp.dtype("float32")}
    template = shapes(ViTClassifier, config)
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(lambda leaf: leaf.shape, template)
    first, second = (flat[f"backbone/blocks/{i}/mlp/fc1/kernel"] for i in "01")
    assert not np.allclose(first, second)
    # LeCun initialisation: standard deviation 1 / sqrt(fan-in).
    np.testing.assert_allclose(np.std(first), 12**-0.5, rtol=0.2)


def test_patch_embedding_is_a_strided_convolution(params, images):
    """A wrong patch or channel order would scramble every pretrained model."""
    _, bind = functional(lambda rngs: ViT(CONFIG, rngs=rngs).patch_embedding)
    layer = params["backbone"]["patch_embedding"]
    kernel = layer["projection"]["kernel"].reshape(4, 4, 3, 12)
    expected = jax.lax.conv_general_dilated(
        images, kernel, (4, 4), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    expected = expected.reshape(2, 16, 12) + layer["projection"]["bias"]
    np.testing.assert_allclose(bind(layer)(images), expected, atol=1e-5)


def test_wrong_image_size_is_an_error(params):
    """Broadcasting must not hide images of another size."""
    _, bind = functional(ViTClassifier, CONFIG)
    with pytest.raises(ValueError, match=r"must be \[B, 16, 16, 3\]"):
        bind(params)(jnp.zeros((2, 20, 20, 3)))


def test_remat_keeps_gradients(params, images):
    """Rematerialisation trades time for memory and must not change a gradient."""

    def gradients(**kwargs):
        _, bind = functional(ViTClassifier, CONFIG, **kwargs)
        return jax.jit(jax.grad(lambda params: jnp.sum(bind(params)(images) ** 2)))(params)

    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4),
        gradients(remat=True),
        gradients(),
    )


def test_remat_drops_residuals():
    """Without its effect on the residuals, `remat` would be a dead option."""
    template = shapes(ViTClassifier, CONFIG)

    def residuals(**kwargs):
        _, bind = functional(ViTClassifier, CONFIG, **kwargs)
        images = jax.ShapeDtypeStruct((8, 16, 16, 3), jnp.float32)
        _, pullback = jax.eval_shape(
            lambda p, x: jax.vjp(lambda p: bind(p)(x), p), template, images
        )
        return sum(leaf.size for leaf in jax.tree.leaves(pullback))

    assert residuals(remat=True) < residuals() / 2


def test_bfloat16_computation(params, images):
    """bfloat16 only rounds: float32 parameters, close float32 logits."""
    logits = {}
    for dtype in (jnp.float32, jnp.bfloat16):
        _, bind = functional(ViTClassifier, CONFIG, dtype=dtype)
        logits[dtype] = jax.jit(lambda p, bind=bind: bind(p)(images))(params)
        assert logits[dtype].dtype == jnp.float32
    assert not np.array_equal(logits[jnp.float32], logits[jnp.bfloat16])
    np.testing.assert_allclose(logits[jnp.bfloat16], logits[jnp.float32], atol=0.1)
