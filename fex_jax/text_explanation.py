"""A text's explanation, for a terminal and as HTML."""

import dataclasses
from collections.abc import Callable

import numpy as np

from fex_jax import escape
from fex_jax.metrics import is_flat

_PLAIN = "\x1b[0m"
_STRONG, _VERY_STRONG = 0.4, 0.8  # strengths from which on a word is marked without colour
_NOTHING = 1e-6  # φ, a difference of probabilities, that is rounding


@dataclasses.dataclass(frozen=True, eq=False)
class TextExplanation:
    """Why a text, or a pair of them, was given a class.

    Features that share a character, as the tokens of an emoji's bytes do, are shown as one word,
    with the largest of their λ or the sum of their φ. Blanks are no words.
    """

    text: str  # of a pair, both in lines of their own
    spans: np.ndarray  # [n, 2] where each feature begins and ends in the text
    scores: np.ndarray  # [n] FEX's λ in [0, 1], FastSHAP's φ
    target: int  # the explained class
    # [K] f(x), of a regression its values; of a long text, the mean over its windows; or None
    probabilities: np.ndarray | None
    labels: tuple[str, ...]  # names of the K classes
    num_windows: int  # parts the text was read in
    additive: bool = False  # scores are φ, and not λ
    second: int = 0  # the first feature of a pair's second text; 0: there is one text
    # how much more f is expected to believe in the class of what the explainer's own scores keep
    # than of the rest, in [−1, 1]; None: not learned
    faithfulness: float | None = None

    @property
    def words(self) -> tuple[str, ...]:
        """The features as they stand in the text, [n]."""
        return tuple(self.text[a:b] for a, b in self.spans)

    def __str__(self) -> str:
        """For a terminal: the strongest words in *stars* and **double stars**, and in colour."""

        def show(word: str, _: float, strength: float) -> str:
            level = int(strength >= _STRONG) + int(strength >= _VERY_STRONG)
            mark, code = "*" * level, ("", "\x1b[33m", "\x1b[1;31m")[level]
            return f"{code}{mark}{escape.terminal(word)}{mark}{code and _PLAIN}"

        return f"{escape.terminal(self._headline())}\n{self._render(show, escape.terminal)}"

    def to_html(self) -> str:
        """A paragraph for any browser, its words shaded and underlined by their score."""

        def show(word: str, score: float, strength: float) -> str:
            weight = "bold" if strength >= _VERY_STRONG else "normal"
            line = f"border-bottom:{3 * strength:.1f}px solid #c04f00" if strength > 0.1 else ""
            return (
                f'<span title="{score:.3f}" style="'
                f"background:rgba(240,140,40,{0.7 * strength:.2f});"
                f'font-weight:{weight};{line}">{escape.html(word)}</span>'
            )

        return (
            f"<p><strong>{escape.html(self._headline())}</strong><br>"
            f"{self._render(show, self._html)}</p>"
        )

    _repr_html_ = to_html  # what a notebook shows

    def _html(self, between: str) -> str:
        """What stands between words; a pair's texts begin a line each."""
        found = escape.html(between)
        return found.replace("\n", "<br>") if self.second else found

    def _headline(self) -> str:
        label = self.labels[self.target]
        if self.probabilities is None:
            return label
        return f"{label} ({escape.answer(self.probabilities[self.target])})"

    def _render(
        self, show: Callable[[str, float, float], str], between: Callable[[str], str]
    ) -> str:
        """The whole text: words by show(word, score, strength), the rest by `between`."""
        spans, scores = self._shown()
        found, position = [], 0
        for (start, stop), score, strength in zip(
            spans, scores, strengths(scores, self.additive), strict=True
        ):
            found += [
                between(self.text[position:start]),
                show(self.text[start:stop], score, strength),
            ]
            position = stop
        return "".join([*found, between(self.text[position:])])

    def _shown(self) -> tuple[list[tuple[int, int]], np.ndarray]:
        """Spans and scores of what is shown as a word: no blanks, no character twice."""
        spans: list[tuple[int, int]] = []
        groups: list[list[float]] = []
        for index in np.argsort(self.spans[:, 0], kind="stable"):
            start, stop = map(int, self.spans[index])
            if not self.text[start:stop].strip():
                continue
            if spans and start < spans[-1][1]:
                spans[-1] = spans[-1][0], max(stop, spans[-1][1])
                groups[-1].append(self.scores[index])
            else:
                spans.append((start, stop))
                groups.append([self.scores[index]])
        merge = np.sum if self.additive else np.max
        return spans, np.array([merge(group) for group in groups])


class TextExplanations(list[TextExplanation]):
    """Several of them, which a notebook shows."""

    def _repr_html_(self) -> str:
        return "".join(explanation.to_html() for explanation in self)


def strengths(scores: np.ndarray, additive: bool) -> np.ndarray:
    """How strongly words are marked, [n] → [n] in [0, 1].

    φ: its positive part over the largest. λ: how far it is above the text's median, over that of
    the highest word; or, if that is more, how far it is above 1/2, over 1/2. Where the median is
    the highest, the least takes its place. A text's only word has 1.
    """
    if not len(scores):
        return np.zeros(0)
    if additive:
        return np.maximum(scores, 0) / max(scores.max(), _NOTHING)
    if len(scores) == 1:
        return np.ones(1)
    absolute = np.maximum(2 * scores - 1, 0)
    if is_flat(scores):
        return absolute
    highest, median = scores.max(), np.median(scores)
    reference = scores.min() if is_flat(np.array([highest, median])) else median
    return np.maximum(absolute, np.maximum(scores - reference, 0) / (highest - reference))
