"""Localisation: does a map cover the object (protocol of Chefer et al. 2021)?"""

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


def average_precision(scores: jax.Array, labels: jax.Array) -> jax.Array:
    """Area under the precision-recall steps, Σ_n (R_n − R_{n−1}) P_n, one n per distinct score.

    Equal scores enter together, at the precision reached after the last of them, so the order of
    the input does not matter.

    Args:
      scores: [..., M].
      labels: [..., M] bool.

    Returns:
      [...] float; 0 where no label is positive.
    """
    # Sorting the labels along with the scores spares a gather.
    negated, hits = jax.lax.sort((-scores, labels.astype(jnp.int32)), num_keys=1)
    found = hits.cumsum(axis=-1)
    index = jnp.arange(scores.shape[-1])
    last = jnp.concatenate(
        [negated[..., 1:] != negated[..., :-1], jnp.ones((*scores.shape[:-1], 1), bool)], axis=-1
    )
    # The end of each run of equal scores: the nearest marked position at or after one's own.
    end = jnp.where(last, index, scores.shape[-1])
    end = jax.lax.cummin(end, axis=end.ndim - 1, reverse=True)
    precision = jnp.take_along_axis(found, end, axis=-1) / (end + 1)
    return (hits * precision).sum(axis=-1) / jnp.maximum(found[..., -1], 1)


@jax.jit
def segmentation_statistics(maps: jax.Array, masks: jax.Array) -> jax.Array:
    """What one image adds to the pooled scores.

    A map is upsampled bilinearly and scaled to R in [0, 1]; its foreground is where R exceeds its
    mean. Average precision ranks the pixels of [1 − R, R] against [background, foreground], so
    chance is 0.5. A constant map has R = 0: no foreground.

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
    constant = (maps == maps[:, :1, :1]).all(axis=(1, 2), keepdims=True)
    maps = upsample(maps, masks.shape[1:])
    low = maps.min(axis=(1, 2), keepdims=True)
    span = maps.max(axis=(1, 2), keepdims=True) - low
    # Upsampling leaves rounding noise on a constant map, which min-max would blow up to [0, 1].
    relevance = jnp.where(constant, 0, (maps - low) / jnp.where(constant, 1, span))  # [B, H, W]
    foreground = relevance > relevance.mean(axis=(1, 2), keepdims=True)
    masks = masks.astype(bool)

    def flat(background: jax.Array, foreground: jax.Array) -> jax.Array:
        return jnp.stack([background, foreground], axis=1).reshape(len(maps), -1)  # [B, 2 H W]

    counts = [
        (predicted & actual).sum(axis=(1, 2))
        for predicted, actual in (
            (foreground, masks),
            (foreground, ~masks),
            (~foreground, masks),
            (~foreground, ~masks),
        )
    ]
    precision = average_precision(flat(1 - relevance, relevance), flat(~masks, masks))
    return jnp.stack([*counts, precision], axis=1).astype(jnp.float32)


def pixel_accuracy(statistics: np.ndarray) -> float:
    """Share of all pixels, pooled over images, on the right side: [B, 5] -> scalar."""
    hit, false_alarm, miss, rejected = np.asarray(statistics, np.float64)[:, :4].sum(axis=0)
    return float((hit + rejected) / (hit + false_alarm + miss + rejected))


def mean_iou(statistics: np.ndarray) -> float:
    """Mean of foreground and background IoU, each pooled over images: [B, 5] -> scalar.

    A class that is neither present nor predicted anywhere counts 0, as in scikit-learn.
    """
    hit, false_alarm, miss, rejected = np.asarray(statistics, np.float64)[:, :4].sum(axis=0)
    wrong = false_alarm + miss
    return float((hit / max(hit + wrong, 1) + rejected / max(rejected + wrong, 1)) / 2)


def mean_average_precision(statistics: np.ndarray) -> float:
    """Mean over images of their average precision: [B, 5] -> scalar."""
    return float(np.asarray(statistics, np.float64)[:, 4].mean())


@jax.jit
def class_specificity(
    map_a: jax.Array, map_b: jax.Array, mask_a: jax.Array, mask_b: jax.Array
) -> jax.Array:
    """Whether each of two maps prefers its own object, in scenes with two objects.

    That is, map a has a higher mean on object a than on b, and map b on b than on a. Maps that
    ignore the class they explain are right on at most one side and so score 0; independent random
    maps score 1/4.

    Args:
      map_a, map_b: [B, rows, cols] attributions for the classes of objects a and b.
      mask_a, mask_b: [B, H, W] bool, where the objects are; neither may be empty.

    Returns:
      [B] bool: both maps prefer their own object.
    """

    def mean_on(maps: jax.Array, mask: jax.Array) -> jax.Array:
        return jnp.mean(upsample(maps, mask.shape[1:]), axis=(1, 2), where=mask.astype(bool))

    own_a = mean_on(map_a, mask_a) > mean_on(map_a, mask_b)
    own_b = mean_on(map_b, mask_b) > mean_on(map_b, mask_a)
    return own_a & own_b


@jax.jit
def pointing_game(maps: jax.Array, own: jax.Array, other: jax.Array) -> jax.Array:
    """Whether the strongest pixel of an object lies on the explained one (Zhang et al. 2016).

    Only pixels of the two objects compete, so that chance is their share of the area.

    Args:
      maps: [B, rows, cols] attributions.
      own, other: [B, H, W] bool, the explained object and the other one.

    Returns:
      [B] float, 0 or 1.
    """
    pixels = upsample(maps, own.shape[1:])
    strongest = [jnp.max(pixels, (1, 2), where=m, initial=-jnp.inf) for m in (own, other)]
    return (strongest[0] > strongest[1]).astype(jnp.float32)


@jax.jit
def attribution_mass(maps: jax.Array, own: jax.Array, other: jax.Array) -> jax.Array:
    """Share of two objects' attribution that lies on the explained one: [B] in [0, 1].

    Σ_own R / Σ_own∪other R, R the upsampled map scaled to [0, 1]; 1/2 where both are zero.
    Arguments as in `pointing_game`.
    """
    pixels = upsample(maps, own.shape[1:])
    low, high = pixels.min((1, 2), keepdims=True), pixels.max((1, 2), keepdims=True)
    scaled = (pixels - low) / jnp.maximum(high - low, 1e-12)
    mass, rest = (jnp.sum(scaled, (1, 2), where=mask) for mask in (own, other))
    return jnp.where(mass + rest > 0, mass / jnp.maximum(mass + rest, 1e-12), 0.5)
