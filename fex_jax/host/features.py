"""Features of one's own: superpixels of pictures, parts of any arrays.

fex_jax.attribute("lime", f, pictures, features=fex_jax.host.Superpixels(64))
fex_jax.attribute("fex", explainer, pictures, features=fex_jax.host.Superpixels(64))
fex_jax.attribute("kernel_shap", f, series, features=fex_jax.host.OwnMask(mask, 12))
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fex_jax.errors import HostError
from fex_jax.host.answers import brief
from fex_jax.host.model import callback, to_pixels
from fex_jax.host.pictures import default_sigma
from fex_jax.host.predictor import HostPredictor
from fex_jax.predictors import Model
from fex_jax.removal import Own, Removal, blur

_TRACED, _NAN = 4, 7.0  # things that `OwnMask.removal` tries, and what stands there for NaN


class Part(NamedTuple):
    """Some of what is explained, and which features of it f is to be asked about."""

    rows: jax.Array  # [B] int32: which of the things
    masks: jax.Array  # [B, N] bool
    valid: jax.Array  # [B, N] bool: the features that a thing has


Show = Callable[[np.ndarray], np.ndarray]  # scores [B, N] → attributions


@dataclasses.dataclass(frozen=True)
class OwnMask:
    """N features that a function removes.

    Attributes:
      mask: (things [B, ...], kept bool [B, N]) → the same things without what is not kept, in
        NumPy. Of a thing and what is kept of it follows what it gives.
      num_features: N.
    """

    mask: Callable[[np.ndarray, np.ndarray], np.ndarray]
    num_features: int

    def __post_init__(self) -> None:
        if not callable(self.mask):
            raise ValueError(f"mask is {self.mask!r}; give a function (things, kept) → things")
        if type(self.num_features) is not int or self.num_features < 1:
            raise ValueError(f"num_features is {self.num_features!r}; give an integer from 1")

    def remove(self, things: np.ndarray, kept: np.ndarray) -> np.ndarray:
        """Things [B, ...] without what is not kept, bool [B, N].

        Raises:
          HostError: the function failed, or gave things of another form.
        """
        try:
            got = np.asarray(self.mask(np.array(things), np.array(kept)))
        except Exception as error:
            raise HostError(
                f"mask failed when asked about {things.dtype}{list(things.shape)} and kept "
                f"bool{list(kept.shape)}: {brief(error)}"
            ) from error
        if got.shape != things.shape or not np.can_cast(got.dtype, things.dtype, "same_kind"):
            raise HostError(
                f"mask gives {got.dtype}{list(got.shape)} of {things.dtype}{list(things.shape)}; "
                "wanted the same form"
            )
        return got.astype(things.dtype, copy=False)

    def check(self, things: np.ndarray) -> None:
        """Tries it on some things [B, ...].

        Raises:
          HostError: it fails, changes what is kept, or nothing that is not; or there is nothing
            from which its only feature could be told.
        """
        if self.num_features < 2:
            raise HostError("num_features is 1, and a map tells features apart: give 2 or more")
        every = np.ones((len(things), self.num_features), bool)
        if not np.allclose(self.remove(things, every), things, 1e-4, 1e-6, equal_nan=True):
            raise HostError(
                "mask changes things of which every feature is kept: let it return them as they are"
            )
        if np.array_equal(self.remove(things, ~every), things, equal_nan=True):
            raise HostError(
                "mask changes nothing where no feature is kept, so f is never asked about less "
                "than the whole: let it replace what kept is False of, as by 0 or the mean"
            )

    def removal(self, shape: tuple[int, ...]) -> Own:
        """What can be kept of it where things are of a shape.

        Raises:
          HostError: it fails, or what it makes of one thing follows from others or from chance.
        """
        rng = np.random.default_rng(0)
        things = rng.normal(size=(_TRACED, *shape)).astype(np.float32)
        kept = rng.random((_TRACED, self.num_features)) < 0.5
        made = self.remove(things, kept)
        alone = [self.remove(things[[i]], kept[[i]]) for i in range(_TRACED)]
        if not np.allclose(made, np.concatenate(alone), 1e-3, 1e-4, equal_nan=True):
            raise HostError(
                "mask makes something else of the same thing in a batch and alone: let what it "
                "gives follow from the thing and from kept, and from no other thing and no chance"
            )
        # A few digits of a few sums: they are the same on another machine.
        weights = rng.normal(size=made.shape) / math.sqrt(made[0].size)
        sums = (np.nan_to_num(made, nan=_NAN) * weights).reshape(_TRACED, -1).sum(-1)
        return Own(self.num_features, " ".join(f"{one:.3g}" for one in sums))

    def bind(self, f: HostPredictor, things: Any) -> tuple[Model, Part, Show]:
        """f as a `Model` of the parts of these things; attributions are scores [B, N].

        Raises:
          ValueError: the mask function fails, or gives things of another form.
        """
        things = f.checked(things)
        try:
            self.remove(things[:1], np.ones((1, self.num_features), bool))
        except HostError as error:
            raise ValueError(str(error)) from error

        def ask(rows: np.ndarray, masks: np.ndarray) -> np.ndarray:
            return f(self.remove(things[rows], masks))

        valid = np.ones((len(things), self.num_features), bool)
        model, part = _model(
            f, valid, lambda part: callback(ask, len(f.labels), part.rows, part.masks)
        )
        return model, part, lambda scores: scores


@dataclasses.dataclass(frozen=True)
class Superpixels:
    """Connected patches of like colour, by SLIC (Achanta et al. 2012) of scikit-image, or given.

    A removed one shows the picture out of focus, under edges that a Gaussian blurs.

    Attributes:
      count: about how many a picture gets.
      segments: int [B, H, W], the number of each pixel's feature, in place of SLIC.
      compactness: of SLIC: how much nearness counts beside likeness of colour.
      softness: σ of the edges as a share of the side of a square superpixel; 0: hard edges.
      removal: what shows where superpixels are removed; its grid and softness are not used. None:
        the picture blurred, σ 20 pixels of 224.
    """

    count: int = 64
    segments: np.ndarray | None = None
    compactness: float = 10.0
    softness: float = 0.5
    removal: Removal | None = None

    def __post_init__(self) -> None:
        if type(self.count) is not int or self.count < 2:
            raise ValueError(f"count is {self.count!r}; give an integer from 2")
        if not (math.isfinite(self.compactness) and self.compactness > 0):
            raise ValueError(f"compactness is {self.compactness}; give a number above 0")
        if not 0 <= self.softness <= 10:
            raise ValueError(f"softness is {self.softness}; give a share of a superpixel from 0")

    def bind(self, f: HostPredictor, things: Any) -> tuple[Model, Part, Show]:
        """f as a `Model` of the superpixels of pictures, uint8 [B, H, W, 3].

        Attributions [B, H, W] are each pixel's superpixel's.

        Raises:
          ValueError: segments of another form.
        """
        pictures = f.checked(things)
        found = self.of(pictures)
        segments = jnp.asarray(found)
        removal = self.removal or Removal("blur", (1, 1), sigma=default_sigma(pictures.shape[1:3]))
        images, background = removal.prepare(pictures)
        size = int(found.max()) + 1
        sigma = self.softness * math.sqrt(math.prod(pictures.shape[1:3]) / size)

        def predict(part: Part) -> jax.Array:
            at = segments[part.rows]
            kept = jax.vmap(lambda mask, of: mask[of])(part.masks, at)[..., None]
            weights = kept.astype(jnp.float32)
            weights = blur(weights, sigma) if sigma else weights
            mixed = weights * images[part.rows] + (1 - weights) * background[part.rows]
            return callback(f, len(f.labels), to_pixels(mixed))

        valid = np.stack([np.isin(np.arange(size), one) for one in found])
        model, part = _model(f, valid, predict)
        row = np.arange(len(found))[:, None, None]
        return model, part, lambda scores: scores[row, found]

    def of(self, pictures: np.ndarray) -> np.ndarray:
        """The segments [B, H, W] of pictures, those given or SLIC's.

        Raises:
          ValueError: given ones do not fit the pictures, or scikit-image is not there.
        """
        if self.segments is None:
            try:
                from skimage.segmentation import slic
            except ImportError:
                raise ValueError(
                    "superpixels need scikit-image: pip install 'fex-jax[superpixels]', or give "
                    "segments"
                ) from None
            cut = [
                slic(one, self.count, self.compactness, start_label=0, channel_axis=-1)
                for one in pictures
            ]
            return np.stack(cut).astype(np.int32)
        try:
            given = np.asarray(self.segments)
        except ValueError:  # rows of several lengths
            given = np.empty(0, object)
        whole = given.dtype.kind in "iu" and given.shape == pictures.shape[:3]
        if not whole or given.min() < 0 or given.max() >= given[0].size:
            raise ValueError(
                f"segments are {given.dtype}{list(given.shape)}; wanted integers from 0, "
                f"{list(pictures.shape[:3])}, one for each pixel"
            )
        return given.astype(np.int32)


def means(maps: np.ndarray, segments: np.ndarray) -> np.ndarray:
    """Maps [..., H, W], in each pixel their mean over the pixels of its segment, int [H, W]."""
    numbers, at = np.unique(segments, return_inverse=True)
    each = [maps[..., segments == number].mean(-1) for number in numbers]
    return np.stack(each, -1)[..., at.reshape(segments.shape)]


def _model(
    f: HostPredictor, valid: np.ndarray, predict: Callable[[Part], jax.Array]
) -> tuple[Model, Part]:
    """Masks of masked parts take the place of the ones before."""
    model = Model(
        predict=predict,
        mask=lambda part, masks: part._replace(masks=masks.astype(bool)),
        grid=valid.shape[1:],
        valid=lambda part: part.valid,
        output=f.output,
    )
    rows = np.arange(len(valid), dtype=np.int32)
    return model, jax.tree.map(jnp.asarray, Part(rows, valid, valid))
