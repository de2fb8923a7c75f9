"""Explaining images: pictures of all kinds in, maps out."""

import functools
import itertools
import os
from typing import TYPE_CHECKING, Literal, NamedTuple

import jax
import numpy as np
from PIL import Image
from scipy.special import expit

from fex_jax import checks, escape, modalities, notebook
from fex_jax.data import decode
from fex_jax.data.ahead import ahead
from fex_jax.host.pictures import Pictures
from fex_jax.targets import Target

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from fex_jax.explain import Explainer
    from fex_jax.pretrained import Checkpoint

as_list, Reads = decode.as_list, Pictures
BATCH_SIZE = 64
THING = "picture"
SUFFIXES = decode.SUFFIXES
COLUMNS = "image", "image/encoded", "jpg", "png", "path"
CELL, BY_PATH = "a picture's content or path", True
WORDS, TOGETHER = False, 1


class Explanation(NamedTuple):
    """Attributions of B images; with `top_k`, attributions and targets have an axis [B, k, …]."""

    attributions: np.ndarray  # [B, rows, cols], or [B, H, W]: FEX's λ in [0, 1], FastSHAP's φ
    logits: np.ndarray  # [B, rows, cols] of λ, additive as scores of LIME are; or φ
    targets: np.ndarray  # [B] the explained classes
    probabilities: np.ndarray | None  # [B, K] f(x); None without a prediction
    labels: tuple[str, ...]  # names of the K classes
    # uint8 [≤ 8, H, W, 3] what f sees of the first ones, for a notebook
    pictures: np.ndarray | None = None
    # [B] how much more f is expected to believe in the class of what the explainer's own map keeps
    # than of the rest, in [−1, 1]; None: not learned
    faithfulness: np.ndarray | None = None

    def __repr__(self) -> str:
        return notebook.summary(self)

    def _repr_html_(self) -> str:
        return notebook.pictures(self)


def explain(
    explainer: "Explainer",
    images: "decode.Picture | Sequence[decode.Picture]",
    targets: "Target | Sequence[Target] | np.ndarray | None" = None,
    *,
    top_k: int | None = None,
    resolution: Literal["patch", "pixel"] = "patch",
    refine: int | Literal["auto"] = 0,
    with_prediction: bool = True,
    batch_size: int = BATCH_SIZE,
    progress: bool = True,
) -> Explanation:
    """Explains any number of images.

    Args:
      explainer: of a predictor of images.
      images: one picture or many, as file paths, files or their content, PIL images, or arrays
        [H, W, 3] or [B, H, W, 3], grey ones with 1 in the place of 3, of uint8 or of floats in
        [0, 1], rounded to 8 bits. Pictures are resized and cropped as the predictor's preprocessing
        says; arrays of exactly its input size are taken as they are.
      targets: the class to explain, for all or for each image, as a number or a label; by
        default the predicted one.
      top_k: explain the k most probable classes of each image instead.
      resolution: "patch" for the policy's grid, "pixel" for maps upsampled bilinearly to the
        predictor's input size.
      refine: queries to the predictor about each map, that improve it: an even number; 0 for
        the explainer's own; "auto" for a hundred where it predicts little faithfulness, less than
        of 60 % of its held-out inputs. See `fex_jax.refine` and `fex_jax.faithfulness`.
      with_prediction: False, beside `targets`: leave f(x) out where the maps do not need it.
      batch_size: images at a time; fewer are padded to a power of two, see `modalities.padded`.
      progress: show a bar, if it takes more than three seconds.

    Raises:
      ValueError: names the first picture or class that cannot be used, and why.
    """
    listed = decode.as_list(images)
    labels = explainer.predictor.labels
    options = {"refine": refine, "batch_size": batch_size, "with_prediction": with_prediction}
    own = {"resolution": checks.one_of("patch", "pixel")}
    modalities.check_options(options | {"resolution": resolution}, own, targets)
    size = modalities.padded(len(listed), batch_size)
    decoded = prepared(explainer.predictor, listed, size)
    first = list(itertools.islice(decoded, notebook.SHOWN))
    logits, chosen, answers, faithfulness = modalities.each(
        explainer,
        itertools.chain(first, decoded),
        len(listed),
        targets,
        top_k,
        "images",
        progress=progress,
        **options,
    )
    logits = logits.reshape(*logits.shape[:-1], *explainer.grid)
    attributions = expit(logits) if explainer.logits else logits
    if resolution == "pixel":
        attributions = _upsampled(attributions, explainer.predictor.preprocessing.sides)
    pictures = np.rint(np.stack(first)).astype(np.uint8)
    return Explanation(attributions, logits, chosen, answers, labels, pictures, faithfulness)


