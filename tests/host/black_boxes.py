"""Functions that tests name as package.module:function."""

import numpy as np

from fex_jax import host

LABELS = ("dark", "bright")


def brightness(images: np.ndarray) -> np.ndarray:
    """The probability of "bright", [B]: the mean pixel over 255."""
    return images.mean((1, 2, 3)) / 255


def mood(texts: list[str]) -> list[float]:
    """The probability of "good", [B]: half, and a tenth more or less for each word that says so."""
    counts = [text.split().count("good") - text.split().count("bad") for text in texts]
    return [min(max(0.5 + count / 10, 0.0), 1.0) for count in counts]


class Holder:
    """A function inside a class."""

    count = staticmethod(lambda texts: [float(len(text)) for text in texts])


NOT_CALLABLE = 3
ready = host.host(brightness, labels=LABELS, input=(4, 4, 3))
critic = host.host(mood, labels=("bad", "good"), input="text")


def of_labels(*, last="day"):
    """A predictor made with an option."""
    return host.host(brightness, labels=("dark", last), input=(4, 4, 3))
