"""Texts as tokens, and what of them a model reads at a time: windows, and shorter pairs."""

from typing import NamedTuple

import numpy as np

Pair = tuple[str, str]


class Text(NamedTuple):
    """One text of t tokens, CLS and SEP not included, and its n features.

    Of a pair the whole string is both in lines of their own, and its tokens include what stands
    between them.
    """

    ids: np.ndarray  # [t]
    features: np.ndarray  # [t] the feature a token belongs to; -1 for special tokens typed in it
    spans: np.ndarray  # [n, 2] where a feature begins and ends in the whole string
    string: str  # this part of it
    start: int = 0  # where in the whole it begins
    pair: Pair | None = None  # the strings of a pair
    types: np.ndarray | None = None  # [t] of a pair, and of the SEP after it

    @property
    def second(self) -> int:
        """The first feature of a pair's second text; 0: there is none."""
        return 0 if self.pair is None else int((self.spans[:, 0] <= len(self.pair[0])).sum())

    def part(self, first: int, last: int) -> "Text":
        """Features first to last - 1 with the tokens between them, numbered from 0."""
        begin = self.spans[first, 0] - self.start if first else 0
        end = self.spans[:last, 1].max() - self.start if last < len(self.spans) else None
        start, stop = np.searchsorted(np.maximum.accumulate(self.features), [first, last])
        start = start if first else 0  # special tokens typed before the first feature
        features = self.features[start:stop]
        return Text(
            self.ids[start:stop],
            np.where(features < 0, -1, features - first),
            self.spans[first:last],
            self.string[begin:end],
            self.start + int(begin),
        )


def windows(text: Text, max_length: int, overlap: int) -> list[tuple[int, Text]]:
    """Parts of a text that fit the model, each with the number of its first feature in the text.

    Every feature is in some part. Neighbours share as many whole features as fit into `overlap`
    tokens, so that no feature is seen only at a border. No word is split.

    Raises:
      ValueError: a feature or a pair that is longer than the window, or an overlap that leaves no
        advance.
    """
    size = max_length - 2
    if text.pair is not None:
        if len(text.ids) > size:
            raise ValueError(
                f"a pair of {len(text.ids) + 2} tokens is longer than the window of {max_length}, "
                "and parts of it would not be what was asked: shorten its texts"
            )
        return [(0, text)]
    if not 0 <= overlap < size:
        raise ValueError(f"overlap is {overlap}; expected 0 to {size - 1} tokens")
    order = np.maximum.accumulate(text.features)
    # Tokens before each feature; special tokens typed in a text go with the feature before them.
    before = np.append(np.searchsorted(order, np.arange(len(text.spans))), len(order))
    before[0] = 0
    longest = int(np.diff(before).max())
    if longest > size:
        raise ValueError(
            f"a single feature of {longest} tokens is longer than the window of {size}; use "
            "unit='token'"
        )
    parts, first = [], 0
    while True:
        last = int(np.searchsorted(before, before[first] + size, side="right")) - 1
        parts.append((first, text.part(first, last)))
        if last == len(text.spans):
            return parts
        again = int(np.searchsorted(before, before[last] - overlap))
        first = max(again, first + 1)


def shortened(text: Text, max_length: int) -> Pair:
    """A pair that is too long without the last words of the longer of its texts, then of both.

    Raises:
      ValueError: nothing would remain of one text.
    """
    first, second = text.pair or ("", "")
    sizes = np.bincount(text.features[text.features >= 0], minlength=len(text.spans))
    sides = [list(sizes[: text.second]), list(sizes[text.second :])]
    over = len(text.ids) + 2 - max_length
    while over > 0:
        longer = max(sides, key=sum)
        over -= longer.pop()
        if not longer:
            raise ValueError(
                f"a pair cannot be cut to {max_length} tokens: its first words have more"
            )
    stop, end = (
        int(text.spans[start : start + len(side), 1].max())
        for start, side in zip((0, text.second), sides, strict=True)
    )
    return first[:stop], second[: end - len(first) - 1]
