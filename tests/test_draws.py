"""Masks that fall in patches: against their definition, and correlations computed by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fex_jax import draws

GRID = (6, 8)


@pytest.mark.parametrize("grid", [GRID, (48,)])
def test_a_feature_is_kept_as_often_as_its_probability_says(grid):
    """Breaks if what makes neighbours alike makes a feature, at an edge say, likelier than λ."""
    found = np.asarray(draws.uniform(jax.random.key(0), grid, (8000,)))
    assert found.shape == (8000, 48)
    for level in (0.05, 0.3, 0.9):
        np.testing.assert_allclose((found < level).mean(0), level, atol=0.017)  # five deviations


def test_neighbours_fall_together_and_those_of_a_text_do_not():
    """Breaks if the filters are transposed, of another length, or shared by all masks.

    Of filters with rows a_i, b_j the correlation of two cells is (a_i · a_k)(b_j · b_l), here
    averaged over the lengths.
    """
    found = np.asarray(draws.uniform(jax.random.key(1), GRID, (20_000,)))
    normal = np.asarray(jax.scipy.special.ndtri(jnp.clip(found, 1e-6, 1 - 1e-6)))
    correlation = np.corrcoef(normal.T).reshape(6, 8, 6, 8)

    def row(side: int, place: int, length: float) -> np.ndarray:
        if not length:
            return np.eye(side)[place]
        values = np.exp(-(((np.arange(side) - place) / side / length) ** 2) / 2)
        return values / np.sqrt((values**2).sum())

    for first, second in (((0, 0), (0, 1)), ((2, 3), (3, 3)), ((2, 3), (4, 6)), ((0, 0), (5, 7))):
        expected = np.mean(
            [
                (row(6, first[0], s) @ row(6, second[0], s))
                * (row(8, first[1], s) @ row(8, second[1], s))
                for s in draws.LENGTHS
            ]
        )
        assert abs(correlation[*first, *second] - expected) < 0.03
    text = np.corrcoef(np.asarray(draws.uniform(jax.random.key(2), (5,), (20_000,))).T)
    assert np.abs(text - np.eye(5)).max() < 0.03


@pytest.mark.parametrize("grid", [GRID, ()])
def test_masks_keep_as_many_as_their_probabilities_add_up_to(grid):
    """Breaks if a mask keeps more or fewer, likelier features less often, or one that is not there.

    Of flat probabilities every feature is kept in a share k / N of the masks.
    """
    logits = jnp.linspace(-2, 2, 48).at[5].set(-1e9)
    found = np.asarray(
        draws.masks(jax.random.key(0), jnp.stack([logits, 0 * logits]), grid, (9000,))
    )
    assert found.shape == (9000, 2, 48) and found.dtype == bool
    wanted = np.delete(1 / (1 + np.exp(-np.linspace(-2, 2, 48))), 5)
    assert set(found[:, 0].sum(-1)) == {round(wanted.sum())} and set(found[:, 1].sum(-1)) == {24}
    kept = found[:, 0].mean(0)
    assert kept[5] == 0
    np.testing.assert_allclose(np.delete(kept, 5), wanted, atol=0.06)
    np.testing.assert_allclose(found[:, 1].mean(0), 0.5, atol=0.03)


def test_covariance_of_neighbours():
    """Breaks if distances are not in sides of the grid, or rows and columns change places."""
    found = draws.covariance(GRID, 1 / 4).reshape(6, 8, 6, 8)
    expected = np.exp(-((2 / 6) ** 2 + (1 / 8) ** 2) / (2 / 16))
    np.testing.assert_allclose(found[1, 2, 3, 3], expected, rtol=1e-6)
    np.testing.assert_array_equal(draws.covariance(GRID, 0.0), np.eye(48))
