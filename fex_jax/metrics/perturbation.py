"""Perturbation tests: remove features in order of their attribution and watch the prediction.

Positive removes the most important features first (lower is better), negative the least important
first (higher is better). The core knows a predictor and a mask, both functions, and no modality;
`image_features` supplies the mask and the scores for images.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from fex_jax import masking
from fex_jax.outputs import Output


@dataclass(frozen=True)
class Protocol:
    """How a perturbation test is run and summed up.

    At a step of p percent, positive removes the k most important of N features. Negative removes
    the k least important, or, where it starts from the blank input, keeps the k most important and
    removes all others. k = p·N/100, rounded half up, up or down.
    """

    name: str
    unit: Literal["patch", "pixel"]
    percent: tuple[int, ...]  # whole percents, so that rounding p·N is exact
    rounding: Literal["half_up", "up", "down"]
    negative_start: Literal["clean", "blank"]
    fill: Literal["zero", "black"]  # 0 after, or before, the images are normalised
    reference: Literal["prediction", "label"]  # a prediction that equals it counts as correct
    rule: Literal["trapezoid", "mean"]

    @property
    def fractions(self) -> tuple[float, ...]:
        """Fraction of the features removed at each step of the positive curve, S values."""
        return tuple(p / 100 for p in self.percent)

    @property
    def negative_fractions(self) -> tuple[float, ...]:
        """Fraction of the features removed at each step of the negative curve, S values."""
        if self.negative_start == "clean":
            return self.fractions
        return tuple((100 - p) / 100 for p in self.percent)

    def counts(self, size: jax.Array) -> jax.Array:
        """k at each step for `size` features: [...] -> [S, ...]."""
        percent = jnp.asarray(self.percent).reshape(-1, *(1,) * jnp.ndim(size))
        return (percent * size + {"half_up": 50, "up": 99, "down": 0}[self.rounding]) // 100


# Both ends included: the first point is the clean input, the last the blank one.
FEX = Protocol(
    name="fex",
    unit="patch",
    percent=tuple(range(0, 101, 10)),
    rounding="half_up",
    negative_start="clean",
    fill="zero",
    reference="prediction",
    rule="trapezoid",
)

# Chefer et al. 2021: pixels, of whose number their code drops the fraction; never reaches the blank
# input, so an area is at most 0.9.
CHEFER = Protocol(
    name="chefer",
    unit="pixel",
    percent=tuple(range(0, 100, 10)),
    rounding="down",
    negative_start="clean",
    fill="black",
    reference="label",
    rule="trapezoid",
)

# The script published with FEX. Its positive mean includes the clean input, which is always
# correct, and never the blank one; its negative mean includes the blank input and never the clean
# one. Both bounds are therefore moved, and its numbers compare only with each other.
AUTHORS = Protocol(
    name="authors",
    unit="patch",
    percent=tuple(range(0, 100, 10)),
    rounding="up",
    negative_start="blank",
    fill="zero",
    reference="prediction",
    rule="mean",
)

PROTOCOLS = {protocol.name: protocol for protocol in (FEX, CHEFER, AUTHORS)}


class Curve(NamedTuple):
    """One direction of a perturbation test, by image and step."""

    correct: jax.Array  # [B, S] 1 where the prediction is the reference, else 0
    probability: jax.Array  # [B, S] of the target class


class Curves(NamedTuple):
    """Both directions of a perturbation test."""

    positive: Curve
    negative: Curve


def ranks(scores: jax.Array, valid: jax.Array | None = None) -> jax.Array:
    """Rank of each feature, 0 for the highest score: [B, N] -> int [B, N].

    Equal scores are ranked by position, the earlier feature first: a map without any order is
    removed row by row. NaN ranks behind all numbers.

    Args:
      scores: [B, N].
      valid: [B, N] False at padding, which ranks last whatever its score; all valid if None.
    """
    index = jnp.broadcast_to(jnp.arange(scores.shape[-1]), scores.shape)
    padding = jnp.zeros(scores.shape, bool) if valid is None else ~valid
    _, _, order = jax.lax.sort((padding, -scores, index), num_keys=2, is_stable=True)
    return jnp.argsort(order, axis=-1)  # the inverse permutation


def perturbation_curves(
    predict: Callable[[jax.Array], jax.Array],
    mask: Callable[[jax.Array, jax.Array], jax.Array],
    inputs: jax.Array,
    scores: jax.Array,
    targets: jax.Array,
    reference: jax.Array,
    protocol: Protocol = FEX,
    valid: jax.Array | None = None,
    output: Output = "softmax",
) -> Curves:
    """Predictions while features are removed, most and least important first.

    A positive probability curve is the deletion curve of Petsiuk et al. 2018. A negative one is
    their insertion curve, read from its blank end: keeping the top k of N and removing the N - k
    least important are one and the same mask.

    Pure and made to be jitted by the caller, with the predictor's parameters as an argument. Steps
    run one after the other, so the predictor sees one batch of inputs at a time.

    Args:
      predict: inputs -> probabilities [B, K].
      mask: (inputs, m [B, N] bool, True = kept) -> inputs.
      inputs: the clean inputs, an array [B, ...] or a pytree of them.
      scores: [B, N] attribution of each feature.
      targets: [B] the explained class, whose probability is followed.
      reference: [B] the class that counts as correct: the clean prediction or the label, as
        `protocol.reference` says.
      protocol: of its fields, the steps and their rounding are used here.
      valid: [B, N] False at padding, which is always kept and never counted; all valid if None.
      output: what answers are. Of a "softmax" the prediction is the most probable class. Of
        "sigmoid"s each label is a question of its own: whether the reference has 1/2, as it has, or
        has not, of the clean input; a label that is known to be true should have it. Of a "value"
        nothing can be correct: NaN.

    Returns:
      Curves of [B, S] float arrays, in the order of `protocol.percent`; NaN for an input one of
      whose scores is NaN.

    Raises:
      ValueError: shapes that do not fit.
    """
    if scores.ndim != 2:
        raise ValueError(f"scores must be [B, N], got shape {scores.shape}")
    for name, classes in (("targets", targets), ("reference", reference)):
        if classes.shape != scores.shape[:1]:
            raise ValueError(f"{name} must be [{len(scores)}], got shape {classes.shape}")
    if valid is None:
        valid = jnp.ones(scores.shape, bool)
    elif valid.shape != scores.shape:
        raise ValueError(f"valid must be {scores.shape}, got shape {valid.shape}")

    rank = ranks(scores, valid)  # [B, N] padding last
    unranked = (jnp.isnan(scores) & valid).any(axis=-1)  # [B]
    size = valid.sum(axis=-1)  # [B]
    count = protocol.counts(size)  # [S, B]
    top = count if protocol.negative_start == "blank" else size - count
    # Both directions keep an interval of ranks: [k, N) or [0, top).
    first = jnp.concatenate([count, jnp.zeros_like(top)])  # [2 S, B]
    last = jnp.concatenate([jnp.broadcast_to(size, count.shape), top])  # [2 S, B]

    def step(bounds: tuple[jax.Array, jax.Array]) -> Curve:
        low, high = bounds  # [B], [B]
        kept = (rank >= low[:, None]) & (rank < high[:, None]) | ~valid  # [B, N]
        probabilities = predict(mask(inputs, kept))  # [B, K]
        if output == "sigmoid":
            correct = jnp.take_along_axis(probabilities, reference[:, None], -1)[:, 0] >= 0.5
        elif output == "value":
            correct = jnp.full(len(scores), jnp.nan)
        else:
            correct = probabilities.argmax(axis=-1) == reference
        probability = jnp.take_along_axis(probabilities, targets[:, None], axis=-1)[:, 0]
        return Curve(correct, probability)

    both = jax.tree.map(jnp.transpose, jax.lax.map(step, (first, last)))  # [B, 2 S]
    if output == "sigmoid" and protocol.reference == "prediction":  # the first step is clean
        both = both._replace(correct=both.correct == both.correct[:, :1])
    both = both._replace(correct=both.correct.astype(both.probability.dtype))
    both = jax.tree.map(lambda x: jnp.where(unranked[:, None], jnp.nan, x), both)
    steps = len(protocol.percent)
    return Curves(
        positive=jax.tree.map(lambda curve: curve[:, :steps], both),
        negative=jax.tree.map(lambda curve: curve[:, steps:], both),
    )


def area(curve: jax.Array, protocol: Protocol) -> jax.Array:
    """A curve summed up by the protocol's rule: [..., S] -> [...].

    The trapezoid runs over the protocol's own range and is not divided by its width.
    """
    if curve.shape[-1] != len(protocol.percent):
        raise ValueError(f"{protocol.name} has {len(protocol.percent)} steps, got {curve.shape}")
    if protocol.rule == "mean":
        return curve.mean(axis=-1)
    return jnp.trapezoid(curve, jnp.asarray(protocol.fractions), axis=-1)


def areas(curves: Curves, protocol: Protocol) -> dict[str, jax.Array]:
    """The four areas of each image, [B] each.

    positive_auc, deletion: lower is better. negative_auc, insertion: higher is better. An area does
    not change when its curve is reversed, so insertion is taken from the negative curve as it is.
    """
    return {
        "positive_auc": area(curves.positive.correct, protocol),
        "negative_auc": area(curves.negative.correct, protocol),
        "insertion": area(curves.negative.probability, protocol),
        "deletion": area(curves.positive.probability, protocol),
    }


def upsample(maps: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Bilinear interpolation, half-pixel centres: [B, rows, cols] -> [B, H, W]."""
    if maps.ndim != 3 or maps.shape[1] > size[0] or maps.shape[2] > size[1]:
        raise ValueError(f"maps must be [B, rows, cols] no larger than {size}, got {maps.shape}")
    return jax.image.resize(maps, (len(maps), *size), "bilinear")


