"""Explaining images: pictures of all kinds in, maps out."""

from typing import TYPE_CHECKING, Literal, NamedTuple

import jax
import numpy as np
from PIL import Image
from tqdm import tqdm

from fex_jax import checks, modalities
from fex_jax.data import decode
from fex_jax.targets import Target, class_numbers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fex_jax.explain import Explainer
    from fex_jax.pretrained import Checkpoint

BATCH_SIZE = 64  # images that are explained at a time, by default


class Explanation(NamedTuple):
    """Attributions of B images; with `top_k`, attributions and targets have an axis [B, k, …]."""

    attributions: np.ndarray  # [B, rows, cols], or [B, H, W]: FEX's λ in [0, 1], FastSHAP's φ
    logits: np.ndarray  # [B, rows, cols] of λ, additive as scores of LIME are; or φ
    targets: np.ndarray  # [B] the explained classes
    probabilities: np.ndarray  # [B, K] f(x)
    labels: tuple[str, ...]  # names of the K classes


def explain(
    explainer: "Explainer",
    images: "decode.Picture | Sequence[decode.Picture]",
    targets: "Target | Sequence[Target] | np.ndarray | None" = None,
    *,
    top_k: int | None = None,
    resolution: Literal["patch", "pixel"] = "patch",
    refine: int = 0,
    batch_size: int = BATCH_SIZE,
    progress: bool = False,
) -> Explanation:
    """Explains any number of images.

    Args:
      explainer: of a predictor of images.
      images: one picture or many, as file paths, files or their content, PIL images, or arrays
        [H, W, 3] or [B, H, W, 3] of uint8 or of floats in [0, 1], rounded to 8 bits. Pictures
        are resized and cropped as the predictor's preprocessing says; arrays of exactly its input
        size are taken as they are.
      targets: the class to explain, for all or for each image, as a number or a label; by
        default the predicted one.
      top_k: explain the k most probable classes of each image instead.
      resolution: "patch" for the policy's grid, "pixel" for maps upsampled bilinearly to the
        predictor's input size.
      refine: queries to the predictor about each map, that improve it: an even number; 0 for
        the explainer's own. See `fex_jax.refine`.
      batch_size: images at a time; every batch is padded to it, so XLA compiles once.
      progress: show a bar.

    Raises:
      ValueError: names the first picture or class that cannot be used, and why.
    """
    listed = decode.as_list(images)
    labels = explainer.predictor.labels
    given = {"refine": refine, "batch_size": batch_size, "resolution": resolution, "top_k": top_k}
    own = {
        "resolution": checks.one_of("patch", "pixel"),
        "top_k": checks.either(checks.integer(1, len(labels)), checks.nothing()),
    }
    checks.require(given, modalities.OPTIONS | own, "explain")
    if None not in (top_k, targets):
        raise ValueError(f"explain: top_k is {top_k}; expected no targets beside it")
    given = None
    if targets is not None:
        given = class_numbers(targets, len(listed), labels, "images")[:, None]
    parts = []
    starts = range(0, len(listed), batch_size)
    for start in tqdm(starts, unit="batch", disable=not progress):
        stop = min(start + batch_size, len(listed))
        batch = np.stack([prepare(explainer.predictor, listed[i], i) for i in range(start, stop)])
        batch = _pad(batch, batch_size)
        answers = explainer.answers(batch)
        if given is None:
            classes = jax.lax.top_k(answers, top_k or 1)[1]  # [B, k]
        else:
            classes = _pad(given[start:stop], batch_size)
        logits = explainer.attribute(batch, classes, answers, refine=refine)
        part = logits, classes, answers
        parts.append([np.asarray(array)[: stop - start] for array in part])
    logits, chosen, probabilities = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    logits = logits.reshape(*logits.shape[:2], *explainer.grid)
    if top_k is None:
        logits, chosen = logits[:, 0], chosen[:, 0]
    attributions = np.asarray(jax.nn.sigmoid(logits)) if explainer.logits else logits
    if resolution == "pixel":
        side = (explainer.predictor.preprocessing.image_size,) * 2
        shape = (*attributions.shape[:-2], *side)
        attributions = np.asarray(jax.image.resize(attributions, shape, "bilinear"))
    return Explanation(attributions, logits, chosen, probabilities, labels)


def prepare(predictor: "Checkpoint", picture: decode.Picture, index: int) -> np.ndarray:
    """A picture as float32 [S, S, 3] in 0..255, before normalisation."""
    where, preprocessing = f"image {index}", predictor.preprocessing
    pixels = decode.decode(picture, where)
    if not hasattr(picture, "__array__") or pixels.shape[:2] != 2 * (preprocessing.image_size,):
        pixels = preprocessing.resize(Image.fromarray(pixels), where)
    return pixels.astype(np.float32)


def _pad(array: np.ndarray, size: int) -> np.ndarray:
    """Repeats the last entry so that every batch has the same shape."""
    return np.concatenate([array, np.repeat(array[-1:], size - len(array), 0)])
