"""How results show themselves in a notebook."""

import io
from typing import Any

import numpy as np
from PIL import Image

from fex_jax import escape

SHOWN = 8  # pictures of a result
_SIDE = 224  # pixels, the longer


def pictures(result: Any) -> str:
    """The first pictures of an `Explanation` under their maps: HTML that needs no other file.

    The opacity of a place is its attribution, φ over its largest; negative φ are blue.
    """
    attributions, targets = result.attributions, result.targets
    if targets.ndim == 1:
        attributions, targets = attributions[:, None], targets[:, None]
    count = len(targets) if result.pictures is None else len(result.pictures)
    figures = [
        _figure(result, i, int(target), attribution)
        for i in range(min(count, SHOWN))
        for target, attribution in zip(targets[i], attributions[i], strict=True)
    ]
    more = len(targets) - min(count, SHOWN)
    rest = f"<p>… and {more} more</p>" if more else ""
    return f'<div style="display:flex;flex-wrap:wrap;gap:12px">{"".join(figures)}</div>{rest}'


def summary(result: Any) -> str:
    """An `Explanation` in a few lines, as Python shows it: what is explained, and what there is."""
    listed = result.targets.reshape(len(result.targets), -1)
    lines = [
        f"  {i}: " + ", ".join(escape.terminal(named(result, i, int(target))) for target in targets)
        for i, targets in enumerate(listed[:SHOWN])
    ]
    if len(listed) > SHOWN:
        lines.append(f"  … and {len(listed) - SHOWN} more")
    shapes = ", ".join(
        f"{name} {list(value.shape)}"
        for name, value in result._asdict().items()
        if isinstance(value, np.ndarray)
    )
    return "\n".join([f"Explanation: {shapes}, labels", *lines])


def named(result: Any, index: int, target: int) -> str:
    """The class that is explained, and what f says of it."""
    if result.probabilities is None:
        return result.labels[target]
    return f"{result.labels[target]} ({escape.answer(float(result.probabilities[index, target]))})"


def _figure(result: Any, index: int, target: int, attribution: np.ndarray) -> str:
    attribution = np.atleast_2d(attribution)  # of features in a row
    caption = escape.html(named(result, index, target))
    rows, columns = (attribution if result.pictures is None else result.pictures[index]).shape[:2]
    scale = _SIDE / max(rows, columns)
    size = f"width:{scale * columns:.0f}px;height:{scale * rows:.0f}px"
    layers = [] if result.pictures is None else [result.pictures[index]]
    images = "".join(
        f'<img alt="" src="{_data_uri(pixels)}" style="position:absolute;left:0;{size}">'
        for pixels in (*layers, _colours(attribution))
    )
    return (
        f'<figure style="margin:0"><div style="position:relative;background:#777;{size}">{images}'
        f"</div><figcaption>{caption}</figcaption></figure>"
    )


def _colours(attribution: np.ndarray) -> np.ndarray:
    """A map as orange, blue where it is negative, uint8 [h, w, 4]; λ, in [0, 1], as it is."""
    largest = np.abs(attribution).max()
    scale = 1 if attribution.min() >= 0 and largest <= 1 else max(largest, 1e-9)
    opacity = np.abs(attribution)[..., None] / scale
    colour = np.where(attribution[..., None] < 0, (40, 90, 255), (255, 110, 20))
    return np.concatenate([colour, 217 * np.sqrt(opacity)], -1).astype(np.uint8)


def _data_uri(pixels: np.ndarray) -> str:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return escape.url(file.getvalue())
