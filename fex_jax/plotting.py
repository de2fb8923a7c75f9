"""Pictures of attributions: overlays and plots."""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from fex_jax import errors, escape, notebook
from fex_jax.metrics import is_flat

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from fex_jax.modalities.images import Explanation
    from fex_jax.probing import Probe

# Okabe and Ito's palette for colour-blind readers; a grey replaces its yellow, too pale on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000", "#7F7F7F")
MARKERS = "os^Dv<>P"
_LINES = "-", "--", ":"


def overlay(
    image: np.ndarray, attribution: np.ndarray, alpha: float = 0.85, cmap: str = "plasma"
) -> np.ndarray:
    """An attribution map laid over its image.

    The image is turned into mid greys, so that colour means attribution alone and the bright end of
    the colour map stands out on black and on white. Opacity is proportional to the attribution s,
    scaled to [0, 1]: alpha · s · colour(s) + (1 - alpha · s) · grey. Where s = 0 the grey image is
    left as it is.

    Args:
      image: [H, W, 3] uint8, or float in [0, 1].
      attribution: [h, w] of any resolution, interpolated bicubically.
      alpha: opacity of the most important place, in [0, 1].
      cmap: a matplotlib colour map; its end must be bright.

    Returns:
      [H, W, 3] uint8.

    Raises:
      ValueError: wrong shapes, types or ranges; NaN or infinity in the attribution.
    """
    errors.require("matplotlib")
    import matplotlib

    image = rgb(image)
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha must be in [0, 1], got {alpha}")
    scaled = _scaled(attribution, image.shape[:2])  # [H, W]
    luma = image @ np.array([0.299, 0.587, 0.114]) / 255  # ITU-R BT.601
    grey = (0.12 + 0.45 * luma)[..., None]
    opacity = alpha * scaled[..., None]
    colour = matplotlib.colormaps[cmap](scaled)[..., :3]
    return np.rint(255 * (opacity * colour + (1 - opacity) * grey)).astype(np.uint8)


def rgb(image: np.ndarray) -> np.ndarray:
    """[H, W, 3] uint8, whichever of the two forms came."""
    image = np.asarray(image)
    if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise ValueError(f"image must be [H, W, 3], got shape {image.shape}")
    if image.dtype == np.uint8:
        return image
    if not np.issubdtype(image.dtype, np.floating):
        raise ValueError(f"image must be uint8 or float, got {image.dtype}")
    levels = np.rint(255 * image)  # to eight bits: values a rounding outside [0, 1] are inside
    if not (levels.min() >= 0 and levels.max() <= 255):  # also false for NaN
        raise ValueError(f"a float image must be in [0, 1], got {image.min()} to {image.max()}")
    return levels.astype(np.uint8)


