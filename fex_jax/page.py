"""A gallery of explanations as one HTML page that needs no other file."""

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from fex_jax import errors, escape, plotting, table_plots
from fex_jax.table_explanation import TableExplanation
from fex_jax.text_explanation import TextExplanation

DISPLAY = 256  # pixels of an image's shorter side in the gallery, at least
PLOT = (44, 14, 184, 184)  # left, top, width, height of a curve's axes in its 240 x 240 drawing


@dataclass(frozen=True)
class ClassMap:
    """A class and the attribution map that explains it."""

    label: str
    probability: float
    attribution: np.ndarray  # [h, w]


@dataclass(frozen=True)
class GalleryItem:
    """One input with the maps of its classes, the most probable class first."""

    image: np.ndarray  # [H, W, 3] uint8, or float in [0, 1]
    label: str  # the true one; empty if unknown
    classes: tuple[ClassMap, ...]
    positive: np.ndarray  # [S] probability of the first class, most important removed first
    negative: np.ndarray  # [S] the same, least important removed first
    template: ClassVar[str] = "gallery.html"

    def card(self) -> dict[str, Any]:
        """What the template shows of it, beside its curves."""
        if not self.classes:
            raise ValueError("an item needs at least one class")
        image = plotting.rgb(self.image)
        # Whole factors and nearest neighbours keep the pixels of a small image square and sharp.
        factor = -(-DISPLAY // min(image.shape[:2]))
        large = image.repeat(factor, axis=0).repeat(factor, axis=1)
        return {
            "label": self.label,
            "image": _data_uri(image, lossless=factor > 1),
            "pixelated": factor > 1,
            "classes": [
                {
                    "label": shown.label,
                    "answer": shown.probability,
                    "image": _data_uri(plotting.overlay(large, shown.attribution)),
                }
                for shown in self.classes
            ],
        }


@dataclass(frozen=True)
class TextItem:
    """One text with the explanations of its classes, the most probable class first."""

    label: str  # the true one; empty if unknown
    explanations: tuple[TextExplanation, ...]
    positive: np.ndarray  # as in `GalleryItem`
    negative: np.ndarray
    strongest: Mapping[str, str]  # method -> its highest words; empty for none
    template: ClassVar[str] = "text_gallery.html"

    def card(self) -> dict[str, Any]:
        """As of `GalleryItem`."""
        if not self.explanations:
            raise ValueError("an item needs at least one class")
        first = self.explanations[0]
        return {
            "label": self.label,
            "explanations": [explanation.to_html() for explanation in self.explanations],
            "explained": first.labels[first.target],
            "strongest": self.strongest,
        }


def gallery(
    path: str | Path,
    items: Sequence[GalleryItem] | Sequence[TextItem],
    fractions: Mapping[str, Sequence[float]],
    title: str,
    facts: Mapping[str, str],
    results: Mapping[str, Mapping[str, str]],
    quantity: str = "Probability",
) -> None:
    """Writes a gallery of explanations as one HTML file that needs no other.

    Args:
      path: the file to write.
      items: the examples, at least one; images or texts.
      fractions: {"positive": [S], "negative": [S]} of the features removed along the items' curves.
      title: of the page.
      facts: what a reader must know about the run, name -> value.
      results: method -> {metric: value}, a table; empty for none. A metric that a method lacks is
        shown as a dash.
      quantity: what f answers; "Probability" is drawn from 0 to 1, another from its least value to
        its largest.

    Raises:
      ValueError: no items, an item without classes, arrays that `plotting.overlay` refuses, or
        curves that are not S finite values.
    """
    if not items:
        raise ValueError("a gallery needs at least one item")
    html = _template(items[0].template).render(
        title=title,
        facts=facts,
        metrics=list(dict.fromkeys(metric for row in results.values() for metric in row)),
        results=results,
        legend=_legend(),
        plot=PLOT,
        quantity=quantity,
        items=[item.card() | _svg_curves(item, fractions, quantity) for item in items],
    )
    Path(path).write_text(html, encoding="utf-8")


def table_gallery(
    path: str | Path,
    explanation: TableExplanation,
    title: str,
    facts: Mapping[str, str],
    most: int,
    shown: int,
) -> None:
    """Writes pictures of a table's attributions as one HTML file that needs no other.

    Args:
      path: the file to write.
      explanation: of at least one row.
      title, facts: as of `gallery`.
      most: rows of the picture of all, at most.
      shown: rows that have a picture of their own, the first ones, where values add up.
    """
    if not len(explanation):
        raise ValueError("a gallery needs at least one row")

    def png(draw: Callable, *options: Any) -> str:
        buffer = io.BytesIO()
        draw(buffer, *options)
        return escape.url(buffer.getvalue())

    first, adds_up = explanation.first(most), explanation.base_values is not None
    html = _template("table_gallery.html").render(
        title=title,
        facts=facts,
        results={},
        quantity=f"one of {explanation.quantity}",
        whole={
            "Which features matter most": png(table_plots.bar, explanation),
            f"{len(first)} rows, a dot each": png(table_plots.beeswarm, first),
        },
        adds_up=adds_up,
        rows={
            f"Row {explanation.attributions.index[row]}": png(
                table_plots.waterfall, explanation, row
            )
            for row in range(min(shown, len(explanation)) if adds_up else 0)
        },
    )
    Path(path).write_text(html, encoding="utf-8")


def _template(name: str) -> Any:
    errors.require("jinja2")
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        # Beside markup, which autoescaping takes care of, what steers; a macro's output is safe.
        finalize=lambda value: value if hasattr(value, "__html__") else escape.terminal(value),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)


def _svg_curves(
    item: GalleryItem | TextItem, fractions: Mapping[str, Sequence[float]], quantity: str
) -> dict[str, Any]:
    found = {
        name: plotting.finite_curve(getattr(item, name), fractions[name], f"{name} curve")
        for name in ("positive", "negative")
    }
    low, high = 0.0, 1.0
    if quantity != "Probability":
        both = np.concatenate([values for _, values in found.values()])
        low, high = float(both.min()), float(both.max())
        high += low == high
    ticks = [(share, f"{low + share * (high - low):.3g}") for share in (0, 0.5, 1)]
    drawn = {name: _svg_curve(*curve, low, high) for name, curve in found.items()}
    return drawn | {"ticks": ticks}


def _svg_curve(
    fractions: np.ndarray, values: np.ndarray, low: float, high: float
) -> dict[str, str]:
    """What the template draws and says of one curve."""
    return {
        "points": _points(fractions, (values - low) / (high - low)),
        "first": f"{values[0]:.2f}",
        "half": f"{np.interp(0.5, fractions, values):.2f}",
    }


def _points(fractions: np.ndarray, values: np.ndarray) -> str:
    """The points of an SVG polyline."""
    left, top, width, height = PLOT
    pairs = zip(fractions, values, strict=True)
    return " ".join(f"{left + width * x:.1f},{top + height * (1 - y):.1f}" for x, y in pairs)


def _legend() -> str:
    """`plotting.overlay` on a black and on a white image, attribution rising to the right."""
    image = np.zeros((32, 256, 3), np.uint8)
    image[16:] = 255
    return _data_uri(plotting.overlay(image, np.linspace(0, 1, 256)[None]), lossless=True)


def _data_uri(image: np.ndarray, lossless: bool = False) -> str:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "WEBP", quality=90, lossless=lossless)
    return escape.url(buffer.getvalue(), "webp")
