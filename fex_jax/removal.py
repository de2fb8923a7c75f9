"""What becomes of removed cells, words, columns and parts of arrays.

A classifier must make sense of masked pictures, or queries say nothing of the whole one. Networks
that learned with missing patches bear hard grey squares; convolutional ones take the squares'
edges for the object, and need soft edges over a blurred picture.
"""

import dataclasses
import math
from typing import ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

_SOFTEST = 100  # cells; far below, a mask is one shade everywhere

Kind = Literal["fill", "mean", "blur"]


class Pictures(NamedTuple):
    """Pictures with what shows where their cells are removed; the latter is computed once."""

    images: jax.Array  # [B, H, W, C]
    background: jax.Array  # the same, or [B, 1, 1, C]


@dataclasses.dataclass(frozen=True)
class Removal:
    """m x + (1 − m) b for pictures x, a background b and a mask m over the cells of a grid.

    The grid may have any size over pictures of any size. m is 0 or 1 in every pixel where
    `softness` is 0; otherwise the mask, whose cells are h x w pixels, blurred by a Gaussian with
    σ = `softness` · h down and `softness` · w across: R M Cᵀ with R [H, rows] and C [W, columns].

    Attributes:
      kind: b is "fill": a constant; "mean": the picture's own mean colour; "blur": the picture
        under a Gaussian of `sigma`, mirrored at its edges.
      grid: (rows, columns) of cells.
      softness: σ of the mask's edges as a share of a cell.
      fill: of "fill", a number or one for each channel, in the pictures' own units. None: grey, 0
        of floats, which are taken for normalised, and 127.5 of uint8 pixels.
      sigma: of "blur", in pixels.

    Raises:
      ValueError: a value that cannot be.
    """

    kind: Kind = "fill"
    grid: tuple[int, int] = (14, 14)
    softness: float = 0.0
    fill: float | tuple[float, ...] | None = None
    sigma: float = 20.0

    def __post_init__(self) -> None:
        if self.kind not in ("fill", "mean", "blur"):
            raise ValueError(f"removal is {self.kind!r}; choose fill, mean or blur")
        if len(self.grid) != 2 or min(self.grid) < 1:
            raise ValueError(f"grid is {self.grid}; give (rows, columns), each at least 1")
        if not 0 <= self.softness <= _SOFTEST:
            raise ValueError(
                f"softness is {self.softness}; give a share of a cell from 0 to {_SOFTEST}"
            )
        if not (math.isfinite(self.sigma) and self.sigma > 0):
            raise ValueError(f"sigma is {self.sigma}; give pixels above 0")
        if self.fill is not None and not np.isfinite(self.fill).all():
            raise ValueError(f"fill is {self.fill}; give finite numbers")

    @property
    def num_features(self) -> int:
        """N, the cells."""
        return math.prod(self.grid)

    def __str__(self) -> str:
        """All that decides an answer, for the header of a bank and for tables."""
        what = {
            "fill": f"fill {'grey' if self.fill is None else self.fill}",
            "mean": "picture's mean",
            "blur": f"blur, sigma {self.sigma:g} px",
        }
        edges = f"soft edges, sigma {self.softness:g} cell" if self.softness else "hard edges"
        return f"{what[self.kind]}, {edges}"

    def prepare(self, images: jax.Array) -> Pictures:
        """Pictures [B, H, W, C], uint8 as floats of the same values, with their backgrounds.

        Raises:
          ValueError: pictures of another form, with fewer pixels than cells, or a fill of another
            number of channels.
        """
        if images.ndim != 4 or any(
            size < cells for size, cells in zip(images.shape[1:3], self.grid, strict=True)
        ):
            raise ValueError(
                f"removal from {images.shape} by a grid of {self.grid}; wanted images [B, H, W, C] "
                "of at least a pixel for each cell"
            )
        images, fill = jnp.asarray(images), self.fill
        if fill is None:
            fill = 127.5 if images.dtype == jnp.uint8 else 0.0
        if images.dtype == jnp.uint8:
            images = images.astype(jnp.float32)
        if self.kind == "mean":
            return Pictures(images, images.mean((1, 2), keepdims=True))
        if self.kind == "blur":
            return Pictures(images, blur(images, self.sigma))
        shape = (images.shape[0], 1, 1, images.shape[-1])  # symbolic in exports
        if np.ndim(fill) > 1 or np.size(fill) not in (1, shape[-1]):
            raise ValueError(f"fill is {fill}; wanted one number, or one for each of {shape[-1]}")
        return Pictures(images, jnp.broadcast_to(jnp.asarray(fill, images.dtype), shape))

    def mask(self, pictures: Pictures, masks: jax.Array) -> Pictures:
        """Pictures without their cells at 0: masks [B, N] or [B, rows, columns], 1 = kept."""
        images, background = pictures
        weights = self.weights(masks, images.shape[1:3])[..., None]
        if not self.softness:
            return Pictures(jnp.where(weights, images, background), background)
        weights = weights.astype(images.dtype)
        return Pictures(weights * images + (1 - weights) * background, background)

    def weights(self, masks: jax.Array, size: tuple[int, int]) -> jax.Array:
        """m of each pixel, [B, H, W]: bool where edges are hard, or else float32 in [0, 1]."""
        masks = jnp.asarray(masks).astype(bool).reshape(-1, *self.grid)
        if not self.softness:
            rows, columns = (_cells(*pair) for pair in zip(size, self.grid, strict=True))
            return masks[:, rows][:, :, columns]
        down, across = (_edges(*pair, self.softness) for pair in zip(size, self.grid, strict=True))
        soft = jnp.einsum("hr,brc,wc->bhw", down, masks.astype(jnp.float32), across)
        return soft.clip(0, 1)

    def pool(self, values: jax.Array) -> jax.Array:
        """Sums of pixels' values [B, H, W, C] over each cell and all channels, [B, N]."""
        down, across = (
            jax.nn.one_hot(_cells(size, cells), cells)
            for size, cells in zip(values.shape[1:3], self.grid, strict=True)
        )
        return jnp.einsum("bhwx,hr,wc->brc", values, down, across).reshape(len(values), -1)


