"""Removing patches and tokens."""

import jax.numpy as jnp
import numpy as np

from fex_jax import masking
from fex_jax.token_batch import TokenBatch


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


def test_tokens_by_hand():
    """Breaks if pieces of a word part, special tokens are removed, or sums mix features."""
    features = jnp.array([[-1, 0, 1, 1, -1, -1], [-1, 0, 1, 2, 3, -1]])
    ids = jnp.arange(20, 32).reshape(2, 6)
    inputs = TokenBatch(ids, jnp.ones((2, 6), bool).at[0, 5].set(False), features)
    masks = jnp.array([[1, 0, 1, 1, 1, 1], [0, 1, 0, 1, 0, 0]], bool)
    replaced = masking.tokens(inputs, masks, 4)
    np.testing.assert_array_equal(replaced.ids, [[20, 21, 4, 4, 24, 25], [26, 4, 28, 4, 30, 31]])
    hidden = masking.tokens(inputs, masks, None)
    np.testing.assert_array_equal(hidden.ids, ids)
    np.testing.assert_array_equal(hidden.attention, [[1, 1, 0, 0, 1, 0], [1, 0, 1, 0, 1, 1]])
    sums = masking.sum_over_features(ids[..., None], features)
    np.testing.assert_array_equal(sums[..., 0], [[21, 22 + 23, 0, 0, 0, 0], [27, 28, 29, 30, 0, 0]])
    np.testing.assert_array_equal(masking.valid_features(features).sum(-1), [2, 4])
