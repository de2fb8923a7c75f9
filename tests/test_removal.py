"""Removing cells: against SciPy, masking.patches and values by hand."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage, stats

from fex_jax import masking
from fex_jax.removal import Pictures, Removal, Words, _cells, blur

RNG = np.random.default_rng(0)
ROUND = ((12, 8), (3, 4))  # size and grid that divide
ODD = ((13, 11), (3, 4))


def draw(size, grid, batch=2):
    images = RNG.normal(size=(batch, *size, 3)).astype(np.float32)
    return images, RNG.integers(0, 2, (batch, grid[0] * grid[1])).astype(bool)


@pytest.mark.parametrize("fill", [0.0, -0.3, (1.0, 2.0, 3.0)])
def test_a_hard_fill_is_masking_patches_bit_for_bit(fill):
    """Breaks if removal without softness is not what Flax predictors are trained and asked with."""
    size, grid = ROUND
    images, masks = draw(size, grid)
    removal = Removal("fill", grid, fill=fill)
    expected = masking.patches(images, masks.reshape(-1, *grid), jnp.asarray(fill))
    for given in (masks, masks.reshape(-1, *grid), masks.astype(np.float32)):
        found = removal.mask(removal.prepare(images), given)
        np.testing.assert_array_equal(found.images, expected)
        np.testing.assert_array_equal(found.background, removal.prepare(images).background)


@pytest.mark.parametrize("kind", ["fill", "mean", "blur"])
@pytest.mark.parametrize("softness", [0.0, 0.3])
@pytest.mark.parametrize(("size", "grid"), [ODD, ((13, 11), (13, 11)), ((13, 11), (1, 1))])
def test_all_kept_is_the_picture_and_all_removed_the_background(kind, softness, size, grid):
    """Breaks if weights do not sum to one anywhere, or kept and removed are exchanged."""
    images, masks = draw(size, grid)
    removal = Removal(kind, grid, softness, 0.5, 2.0)
    pictures = removal.prepare(images)
    whole = removal.mask(pictures, np.ones_like(masks)).images
    np.testing.assert_allclose(whole, images, atol=1e-6)
    empty = removal.mask(pictures, np.zeros_like(masks)).images
    background = np.broadcast_to(pictures.background, images.shape)
    np.testing.assert_allclose(empty, background, atol=1e-6)
    if not softness:
        np.testing.assert_array_equal(whole, images)


def test_each_pixel_belongs_to_the_cell_of_its_centre():
    """Breaks if sizes that the grid does not divide lose or stretch cells; 7 pixels over 3 by hand.

    Centres .5 … 6.5 over cells of 7/3 = 2.33 pixels: 0, 1 | 2, 3, 4 | 5, 6 (2.5 and 4.5 are in the
    second).
    """
    removal = Removal("fill", (3, 1), fill=9.0)
    images = np.zeros((1, 7, 2, 1), np.float32)
    found = removal.mask(removal.prepare(images), np.array([[1, 0, 1]])).images
    np.testing.assert_array_equal(found[0, :, 0, 0], [0, 0, 9, 9, 9, 0, 0])
    for size in range(3, 40):
        counts = np.bincount(_cells(size, 3), minlength=3)
        assert counts.min() >= size // 3 and counts.sum() == size


@pytest.mark.parametrize(("size", "grid"), [ROUND, ODD])
def test_soft_weights_are_the_mask_under_a_gaussian(size, grid):
    """Breaks if the two products are not a convolution with the stated σ.

    Against SciPy: the Gaussian's mass over each cell, down times across, over that of the picture.
    """
    softness = 0.4
    _, masks = draw(size, grid)
    cell = np.divide(size, grid)

    def mass(axis, low, high):
        centres = np.arange(size[axis]) + 0.5
        normal = stats.norm(centres, softness * cell[axis])
        return normal.cdf(high) - normal.cdf(low)

    expected = np.zeros((len(masks), *size))
    for (row, column), kept in np.ndenumerate(np.moveaxis(masks.reshape(-1, *grid), 0, -1)[..., 0]):
        down = mass(0, row * cell[0], (row + 1) * cell[0]) / mass(0, 0, size[0])
        across = mass(1, column * cell[1], (column + 1) * cell[1]) / mass(1, 0, size[1])
        expected[0] += kept * np.outer(down, across)
    found = Removal("fill", grid, softness).weights(masks, size)
    np.testing.assert_allclose(found[0], expected[0], atol=1e-5)


@pytest.mark.parametrize("sigma", [0.7, 2.0, 20.0])
def test_blur_is_scipys(sigma):
    """Breaks if σ, the normalisation or the mirrored edge differ from SciPy's Gaussian filter."""
    images, _ = draw((17, 9), (1, 1))
    expected = ndimage.gaussian_filter(
        images.astype(np.float64), (0, sigma, sigma, 0), mode="reflect", truncate=6
    )
    np.testing.assert_allclose(blur(images, sigma), expected, atol=2e-5)