def _scaled(attribution: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """An attribution [h, w] at pixel resolution, robustly scaled to [0, 1]."""
    attribution = np.asarray(attribution, np.float32)
    if attribution.ndim != 2 or attribution.size == 0:
        raise ValueError(f"attribution must be [h, w], got shape {attribution.shape}")
    if not np.isfinite(attribution).all():
        raise ValueError("attribution must be finite, got NaN or infinity")
    if is_flat(attribution):
        return np.zeros(size, np.float32)
    least, most = attribution.min(), attribution.max()
    large = Image.fromarray(attribution).resize(size[::-1], Image.Resampling.BICUBIC)
    pixels = np.clip(np.asarray(large), least, most)  # cubic interpolation overshoots
    # Clips lone pixels, but not a lone patch: one of 14 x 14 covers 0.5 % of the image.
    low, high = np.percentile(pixels, [0.1, 99.9])
    if is_flat(np.array([low, high])):
        low, high = least, most
    return np.clip((pixels - low) / (high - low), 0, 1)


def curves(
    path: str | Path,
    methods: Mapping[str, Mapping[str, np.ndarray]],
    fractions: Mapping[str, Sequence[float]],
    title: str = "",
    ylabel: str = "Unchanged predictions",
) -> None:
    """Draws perturbation curves of several methods, both directions side by side, as a PNG.

    Args:
      path: the file to write.
      methods: name -> {"positive": [S], "negative": [S]}, values in [0, 1].
      fractions: {"positive": [S], "negative": [S]} of the features removed at each step.
      title: above both panels.
      ylabel: what the values are: a share of predictions, or a probability.

    Raises:
      ValueError: no methods, or a curve that is not S finite values.
    """
    headings = {
        "positive": "Most important removed first\nlower is better",
        "negative": "Least important removed first\nhigher is better",
    }
    panels = {
        heading: {
            name: finite_curve(
                curve[direction], fractions[direction], f"{direction} curve of {name}"
            )
            for name, curve in methods.items()
        }
        for direction, heading in headings.items()
    }
    figure = _line_panels(panels, title, "Features removed", ylabel)
    for axes in figure.axes:
        axes.set(xlim=(0, 1), ylim=(0, 1))
        axes.xaxis.set_major_formatter("{x:.0%}")
    figure.savefig(path, format="png", dpi=160)


def survival(path: str | Path, probe: "Probe", title: str = "") -> None:
    """Draws how f's answer goes as features are removed at random, as a PNG; see `Probe`."""
    shares = np.array([1.0, *probe.shares, 0.0])
    removed, answers = 1 - shares, np.array([probe.clean, *probe.answers, probe.blank])
    lines = {"": {"f's mean answer": (removed, answers)}}
    figure = _line_panels(lines, title, "Features removed at random", "Answer")
    figure.axes[0].xaxis.set_major_formatter("{x:.0%}")
    figure.axes[0].set(xlim=(0, 1))
    figure.savefig(path, format="png", dpi=160)


def curves_by_top(
    path: str | Path,
    panels: Mapping[str, Mapping[str, np.ndarray]],
    top: Sequence[int],
    title: str = "",
) -> None:
    """Draws what the k highest words are worth, for several k, as a PNG (the paper's Figure 3).

    Args:
      path: the file to write.
      panels: heading -> {method: [S]}, side by side.
      top: the k, [S].
      title: above the panels.

    Raises:
      ValueError: no methods, or a curve that is not S finite values.
    """
    lines = {
        heading: {name: finite_curve(values, top, heading) for name, values in methods.items()}
        for heading, methods in panels.items()
    }
    figure = _line_panels(lines, title, "Words", "F1", shared=False)
    figure.savefig(path, format="png", dpi=160)


def _line_panels(
    panels: Mapping[str, Mapping[str, tuple[np.ndarray, np.ndarray]]],
    title: str,
    xlabel: str,
    ylabel: str,
    shared: bool = True,
) -> Any:
    """A matplotlib figure with a panel for each heading and a line (x, y) for each method."""
    errors.require("matplotlib")
    from matplotlib.figure import Figure  # without pyplot: no global state, no display

    if not all(panels.values()):
        raise ValueError("methods must name at least one method")
    figure = Figure(figsize=(1 + 4 * len(panels), 4.6), layout="constrained")
    figure.get_layout_engine().set(wspace=0.06)  # type: ignore[call-arg]
    figure.suptitle(escape.plot(title), fontweight="bold")
    grid = figure.subplots(1, len(panels), sharey=shared)
    for axes, (heading, lines) in zip(np.atleast_1d(grid), panels.items(), strict=True):
        for index, (name, line) in enumerate(lines.items()):
            axes.plot(
                *line,
                label=escape.plot(name),
                color=COLOURS[index % len(COLOURS)],
                # Further rounds of the same colours are told apart by their dashes.
                linestyle=_LINES[index // len(COLOURS) % len(_LINES)],
                marker=MARKERS[index % len(MARKERS)],
                markersize=4,
                clip_on=False,
            )
        axes.set_title(escape.plot(heading), fontsize=10)
        axes.set_xlabel(xlabel)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="0.9")
        axes.set_axisbelow(True)
    figure.axes[0].set_ylabel(escape.plot(ylabel))
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", frameon=False)
    return figure


def finite_curve(
    values: np.ndarray, fractions: Sequence[float], name: str
) -> tuple[np.ndarray, np.ndarray]:
    """Fractions removed, ascending, and the values there."""
    values = np.asarray(values, np.float64)
    if values.shape != (len(fractions),) or not np.isfinite(values).all():
        raise ValueError(f"the {name} must be {len(fractions)} finite values, got {values}")
    order = np.argsort(fractions)
    return np.asarray(fractions)[order], values[order]


def dots(path: str | Path, panels: Mapping[str, Mapping[str, np.ndarray]]) -> None:
    """Draws the runs of several choices as dots in a row a choice, their means as lines, as a PNG.

    Args:
      path: the file to write.
      panels: heading -> {choice: [runs]}, side by side; the first choice is marked in all rows.
    """
    errors.require("matplotlib")
    from matplotlib.figure import Figure

    choices = list(next(iter(panels.values())))
    figure = Figure(figsize=(2 + 1.7 * len(panels), 1 + 0.28 * len(choices)), layout="constrained")
    grid = figure.subplots(1, len(panels), sharey=True, squeeze=False)
    for axes, (heading, runs) in zip(grid[0], panels.items(), strict=True):
        axes.axvline(np.mean(runs[choices[0]]), color="0.8", linewidth=1)
        for row, values in enumerate(runs.values()):
            axes.plot(values, np.full(len(values), row), "o", color=COLOURS[0], markersize=3.5)
            axes.plot(np.mean(values), row, "|", color=COLOURS[1], markersize=11)
        axes.set_title(escape.plot(heading), fontsize=10)
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_axisbelow(True)
        axes.grid(axis="y", color="0.93")
    grid[0, 0].set_yticks(range(len(choices)), map(escape.plot, choices))
    grid[0, 0].invert_yaxis()
    figure.savefig(path, format="png", dpi=160)


def comparison(
    path: str | Path,
    images: np.ndarray,
    labels: Sequence[str],
    maps: Mapping[str, np.ndarray],
) -> None:
    """Draws the maps of several methods beside their images, a row an image, as a PNG.

    Args:
      path: the file to write.
      images: [n, H, W, 3] uint8.
      labels: the explained class of each image.
      maps: method -> [n, h, w].
    """
    errors.require("matplotlib")
    from matplotlib.figure import Figure

    columns = 1 + len(maps)
    figure = Figure(figsize=(1.25 * columns, 1.3 * len(images) + 0.4), layout="constrained")
    grid = figure.subplots(len(images), columns, squeeze=False)
    for row, (image, label, axes) in enumerate(zip(images, labels, grid, strict=True)):
        axes[0].imshow(image)
        axes[0].set_ylabel(escape.plot(label), fontsize=9)
        for cell, attributions in zip(axes[1:], maps.values(), strict=True):
            cell.imshow(overlay(image, attributions[row]))
        for cell in axes:
            cell.set(xticks=[], yticks=[])
            cell.spines[:].set_visible(False)
    for cell, name in zip(grid[0], ("input", *maps), strict=True):
        cell.set_title(escape.plot(name).replace("_", "\n", 1), fontsize=8)
    figure.savefig(path, format="png", dpi=100)


def grid(result: "Explanation") -> "Figure":
    """Draws what an explainer of pictures found: a row a picture, before the maps of its classes.

    The pictures are those that the result holds, its first eight, as the classifier sees them. Each
    map is an `overlay`, under its class and the classifier's answer, scaled by itself: two maps of
    a picture have the same colour where each is largest.

    Args:
      result: of B pictures; maps [B, h, w], or [B, k, h, w] with `top_k`.

    Returns:
      A matplotlib figure: save it by `.savefig(path)`. A notebook shows it after
      `%matplotlib inline`.

    Raises:
      ValueError: a result without pictures, or of texts or tables.
    """
    errors.require("matplotlib")
    from matplotlib.figure import Figure

    pictures = getattr(result, "pictures", None)
    if pictures is None:
        raise ValueError(
            f"result is {type(result).__name__} without pictures; "
            "expected what an explainer of pictures returns"
        )
    targets = result.targets.reshape(len(result.targets), -1)  # [B, k]
    maps = result.attributions.reshape(*targets.shape, *result.attributions.shape[-2:])
    size = len(pictures), 1 + targets.shape[1]
    figure = Figure(figsize=(2.2 * size[1], 2.4 * size[0]), layout="constrained")
    for i, row in enumerate(figure.subplots(*size, squeeze=False)):
        row[0].imshow(pictures[i])
        for cell, target, attribution in zip(row[1:], targets[i], maps[i], strict=True):
            cell.imshow(overlay(pictures[i], attribution))
            title = escape.plot(notebook.named(result, i, int(target)))
            cell.set_title(textwrap.fill(title, 34, break_long_words=False), fontsize=9)
        for cell in row:
            cell.set_axis_off()
    return figure
