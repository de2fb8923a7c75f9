"""Removing patches."""

import numpy as np

from fex_jax import masking


def test_removed_patches_and_only_those_become_the_fill():
    """Breaks if rows and columns are exchanged, or cells do not match pixels."""
    images = np.random.default_rng(0).normal(size=(2, 4, 6, 3)).astype(np.float32)
    masks = np.ones((2, 2, 3), bool)
    masks[1, 0, 2] = False
    masked = np.asarray(masking.patches(images, masks, np.array([1.0, 2.0, 3.0])))
    np.testing.assert_array_equal(masked[0], images[0])
    np.testing.assert_array_equal(masked[1, :2, 4:], np.broadcast_to([1.0, 2.0, 3.0], (2, 2, 3)))
    untouched = np.ones((4, 6), bool)
    untouched[:2, 4:] = False
    np.testing.assert_array_equal(masked[1][untouched], images[1][untouched])


def test_zero_fill_is_the_product_with_the_mask():
    """Breaks if the default is not m ⊙ x (paper, section 3.1)."""
    images = np.random.default_rng(0).normal(size=(3, 4, 4, 3)).astype(np.float32)
    masks = np.random.default_rng(1).integers(0, 2, (3, 2, 2))
    expected = images * masks.repeat(2, 1).repeat(2, 2)[..., None]
    np.testing.assert_array_equal(masking.patches(images, masks), expected)