@dataclasses.dataclass(frozen=True)
class Words:
    """Strings without some of their words.

    Attributes:
      word: what takes the place of a removed one, such as "[MASK]"; "": nothing, and the white
        space before the word goes with it.
    """

    word: str = ""
    softness: ClassVar[float] = 0.0  # a word is there, or it is not

    def __str__(self) -> str:
        """All that decides an answer, for tables."""
        return f"words become {self.word!r}" if self.word else "words are deleted"

    @property
    def kind(self) -> str:
        """What the config calls it."""
        return "word" if self.word else "delete"

    def mask(self, text: str, spans: np.ndarray, kept: np.ndarray) -> str:
        """A text without the words at `spans` [N, 2] of which bool [N] is False.

        Spans that begin below 0 are none.
        """
        found, at = "", 0
        for (start, stop), stays in zip(spans.tolist(), kept.tolist(), strict=True):
            if start < 0:
                break
            between = text[at:start]  # nothing, where pieces of one character are features
            if stays:
                found += between + text[max(at, start) : stop]
            else:
                found += between + self.word if self.word else between.rstrip()
            at = max(at, stop)
        found += text[at:]
        return found if kept[0] or self.word else found.lstrip()


@dataclasses.dataclass(frozen=True)
class Background:
    """Rows of a table in the place of others: f is the mean over them, with what is kept as it is.

    The kept values are set, not conditioned on: this is the marginal, "interventional" value
    function (Janzing et al., AISTATS 2020). With one row it is that of a fixed baseline.

    Attributes:
      rows: how many they are.
      conditional: f is the mean over rows of the data that have the kept values, which a
        `surrogate.Surrogate` has learned: the conditional value function.
    """

    rows: int = 100
    conditional: bool = False
    softness: ClassVar[float] = 0.0

    def __str__(self) -> str:
        """All that decides an answer, for tables."""
        if self.conditional:
            return "removed features are unknown: a surrogate says the mean where others are kept"
        if self.rows == 1:
            return "removed features have the values of a fixed baseline"
        return f"removed features have the values of {self.rows} background rows, in the mean"


@dataclasses.dataclass(frozen=True)
class Own:
    """What a function of one's own removes: of `host.OwnMask` what can be kept without it.

    Attributes:
      num_features: N.
      trace: numbers that follow from what it makes of arrays that are always the same. Another
        function has others.
    """

    num_features: int
    trace: str
    softness: ClassVar[float] = 0.0

    def __str__(self) -> str:
        """All that decides an answer, for the header of a bank and for tables."""
        return f"{self.num_features} features, removed by a function of one's own ({self.trace})"


def blur(images: jax.Array, sigma: float) -> jax.Array:
    """Images [B, H, W, C] under a Gaussian of `sigma` pixels, mirrored at the edges."""
    down, across = (_gaussian(size, sigma) for size in images.shape[1:3])
    return jnp.einsum("hi,bijc,wj->bhwc", down, images, across).astype(images.dtype)


def _cells(size: int, cells: int) -> np.ndarray:
    """The cell in which the centre of each pixel lies, [size]."""
    return (2 * np.arange(size) + 1) * cells // (2 * size)


def _edges(size: int, cells: int, softness: float) -> np.ndarray:
    """How much of a Gaussian about each pixel's centre lies in each cell, [size, cells].

    Of what lies inside the picture: rows sum to 1.
    """
    position = (np.arange(size) + 0.5) * cells / size  # in cells
    distance = (np.arange(cells + 1) - position[:, None]) / (softness * math.sqrt(2))
    below = np.vectorize(math.erf)(distance)
    shares = np.diff(below, axis=1)
    return (shares / shares.sum(1, keepdims=True)).astype(np.float32)


def _gaussian(size: int, sigma: float) -> np.ndarray:
    """The Gaussian of each pixel over all pixels, [size, size]; rows sum to 1."""
    sigma = min(sigma, 2 * size)  # where all pixels weigh the same to 1e-8
    reach = math.ceil(5 * sigma)
    offsets = np.arange(-reach, reach + 1)
    weights = np.exp(-(offsets**2) / (2 * sigma**2))
    places = (np.arange(size)[:, None] + offsets) % (2 * size)
    places = np.where(places < size, places, 2 * size - 1 - places)  # … 1 0 0 1 … n n … 0 0 …
    matrix = np.zeros((size, size))
    np.add.at(matrix, (np.arange(size)[:, None], places), weights / weights.sum())
    return matrix.astype(np.float32)
