"""Short film reviews with exact rationales, written from clauses and sentences.

A review holds one to four opinions ("the plot was never dull") among neutral sentences on the
story, its setting, the makers, and where it was seen. Every review is a function of (seed, split,
index): nothing is stored, and the same three always give the same review.

The label is what most of the opinions say; there are no ties. The rationale marks, among the words
of `text.split()`, those of the opinion expressions that agree with the label, negators included:
in "the plot was never dull" it marks "never dull", not the noun, the verb "was" or adverbs of
degree. Opinions of the other class are not marked.

An expression and the noun it is said of make a pair, and each pair belongs to one split: a reader
of the training reviews knows all words of a test review, but has met none of its opinions.
"""

import random
import re
import zlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from fex_jax import review_words

# The tenths of all pairs of noun and expression that a split is written from.
SPLITS = {"train": range(8), "validation": range(8, 9), "test": range(9, 10)}

# How opinions are said; "negated" takes an adjective of the other class. Where adjectives were
# denied as often as not, they would tell nothing by themselves, and take far longer to learn.
_FORMS = ("plain", "plain", "attribute", "attribute", "negated", "phrase", "verb", "verb")
# How many opinions agree with the label, and how many do not.
_BALANCES = ((1, 0), (1, 0), (2, 0), (2, 0), (3, 0), (2, 1), (3, 1), (3, 1))


class Review(NamedTuple):
    """One review."""

    text: str
    label: int  # 0 negative, 1 positive
    rationale: np.ndarray  # bool, for every word of `text.split()`


_Pick = Callable[[Sequence[Any]], Any]


def write(seed: int, split: str, index: int) -> Review:
    """Review number `index` of the endless sequence of a seed and a split.

    Raises:
      ValueError: an unknown split.
    """
    words = draft(seed, split, index).split()
    opinions = np.array([word[0] if word[0] in "+-" else " " for word in words])
    # The expressions of a class stand in as many runs of words as it has opinions.
    begins = opinions != np.append(" ", opinions[:-1])
    label = int((begins & (opinions == "+")).sum() > (begins & (opinions == "-")).sum())
    text = " ".join(word.lstrip("+-") for word in words)
    return Review(text, label, opinions == "-+"[label])


def draft(seed: int, split: str, index: int) -> str:
    """The same review with a sign, + or -, before every word of an opinion expression."""
    if split not in SPLITS:
        raise ValueError(f"split {split!r} is unknown; choose one of {', '.join(SPLITS)}")
    # Python's generator is many times faster than numpy's for single numbers; of its functions,
    # random() is the one whose numbers no version may change.
    uniform = random.Random(f"{seed} {split} {index}").random

    def pick(options: Sequence[Any]) -> Any:
        return options[int(uniform() * len(options))]

    def shuffled(items: Sequence[Any]) -> list[Any]:
        return sorted(items, key=lambda _: uniform())

    agree, disagree = pick(_BALANCES)
    own, other = pick(("+-", "-+"))
    signs = shuffled([own] * agree + [other] * disagree)
    copulas, used = pick(review_words.COPULAS), set()
    clauses = [_clause(pick, split, sign, copulas, used) for sign in signs]
    sentences = []
    while clauses:
        place = len(clauses) - 1
        sentence = clauses.pop()
        if clauses and pick((True, False)):
            frames = review_words.BOTH if signs[place] == signs[place - 1] else review_words.AGAINST
            sentence = pick(frames).format(sentence, clauses.pop())
        sentences.append(pick(review_words.OPENERS) + sentence + ".")
    room = min(5 - len(sentences), pick((1, 2, 3)))
    sentences += [_neutral(pick, pick(theme)) for theme in shuffled(review_words.NEUTRAL)[:room]]
    return " ".join(sentence[0].upper() + sentence[1:] for sentence in shuffled(sentences))


def _clause(pick: _Pick, split: str, sign: str, copulas: tuple[str, str], used: set[str]) -> str:
    """An opinion of one class on what is not `used` yet, drawn until it is one of the split's."""
    against = "+-"[sign == "+"]
    while True:
        topic, form = pick(review_words.TOPICS), pick(_FORMS)
        noun = pick(topic.nouns)
        match form:
            case "negated":
                expression = (
                    f"{pick(review_words.NEGATORS)} {pick(topic.opinions[against].adjectives)}"
                )
            case "phrase":
                expression = pick(topic.opinions[sign].phrases)
            case "verb":
                expression = pick(topic.opinions[sign].verbs)
            case _:
                expression = pick(topic.opinions[sign].adjectives + review_words.STRONG[sign])
        about = topic.determiner if topic.determiner == "this" else noun  # one name for the film
        if about not in used and zlib.crc32(f"{expression}, {noun}".encode()) % 10 in SPLITS[split]:
            break
    used.add(about)
    name = noun.removeprefix("a ")
    several = name.endswith("s")
    said = " ".join(sign + word for word in expression.removeprefix("I ").split())
    if expression.startswith("I "):
        return f"I {said} {topic.determiner} {name}"
    if form == "attribute":
        article = "an " if expression[0] in "aeiou" else "a "
        return f"{pick(topic.frames)} {article if name != noun else ''}{said} {name}"
    if form == "verb":
        return f"{topic.determiner} {name} {said}"
    degree = "" if form == "negated" else pick(review_words.DEGREES)
    return f"{topic.determiner} {name} {copulas[several]} {degree}{said}"


def _neutral(pick: _Pick, template: str) -> str:
    """A template with its slots filled, none with the words of another."""
    used: set[str] = set()

    def fill(slot: re.Match) -> str:
        used.add(word := pick([word for word in review_words.SLOTS[slot[1]] if word not in used]))
        return word

    return re.sub(r"{(\w+)}", fill, template)
