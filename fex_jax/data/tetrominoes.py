"""XAI-TRIS at 8 x 8 pixels: noise with tetrominoes in it, and which pixels tell the classes apart.

Clark, Wilming and Haufe, XAI-TRIS: non-linear image benchmarks to quantify false positive post-hoc
attribution of feature importance, Machine Learning 2024, arXiv 2306.12816. Drawn from the paper's
description. Two classes. Where one alone of two shapes at fixed places is shown, the absence of the
other says as much, so both count as important.
"""

from typing import Literal, NamedTuple, get_args

import numpy as np
from scipy.ndimage import gaussian_filter

Scenario = Literal["linear", "multiplicative", "rigid", "xor"]
Background = Literal["white", "correlated"]
SIDE = 8
SIGMA = 3.0  # of correlated noise, in pixels
# α, how much of the picture the shapes are: as published for 8 x 8 pixels.
SIGNAL: dict[tuple[Scenario, Background], float] = {
    ("linear", "white"): 0.18,
    ("linear", "correlated"): 0.0125,
    ("multiplicative", "white"): 0.7,
    ("multiplicative", "correlated"): 0.1,
    ("rigid", "white"): 0.65,
    ("rigid", "correlated"): 0.2,
    ("xor", "white"): 0.35,
    ("xor", "correlated"): 0.15,
}
_T = np.array([[1, 1, 1], [0, 1, 0]])
_L = np.array([[1, 0], [1, 0], [1, 1]])
_PLACES = (1, 1), (4, 5)  # upper left corners of T and L where they do not move


class Tetrominoes(NamedTuple):
    """n pictures."""

    images: np.ndarray  # float32 [n, 8, 8], the largest size of a pixel in all of them is 1
    classes: np.ndarray  # int [n], 0 or 1
    masks: np.ndarray  # bool [n, 8, 8], the pixels that tell the classes apart


def draw(
    scenario: Scenario, background: Background, size: int, seed: int, alpha: float | None = None
) -> Tetrominoes:
    """Pictures x of shapes a and noise η, each divided by the norm of all n where they are added.

    linear: T (class 0) or L (1) at fixed places, x = α a + (1 − α) η. multiplicative: the same
    shapes, x = (1 − α a) η. rigid: T or L, turned and moved at random, added. xor: both at fixed
    places, added; T + L or −T − L (0), T − L or L − T (1).

    Args:
      scenario, background: noise is white, or smoothed by a Gaussian of σ = 3 pixels.
      size: n.
      seed: of all that is drawn; the data sets of two seeds are independent.
      alpha: α in 0 to 1; None: that of `SIGNAL`.

    Raises:
      ValueError: another scenario or background, fewer than two pictures, or another α.
    """
    if scenario not in get_args(Scenario) or background not in get_args(Background):
        raise ValueError(
            f"{scenario!r} on {background!r}; choose one of {', '.join(get_args(Scenario))} on "
            f"{' or '.join(get_args(Background))}"
        )
    alpha = SIGNAL[scenario, background] if alpha is None else alpha
    if size < 2 or not 0 <= alpha <= 1:
        raise ValueError(f"size is {size}, alpha {alpha}; give at least 2, and 0 to 1")
    rng = np.random.default_rng((seed, list(SIGNAL).index((scenario, background))))
    classes = rng.integers(0, 2, size)
    fixed = np.stack([_place(s, *at) for s, at in zip((_T, _L), _PLACES, strict=True)])
    if scenario == "rigid":
        shapes = np.stack([_moved((_T, _L)[label], rng) for label in classes])
        masks = shapes > 0
    elif scenario == "xor":
        signs = rng.choice([-1, 1], size)
        signs = np.stack([signs, signs * (1 - 2 * classes)], -1)
        shapes = np.einsum("ns,shw->nhw", signs, fixed)
    else:
        shapes = fixed[classes]
    if scenario != "rigid":
        masks = np.broadcast_to(fixed.any(0), shapes.shape)
    noise = rng.normal(size=shapes.shape)
    if background == "correlated":
        noise = gaussian_filter(noise, SIGMA, axes=(1, 2))
    if scenario == "multiplicative":
        images = (1 - alpha * shapes) * noise
    else:
        images = alpha * shapes / np.linalg.norm(shapes)
        images = images + (1 - alpha) * noise / np.linalg.norm(noise)
    return Tetrominoes((images / np.abs(images).max()).astype(np.float32), classes, masks)


def _place(shape: np.ndarray, row: int, column: int) -> np.ndarray:
    """A shape in an empty picture."""
    picture = np.zeros((SIDE, SIDE), int)
    picture[row : row + shape.shape[0], column : column + shape.shape[1]] = shape
    return picture


def _moved(shape: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A shape turned by a multiple of 90°, at any place that holds it."""
    turned = np.rot90(shape, int(rng.integers(4)))
    row, column = (rng.integers(0, SIDE - length + 1) for length in turned.shape)
    return _place(turned, row, column)