def test_a_blur_beyond_the_picture_is_its_mean():
    """Breaks if a large σ takes memory without end, or does not tend to the mean."""
    images, _ = draw((17, 9), (1, 1))
    mean = np.broadcast_to(images.mean((1, 2), keepdims=True), images.shape)
    np.testing.assert_allclose(blur(images, 1e9), mean, atol=1e-5)


def test_the_mean_is_the_clean_picture_s_own():
    """Breaks if one picture gets another's mean, or that of its masked version."""
    images, masks = draw(*ROUND)
    pictures = Removal("mean", ROUND[1]).prepare(images)
    np.testing.assert_allclose(pictures.background[:, 0, 0], images.mean((1, 2)), atol=1e-6)
    found = Removal("mean", ROUND[1]).mask(pictures, np.zeros_like(masks)).images
    np.testing.assert_allclose(found[1, 5, 5], images[1].mean((0, 1)), atol=1e-6)


def test_uint8_pictures_become_floats_of_the_same_values():
    """Breaks if masks are blended in uint8, where they wrap around."""
    images = RNG.integers(0, 256, (1, 8, 8, 3)).astype(np.uint8)
    removal = Removal("fill", (2, 2), 0.5)
    pictures = removal.prepare(images)
    whole = removal.mask(pictures, np.ones((1, 4))).images
    np.testing.assert_array_equal(np.round(whole), images)
    assert (pictures.background == 127.5).all()  # grey, as 0 is of normalised pictures
    assert (removal.prepare(images.astype(np.float32)).background == 0).all()


def test_it_is_one_program_under_jit_and_a_gather_of_pictures():
    """Breaks if values are needed while tracing, or pictures cannot be indexed as a pytree."""
    images, masks = draw(*ODD)
    removal = Removal("blur", ODD[1], 0.5, sigma=3.0)
    pictures = removal.prepare(images)
    both = jax.tree.map(lambda x: x[jnp.array([1, 0])], pictures)
    found = jax.jit(removal.mask)(both, masks)
    expected = removal.mask(Pictures(images[::-1], pictures.background[::-1]), masks)
    np.testing.assert_allclose(found.images, expected.images, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "noise"}, "removal is 'noise'; choose fill, mean or blur"),
        ({"grid": (0, 3)}, "grid is (0, 3)"),
        ({"grid": (3,)}, "grid is (3,)"),
        ({"softness": -1.0}, "softness is -1.0"),
        ({"softness": 1e9}, "softness is 1000000000.0"),
        ({"softness": float("nan")}, "softness is nan"),
        ({"sigma": 0.0}, "sigma is 0.0"),
        ({"fill": float("inf")}, "fill is inf"),
    ],
)
def test_settings_that_cannot_be_are_named(options, message):
    """Breaks if one is taken and gives a wrong picture."""
    with pytest.raises(ValueError, match=re.escape(message)):
        Removal(**options)


def test_pictures_smaller_than_the_grid_are_refused():
    """Breaks if cells without a pixel pass silently: their scores would mean nothing."""
    for images in (np.zeros((1, 4, 9, 3), np.float32), np.zeros((9, 9, 3), np.float32)):
        with pytest.raises(ValueError, match="at least a pixel for each cell"):
            Removal("fill", (5, 5)).prepare(images)
    with pytest.raises(ValueError, match="wanted one number, or one for each of 3"):
        Removal("fill", (2, 2), fill=(1.0, 2.0)).prepare(np.zeros((1, 4, 4, 3), np.float32))


def test_settings_that_differ_have_different_names():
    """Breaks if a bank would take another removal's answers for its own."""
    several = [
        Removal(), Removal(fill=1.0), Removal("mean"), Removal("blur"), Removal("blur", sigma=9.0),
        Removal(softness=0.5), Removal("blur", softness=0.5),
    ]  # fmt: skip
    assert len({str(removal) for removal in several}) == len(several)


def test_pools_are_sums_over_cells():
    """Breaks if a pixel counts for another cell; by hand, on a grid that does not divide."""
    values = jnp.arange(12.0).reshape(1, 3, 4, 1) * jnp.ones((1, 1, 1, 2))
    pooled = Removal(grid=(2, 2)).pool(values)  # the middle row is the lower cells'
    np.testing.assert_allclose(pooled, 2 * np.array([[1, 5, 4 + 5 + 8 + 9, 6 + 7 + 10 + 11]]))


@pytest.mark.parametrize(
    ("word", "kept", "expected"),
    [
        ("", (1, 1, 1, 1, 1), " Ä film, not bad "),
        ("", (1, 0, 1, 1, 1), " Ä, not bad "),
        ("", (0, 1, 0, 1, 0), "film not "),
        ("", (1, 1, 0, 0, 1), " Ä film bad "),
        ("", (0, 0, 0, 0, 0), ""),
        ("[MASK]", (0, 1, 0, 1, 0), " [MASK] film[MASK] not [MASK] "),
    ],
)
def test_words_leave_their_strings(word, kept, expected):
    """Breaks if a word leaves two spaces behind, or a string that keeps all words changes."""
    spans = np.array([(1, 2), (3, 7), (7, 8), (9, 12), (13, 16), (-1, -1)])
    found = Words(word).mask(" Ä film, not bad ", spans, np.array([*kept, 0], bool))
    assert found == expected
