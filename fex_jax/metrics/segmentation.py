"""Localisation: does a map cover the object (protocol of Chefer et al. 2021)?

A map that is flat (`is_flat`) says nothing of places, and no metric reads its rounding: it has no
foreground, an average precision and a share of the mass of 1/2, and prefers no object. NaN in a map
gives NaN, never a plausible number.
"""

from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from fex_jax.metrics.perturbation import upsample

STATISTICS = (
    "true_positive",
    "false_positive",
    "false_negative",
    "true_negative",
    "average_precision",
)
ROUNDING = 1e-6  # of a map's size; upsampling in float32 leaves up to about 3e-7

Array = TypeVar("Array", np.ndarray, jax.Array)


def average_precision(scores: jax.Array, inside: jax.Array) -> jax.Array:
    """Area under the precision-recall steps, Σ_n (R_n − R_{n−1}) P_n, one n per distinct score.

    Equal scores enter together, at the precision reached after the last of them, so the order of
    the input does not matter.

    Args:
      scores: [..., M].
      inside: [..., M] bool, what ought to rank first.

    Returns:
      [...] float; 0 where no label is positive, NaN where a score is NaN.
    """
    # Sorting `inside` along with the scores spares a gather.
    negated, hits = jax.lax.sort((-scores, inside.astype(jnp.int32)), num_keys=1)
    found = hits.cumsum(axis=-1)
    index = jnp.arange(scores.shape[-1], dtype=found.dtype)
    last = jnp.concatenate(
        [negated[..., 1:] != negated[..., :-1], jnp.ones((*scores.shape[:-1], 1), bool)], axis=-1
    )
    # The end of each run of equal scores: the nearest marked position at or after one's own.
    end = jnp.where(last, index, scores.shape[-1])
    end = jax.lax.cummin(end, axis=end.ndim - 1, reverse=True)
    precision = jnp.take_along_axis(found, end, axis=-1) / (end + 1)
    positives = jnp.maximum(found[..., -1], 1).astype(precision.dtype)
    area = (hits.astype(precision.dtype) * precision).sum(axis=-1) / positives
    return jnp.where(jnp.isnan(scores).any(axis=-1), jnp.nan, area)


def is_flat(maps: Array, axis: tuple[int, ...] | None = None) -> Array:
    """Whether maps are constant but for float32's rounding: they span at most 1e-6 of their size.

    The size is the largest |value|. `maps` are of NumPy or of JAX, and so is the answer; NaN is
    never flat.

    Args:
      maps: [..., rows, cols].
      axis: the axes of one map; all if None.
    """
    half = maps.max(axis) / 2 - maps.min(axis) / 2  # a whole span may overflow
    return half <= ROUNDING / 2 * abs(maps).max(axis)


@jax.jit
def segmentation_statistics(maps: jax.Array, masks: jax.Array) -> jax.Array:
    """What one image adds to the pooled scores.

    A map is upsampled bilinearly and scaled to R in [0, 1]; its foreground is where R exceeds its
    mean. Average precision ranks the pixels of [1 − R, R] against [background, foreground], so
    chance is 1/2. Of a flat map R is 1/2 everywhere: no foreground, and 1/2. (Chefer et al. divide
    0 by 0 there, put 0 for NaN in both halves, and arrive at the same.)

    Args:
      maps: [B, rows, cols] attribution of each patch.
      masks: [B, H, W] bool, True on the object.

    Returns:
      [B, 5] float: the columns of `STATISTICS`.

    Raises:
      ValueError: maps larger than the masks, or of another number.
    """
    if masks.ndim != 3 or len(masks) != len(maps):
        raise ValueError(f"masks must be [{len(maps)}, H, W], got shape {masks.shape}")
    relevance = _scaled(maps, masks.shape[1:])  # [B, H, W]
    foreground = relevance > relevance.mean(axis=(1, 2), keepdims=True)
    masks = masks.astype(bool)

    def halves(background: jax.Array, foreground: jax.Array) -> jax.Array:
        return jnp.stack([background, foreground], axis=1).reshape(len(maps), -1)  # [B, 2 H W]

    counts = [
        (predicted & actual).sum(axis=(1, 2), dtype=jnp.int32).astype(jnp.float32)
        for predicted, actual in (
            (foreground, masks),
            (foreground, ~masks),
            (~foreground, masks),
            (~foreground, ~masks),
        )
    ]
    precision = average_precision(halves(1 - relevance, relevance), halves(~masks, masks))
    found = jnp.stack([*counts, precision.astype(jnp.float32)], axis=1)
    return jnp.where(jnp.isnan(precision)[:, None], jnp.nan, found)


def of_empty_map(statistics: np.ndarray) -> np.ndarray:
    """What a flat map would get on the same images, from any map's statistics: [B, 5] -> [B, 5]."""
    hit, false_alarm, miss, rejected, _ = np.asarray(statistics, np.float64).T
    nothing = np.zeros_like(hit)
    return np.stack(
        [nothing, nothing, hit + miss, false_alarm + rejected, np.full_like(hit, 0.5)], axis=1
    )