def lines(pictures: "Sequence[str]", found: Explanation) -> "Iterator[str]":
    """Of pictures' files each one's class, and its map in per cent."""
    rows = zip(pictures, found.targets, found.probabilities, found.attributions, strict=True)
    for picture, chosen, answers, cells in rows:
        yield f"{picture}: {found.labels[chosen]} ({escape.answer(answers[chosen])})"
        yield from (" ".join(f"{value:3.0%}".rjust(4) for value in row) for row in cells)


def examples(explainer: "Explainer", size: int) -> list[np.ndarray]:
    """A batch of each shape that explaining `size` images can need: one."""
    sides = explainer.predictor.preprocessing.sides
    return [np.zeros((size, *sides, 3), np.float32)]


def features(explainer: "Explainer") -> str:
    """What a map tells of."""
    return "{} × {} cells".format(*explainer.grid)


def arrays(explainer: "Explainer", length: int | None) -> modalities.Arrays:
    """Pixels that are resized and cropped; normalised they are by the program.

    Raises:
      ValueError: a length.
    """
    if length is not None:
        raise ValueError(f"length is {length}; pictures have none")
    preprocessing = explainer.predictor.preprocessing
    height, width = preprocessing.sides
    return modalities.Arrays(
        {"pixels": ((height, width, 3), np.uint8)},
        explainer.grid,
        lambda pixels: pixels.astype(np.float32),
        {
            "pixels": f"uint8 [B, {height}, {width}, 3], RGB, resized and cropped, not normalised",
            "grid": list(explainer.grid),
            "preprocessing": preprocessing.to_dict(),
        },
    )


def read(explainer: "Explainer", content: decode.Picture) -> np.ndarray:
    """What f sees of a picture, uint8 [H, W, 3]; an error calls it "image 0"."""
    return np.rint(prepare(explainer.predictor, content, 0)).astype(np.uint8)


def ranked(
    explainer: "Explainer",
    pixels: "Sequence[np.ndarray]",
    classes: np.ndarray,
    refine: int,
    batch_size: int,
) -> list[list[modalities.Map]]:
    """Maps of up to `batch_size` pictures as `read` has them; see `explain.Explainer.explain`.

    Args:
      classes: of every picture, [k]; `PREDICTED` for those that f is to choose.
    """
    size = modalities.padded(len(pixels), batch_size)
    batch, asked = modalities.pad(np.stack(pixels), size), np.tile(classes, (size, 1))
    maps, chosen, answers, _ = explainer.explain(batch, asked, refine=refine)
    maps = maps.reshape(*maps.shape[:2], *explainer.grid)
    maps = expit(maps) if explainer.logits else maps
    return [
        [
            modalities.Map(int(y), float(answers[i, y]), m)
            for y, m in zip(chosen[i], maps[i], strict=True)
        ]
        for i in range(len(pixels))
    ]


def overlay(pixels: np.ndarray, attributions: np.ndarray) -> Image.Image:
    """A map over its picture."""
    from fex_jax import plotting  # Matplotlib is an extra

    return Image.fromarray(plotting.overlay(pixels, attributions))


def prepare(predictor: "Checkpoint", picture: decode.Picture, index: int) -> np.ndarray:
    """A picture as float32 [H, W, 3] in 0..255, before normalisation."""
    where, preprocessing = f"image {index}", predictor.preprocessing
    pixels = decode.decode(picture, where)
    if not hasattr(picture, "__array__") or pixels.shape[:2] != preprocessing.sides:
        pixels = preprocessing.resize(Image.fromarray(pixels), where)
    return pixels.astype(np.float32)


def prepared(
    predictor: "Checkpoint", pictures: "Sequence[decode.Picture]", most: int
) -> "Iterator[np.ndarray]":
    """What `prepare` gives of each, in order; of files up to `most` before they are asked for."""

    def one(indexed: tuple[int, decode.Picture]) -> np.ndarray:
        return prepare(predictor, indexed[1], indexed[0])

    # An object may be in the list twice, and PIL's are for one thread at a time.
    files = all(isinstance(picture, str | os.PathLike | bytes) for picture in pictures)
    if files and len(pictures) > 1:
        return ahead(one, enumerate(pictures), most)
    return map(one, enumerate(pictures))


def _upsampled(maps: np.ndarray, sides: tuple[int, int]) -> np.ndarray:
    """Bilinearly, [..., rows, cols] → [..., H, W]."""
    rows, columns = map(_interpolation, maps.shape[-2:], sides)
    return rows @ maps @ columns.T


@functools.cache
def _interpolation(length: int, side: int) -> np.ndarray:
    """What `side` places between `length` values take of each, [side, length].

    A product with it upsamples batches of all sizes; `jax.image.resize` compiles for each.
    """
    return np.asarray(
        jax.image.resize(np.eye(length, dtype=np.float32), (side, length), "bilinear")
    )