def image_features(
    protocol: Protocol,
    scores: jax.Array,
    grid: tuple[int, int],
    size: tuple[int, int],
    black: jax.Array,
) -> tuple[Callable[[jax.Array, jax.Array], jax.Array], jax.Array]:
    """The mask and the scores a protocol asks for on images.

    Pixels are patches of a grid as fine as the image; their scores are upsampled bilinearly.

    Args:
      protocol: its unit and fill are used.
      scores: [B, rows·cols] attribution of each patch, row by row.
      grid: (rows, cols).
      size: (H, W) of the images, multiples of rows and cols.
      black: [C] a black pixel after normalisation, -mean/std.

    Returns:
      mask(images [B, H, W, C], m [B, N]) -> images, and scores [B, N]; N is rows·cols or H·W.

    Raises:
      ValueError: scores that do not fill the grid, or a grid that does not divide the image.
    """
    if scores.ndim != 2 or scores.shape[1] != grid[0] * grid[1]:
        raise ValueError(f"scores must be [B, {grid[0] * grid[1]}], got shape {scores.shape}")
    if size[0] % grid[0] or size[1] % grid[1]:
        raise ValueError(f"a grid of {grid} does not divide images of {size}")
    if protocol.unit == "pixel":
        scores = upsample(scores.reshape(-1, *grid), size).reshape(len(scores), -1)
        grid = size
    fill = black if protocol.fill == "black" else 0.0

    def mask(images: jax.Array, m: jax.Array) -> jax.Array:
        return masking.patches(images, m.reshape(-1, *grid), fill)

    return mask, scores
