"""A text's explanation, for a terminal and as HTML."""

import dataclasses
import html
from typing import Any

import numpy as np

_PLAIN = "\x1b[0m"
_STRONG, _VERY_STRONG = 0.4, 0.8  # strengths from which on a word is marked without colour


@dataclasses.dataclass(frozen=True, eq=False)
class TextExplanation:
    """Why a text was given a class."""

    text: str
    spans: np.ndarray  # [n, 2] where each feature begins and ends in the text
    scores: np.ndarray  # [n] FEX's λ in [0, 1], FastSHAP's φ
    target: int  # the explained class
    probabilities: np.ndarray  # [K] f(x); of a long text, the mean over its windows
    labels: tuple[str, ...]  # names of the K classes
    num_windows: int  # parts the text was read in

    @property
    def words(self) -> tuple[str, ...]:
        """The features as they stand in the text, [n]."""
        return tuple(self.text[a:b] for a, b in self.spans)

    def __str__(self) -> str:
        """For a terminal: the strongest words in *stars* and **double stars**, and in colour."""
        marks = ["", "*", "**"]
        codes = ["", "\x1b[33m", "\x1b[1;31m"]
        strengths = self._strengths()
        level = (strengths >= _STRONG).astype(int) + (strengths >= _VERY_STRONG)
        parts = [
            f"{codes[k]}{marks[k]}{word}{marks[k]}{codes[k] and _PLAIN}"
            for k, word in zip(level, self.words, strict=True)
        ]
        return f"{self._headline()}\n{self._between(parts, lambda gap: gap)}"

    def to_html(self) -> str:
        """A paragraph for any browser, its words shaded and underlined by their score."""
        parts = []
        for word, score, strength in zip(self.words, self.scores, self._strengths(), strict=True):
            weight = "bold" if strength >= _VERY_STRONG else "normal"
            line = f"border-bottom:{3 * strength:.1f}px solid #c04f00" if strength > 0.1 else ""
            parts.append(
                f'<span title="{score:.3f}" style="'
                f"background:rgba(240,140,40,{0.7 * strength:.2f});"
                f'font-weight:{weight};{line}">{html.escape(word)}</span>'
            )
        return (
            f"<p><strong>{html.escape(self._headline())}</strong><br>"
            f"{self._between(parts, html.escape)}</p>"
        )

    def _strengths(self) -> np.ndarray:
        """How far each score is above the text's median, 1 for the highest: [n] in [0, 1]."""
        above = np.maximum(self.scores - np.median(self.scores), 0)
        return above / max(above.max(), 1e-9)

    def _headline(self) -> str:
        label, probability = self.labels[self.target], self.probabilities[self.target]
        return f"{label} ({probability:.0%})"

    def _between(self, parts: list[str], escape: Any) -> str:
        """The features with the text between them."""
        found, position = [], 0
        for part, (start, stop) in zip(parts, self.spans, strict=True):
            found += [escape(self.text[position:start]), part]
            position = stop
        return "".join([*found, escape(self.text[position:])])
