"""Pictures of any shape, in colour or grey, as a black box and a network that explains see them."""

import dataclasses

import jax
import numpy as np
import pytest
from PIL import Image

from fex_jax import host, pretrained
from fex_jax.host import black_box
from fex_jax.host.pictures import Pictures
from fex_jax.models import shapes
from fex_jax.models.vit import ViTConfig
from fex_jax.preprocessing import Preprocessing
from fex_jax.removal import Removal
from fex_jax.settings import default
from fex_jax.training import asking
from tests.conftest import random_like


def of(*shape: int) -> host.HostPredictor:
    """Says of two classes what the means of a picture's left and right half add up to."""

    def call(batch: np.ndarray) -> np.ndarray:
        assert batch.dtype == np.uint8 and batch.shape[1:] == shape
        left, right = (half.mean((1, 2, 3)) for half in np.split(batch, 2, 2))
        return np.stack([left, right], 1) / np.maximum(left + right, 1e-6)[:, None]

    return host.host(call, labels=("left", "right"), input=shape, digest=f"{shape}", tolerance=1)


@pytest.mark.parametrize(
    "shape, grid",
    [
        ((224, 224, 3), (16, 16)),
        ((32, 64, 1), (4, 8)),
        ((96, 40, 3), (12, 5)),
        ((8, 64, 1), (1, 8)),
        ((1, 1, 3), (1, 1)),
    ],
)
def test_cells_are_squares(shape, grid):
    """Breaks if a picture that is wider than high gets cells that are, or a U-Net other ones."""
    config = default()
    config.policy = "unet"
    backbone, _, reads = Pictures.policy(config, of(*shape), None)
    assert backbone.grid == grid == Pictures.candidates(config, of(*shape))[0].grid
    box = black_box.of(of(*shape), Removal(grid=grid), reads)
    assert reads.fits(backbone, box.removal)
    assert box.preprocessing.sides == shape[:2]


def test_a_vit_has_a_patch_for_each_cell(predictor, tmp_path):
    """Breaks if a ViT that looks at pictures of another shape has another grid than its masks."""
    pretrained.save(tmp_path, predictor)  # of squares, in patches of 8 pixels
    config = default()
    config.policy_backbone.path = str(tmp_path)
    backbone, params, reads = Pictures.policy(config, of(32, 64, 1), None)
    assert backbone.grid == (4, 8) and backbone.image_size == (32, 64)
    assert params["position_embedding"].shape[-2] == 1 + 32
    assert reads.look(np.zeros((1, 32, 64, 3), np.float32)).shape == (1, 32, 64, 3)


def test_photographs_are_read_by_dinov2_where_it_is_cached(tmp_path, monkeypatch, capsys):
    """Breaks if weights in the hub's cache are not found, torn ones or a download are tried, small
    pictures or the policy unet get them, or a run goes on with another network than it began with.
    """
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    family = {"family": "dinov2", "image_size": 28, "patch_size": 14, "mlp_dim": 16}
    config = ViTConfig(num_classes=2, hidden_size=8, num_layers=1, num_heads=2, **family)
    params = random_like(shapes(type(config).classifier, config))
    sides = {"size": 28, "do_center_crop": True, "crop_size": (28, 28)}
    tiny = pretrained.Checkpoint(config, params, ("a", "b"), Preprocessing("Bit", **sides))
    cache = tmp_path / "models--facebook--dinov2-small"
    snapshot = cache / "snapshots" / "abc"

    def chosen(side: int, policy: str = "auto", run: str = "new") -> str:
        config = default()
        config.policy, config.map_head = policy, "shared"
        config = asking.with_network(config, of(side, side, 3), tmp_path / run)
        assert config.policy == "unet"
        return config.policy_backbone.path

    assert chosen(112) == ""
    pretrained.save(snapshot, tiny)
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text("abc")
    assert (chosen(112), chosen(111), chosen(112, "unet")) == (str(snapshot), "", "")
    assert f"starts from {snapshot}; the policy unet" in capsys.readouterr().out
    config = default()
    config.policy_backbone.path = chosen(112)
    backbone, _, _ = Pictures.policy(config, of(112, 112, 3), None)
    assert (backbone.family, backbone.grid) == ("dinov2", (14, 14))
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "config.json").write_text('{"policy_backbone": {"path": ""}}')
    assert chosen(112, run="begun") == ""
    (snapshot / "model.safetensors").unlink()
    assert chosen(112) == ""


