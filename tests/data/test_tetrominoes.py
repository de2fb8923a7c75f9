"""XAI-TRIS's pictures: which pixels tell the classes apart, and how much."""

import numpy as np
import pytest

from fex_jax.data import tetrominoes

SETTINGS = list(tetrominoes.SIGNAL)
T = [(1, 1), (1, 2), (1, 3), (2, 2)]
L = [(4, 5), (5, 5), (6, 5), (6, 6)]


def cells(mask: np.ndarray) -> list[tuple[int, int]]:
    return [tuple(map(int, cell)) for cell in np.argwhere(mask)]


@pytest.mark.parametrize("scenario, background", SETTINGS)
def test_a_seed_is_a_data_set(scenario, background):
    """Breaks if a draw is not repeated, two seeds share one, or pictures leave [-1, 1]."""
    one, again, other = (tetrominoes.draw(scenario, background, 40, seed) for seed in (3, 3, 4))
    for a, b in zip(one, again, strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.isclose(one.images, other.images).all((1, 2)).any()
    assert np.abs(one.images).max() == 1
    assert one.images.dtype == np.float32
    assert set(one.classes) == {0, 1}


@pytest.mark.parametrize("scenario", ["linear", "xor"])
def test_shapes_without_noise(scenario):
    """Breaks if a shape is at another place, or a class has another's signs."""
    drawn = tetrominoes.draw(scenario, "white", 64, 0, alpha=1.0)
    assert {tuple(cells(mask)) for mask in drawn.masks} == {tuple(T + L)}
    shown: dict[int, set] = {0: set(), 1: set()}
    for image, mask, label in zip(drawn.images, drawn.masks, drawn.classes, strict=True):
        shown[int(label)].add(tuple(map(int, np.sign(image[mask]))))
    plus, none, minus = (1,) * 4, (0,) * 4, (-1,) * 4  # of T's four pixels, then of L's
    assert (
        shown
        == {
            "linear": {0: {plus + none}, 1: {none + plus}},
            "xor": {0: {plus + plus, minus + minus}, 1: {plus + minus, minus + plus}},
        }[scenario]
    )
    assert (drawn.images[~drawn.masks] == 0).all()


def test_multiplied_shapes_darken_the_noise():
    """Breaks if the shapes are added, or multiply what lies outside of them."""
    plain, drawn = (
        tetrominoes.draw("multiplicative", "white", 400, 0, alpha=alpha) for alpha in (0.0, 0.7)
    )
    ratio = drawn.images / plain.images
    ratio = ratio / np.median(ratio)  # the two are scaled by their own largest pixels
    inside = np.zeros((400, 8, 8), bool)
    for row, label in enumerate(drawn.classes):
        inside[row][tuple(zip(*(T, L)[label], strict=True))] = True
    np.testing.assert_allclose(ratio[inside], 0.3, rtol=1e-3)
    np.testing.assert_allclose(ratio[~inside], 1, rtol=1e-3)


def test_rigid_shapes_go_everywhere():
    """Breaks if a shape is not turned, leaves the picture, or favours a corner."""
    drawn = tetrominoes.draw("rigid", "white", 4000, 0, alpha=1.0)
    np.testing.assert_array_equal(drawn.images > 0, drawn.masks)
    assert (drawn.masks.sum((1, 2)) == 4).all()
    for label in (0, 1):
        masks = drawn.masks[drawn.classes == label]
        crops = {str(mask[mask.any(1)][:, mask.any(0)].tolist()) for mask in masks}
        assert len(crops) == 4
        assert masks.any(0).all()
        # By symmetry, as often in one half as in the other.
        np.testing.assert_allclose(masks[:, :4].sum() / masks.sum(), 0.5, atol=0.03)


@pytest.mark.parametrize("background, expected", [("white", 0.0), ("correlated", 1.0)])
def test_noise_of_neighbours(background, expected):
    """Breaks if noise is smoothed over pictures, or not at all."""
    noise = tetrominoes.draw("linear", background, 4000, 0, alpha=0.0).images
    assert np.corrcoef(noise[:, 3, 3], noise[:, 3, 4])[0, 1] == pytest.approx(expected, abs=0.05)
    assert np.corrcoef(noise[:-1, 3, 3], noise[1:, 3, 3])[0, 1] == pytest.approx(0, abs=0.05)


def test_what_cannot_be_drawn():
    """Breaks if a wrong name ends deep inside."""
    with pytest.raises(ValueError, match="'cubic' on 'white'; choose one of linear"):
        tetrominoes.draw("cubic", "white", 10, 0)
    with pytest.raises(ValueError, match="size is 1, alpha 0.18; give at least 2"):
        tetrominoes.draw("linear", "white", 1, 0)