def pixel_accuracy(statistics: np.ndarray) -> float:
    """Share of all pixels, pooled over images, on the right side: [B, 5] -> scalar."""
    hit, false_alarm, miss, rejected = np.asarray(statistics, np.float64)[:, :4].sum(axis=0)
    return float((hit + rejected) / (hit + false_alarm + miss + rejected))


def mean_iou(statistics: np.ndarray) -> float:
    """Mean of foreground and background IoU, each pooled over images: [B, 5] -> scalar.

    The mean is over those of the two that occur in a mask or a map, as in scikit-learn.
    """
    hit, false_alarm, miss, rejected = np.asarray(statistics, np.float64)[:, :4].sum(axis=0)
    wrong = false_alarm + miss
    return float(np.mean([n / (n + wrong) for n in (hit, rejected) if n + wrong != 0]))


def mean_average_precision(statistics: np.ndarray) -> float:
    """Mean over images of their average precision: [B, 5] -> scalar."""
    return float(np.asarray(statistics, np.float64)[:, 4].mean())


@jax.jit
def class_specificity(
    map_a: jax.Array, map_b: jax.Array, mask_a: jax.Array, mask_b: jax.Array
) -> jax.Array:
    """Whether each of two maps prefers its own object, in scenes with two objects.

    That is, map a has a higher mean on object a than on b, and map b on b than on a. Maps that
    ignore the class they explain are right on at most one side and so score 0, as does a flat map;
    independent random maps score 1/4.

    Args:
      map_a, map_b: [B, rows, cols] attributions for the classes of objects a and b.
      mask_a, mask_b: [B, H, W] bool, where the objects are; neither may be empty.

    Returns:
      [B] float, 1 if both maps prefer their own object, else 0; NaN for an object that is empty.
    """

    def mean_on(maps: jax.Array, mask: jax.Array) -> jax.Array:
        return jnp.mean(_scaled(maps, mask.shape[1:]), axis=(1, 2), where=mask.astype(bool))

    own_a = _prefers(mean_on(map_a, mask_a), mean_on(map_a, mask_b))
    own_b = _prefers(mean_on(map_b, mask_b), mean_on(map_b, mask_a))
    return own_a * own_b


@jax.jit
def pointing_game(maps: jax.Array, own: jax.Array, other: jax.Array) -> jax.Array:
    """Whether the strongest pixel of an object lies on the explained one (Zhang et al. 2016).

    Only pixels of the two objects compete, so that chance is their share of the area. A tie, as in
    a flat map, is a miss.

    Args:
      maps: [B, rows, cols] attributions.
      own, other: [B, H, W] bool, the explained object and the other one; neither may be empty.

    Returns:
      [B] float, 0 or 1; NaN for an object that is empty.
    """
    pixels = _scaled(maps, own.shape[1:])
    strongest = (jnp.max(pixels, (1, 2), where=mask, initial=-jnp.inf) for mask in (own, other))
    found = _prefers(*strongest)
    return jnp.where(own.any((1, 2)) & other.any((1, 2)), found, jnp.nan)


@jax.jit
def attribution_mass(maps: jax.Array, own: jax.Array, other: jax.Array) -> jax.Array:
    """Share of two objects' attribution that lies on the explained one: [B] in [0, 1].

    Σ_own R / Σ_own∪other R, R the upsampled map scaled to [0, 1]; 1/2 where both are zero, and of a
    flat map. Arguments as in `pointing_game`.
    """
    scaled = _scaled(maps, own.shape[1:])
    mass, rest = (jnp.sum(scaled, (1, 2), where=mask) for mask in (own, other))
    nothing = is_flat(maps, (1, 2)) | (mass + rest == 0)
    return jnp.where(nothing, 0.5, mass / jnp.where(nothing, 1, mass + rest))


def _scaled(maps: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Maps [B, rows, cols] as pixels [B, H, W] in [0, 1]; 1/2 everywhere of a flat one."""
    # With jax_enable_x64, too: of pixels that tie, rounding decides the order.
    maps = maps.astype(jnp.float32)
    flat = is_flat(maps, (1, 2))[:, None, None]
    maps = maps / 16  # no span of finite values overflows then, nor is its inverse subnormal
    # The least is taken off first: upsampling rounds in proportion to what it is given.
    with jax.enable_x64(False):
        pixels = upsample(maps - maps.min(axis=(1, 2), keepdims=True), size)
    low = pixels.min(axis=(1, 2), keepdims=True)
    span = pixels.max(axis=(1, 2), keepdims=True) - low
    return jnp.where(flat, 0.5, (pixels - low) / jnp.where(flat, 1, span))


def _prefers(own: jax.Array, other: jax.Array) -> jax.Array:
    """1 where own > other by more than rounding of maps in [0, 1], else 0; NaN where one is: [B]"""
    difference = own - other
    larger = (difference > ROUNDING).astype(difference.dtype)
    return jnp.where(jnp.isnan(difference), jnp.nan, larger)