def test_a_grey_f_gets_what_pillow_calls_grey():
    """Breaks if one channel is chosen, or the three are weighted otherwise; beside PIL's "L"."""
    colour = np.random.default_rng(0).integers(0, 256, (2, 16, 32, 3), np.uint8)
    box = black_box.of(of(16, 32, 1))
    _, inputs = box.bind({}, colour.astype(np.float32))
    seen = np.asarray(box.show(inputs)[2])
    expected = np.stack([np.asarray(Image.fromarray(one).convert("L")) for one in colour])
    assert seen.shape == (2, 16, 32, 1)
    assert np.abs(seen[..., 0].astype(int) - expected).max() <= 1  # PIL rounds in 16 bits
    grey = np.repeat(np.arange(256, dtype=np.uint8).reshape(1, 8, 32, 1), 3, -1)
    box = black_box.of(of(8, 32, 1))
    seen = np.asarray(box.show(box.bind({}, grey.astype(np.float32))[1])[2])
    np.testing.assert_array_equal(seen, grey[..., :1])


def test_half_a_picture_that_is_removed_says_nothing():
    """Breaks if rows and columns of masks are swapped; by hand: the left half alone is 1 and 0."""
    box = black_box.of(of(16, 32, 1), Removal("fill", (2, 4), fill=0.0))
    model, inputs = box.bind({}, np.full((1, 16, 32, 3), 200, np.float32))
    left = np.array([[1, 1, 0, 0, 1, 1, 0, 0]], bool)
    with jax.enable_x64(False):
        np.testing.assert_allclose(model.predict(inputs), [[0.5, 0.5]])
        np.testing.assert_allclose(model.predict(model.mask(inputs, left)), [[1, 0]])


@pytest.mark.parametrize("shape", [(224, 224, 3), (16, 32, 3), (16, 16, 1)])
def test_what_is_saved_is_read(shape, tmp_path):
    """Breaks if an export forgets the shape of f's pictures."""
    box = black_box.of(of(*shape))
    box.save(tmp_path)
    assert black_box.read(tmp_path) == dataclasses.replace(box, f=None)


def test_other_arrays_are_refused():
    """Breaks if four channels are cut to three without a word."""
    with pytest.raises(ValueError, match=r"takes arrays \[16, 16, 4\]; explained are predictors"):
        black_box.of(of(16, 16, 4))


@pytest.mark.parametrize(
    "shape, seen",
    [((1, 100, 1), (8, 96)), ((300, 17, 3), (304, 19)), ((17, 300, 3), (19, 304))],
)
def test_a_strip_is_seen_whole(shape, seen):
    """Breaks if the U-Net of a picture of one row of cells sees a pixel of each cell."""
    assert black_box.of(of(*shape)).reads.looks.sides == seen


def test_pictures_of_several_sizes_are_no_batch():
    """Breaks if NumPy's error about ragged arrays is what a user reads."""
    with pytest.raises(host.HostError, match=r"takes uint8 images \[B, 8, 64, 1\]; got object"):
        of(8, 64, 1)([np.zeros((8, 64, 1), np.uint8), np.zeros((8, 63, 1), np.uint8)])


@pytest.mark.parametrize("shape", [(1, 96, 1), (8, 96, 3), (96, 8, 3)])
def test_a_strip_that_is_removed_is_gone(shape):
    """Breaks if a strip is blurred by its short side: methods would ask about the whole picture."""
    longest = np.argmax(shape[:2])
    stripes = np.zeros((1, *shape[:2], 3), np.float32)
    np.moveaxis(stripes, 1 + longest, 1)[0, np.arange(96) // 8 % 2 == 1] = 255
    box = black_box.of(of(*shape))
    assert box.removal.sigma == pytest.approx(96 * 20 / 224)
    model, inputs = box.bind({}, stripes)
    shown = np.asarray(box.show(model.blank(inputs))[2]).astype(float)
    assert shown.std() < 0.2 * stripes.std()  # mirrored, the stripes at the ends are twice as wide
