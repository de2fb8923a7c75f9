"""An explanation as the server hands it on."""

from typing import Any, NamedTuple

import numpy as np


class Found(NamedTuple):
    """Why one thing is of k classes."""

    classes: np.ndarray  # [k]
    attributions: np.ndarray  # [k, rows, cols] or [k, n]
    logits: np.ndarray  # the same
    probabilities: np.ndarray  # [K] f(x)
    own: dict[str, Any] = {}  # noqa: RUF012  # of texts: words and spans

    def json(self, labels: tuple[str, ...]) -> dict[str, Any]:
        """As /explain answers."""
        return {
            "probabilities": rounded(self.probabilities),
            "classes": [
                {
                    "target": int(target),
                    "label": labels[target],
                    "attributions": rounded(attributions),
                    "logits": rounded(logits),
                }
                for target, attributions, logits in zip(
                    self.classes, self.attributions, self.logits, strict=True
                )
            ],
            **self.own,
        }


def rounded(array: np.ndarray) -> list:
    """As JSON's numbers, of six places: more are rounding."""
    return np.round(np.asarray(array, float), 6).tolist()
