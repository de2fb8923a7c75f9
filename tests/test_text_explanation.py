"""Words on a terminal and in HTML: what is marked, and what is printed."""

import html
import re

import numpy as np
import pytest

from fex_jax.text_explanation import TextExplanation, strengths


@pytest.fixture
def explanation() -> TextExplanation:
    text = "<b>dull & good"
    spans = np.array([[3, 7], [8, 9], [10, 14]])
    scores, probabilities = np.array([0.2, 0.5, 0.9]), np.array([0.3, 0.7])
    return TextExplanation(text, spans, scores, 1, probabilities, ("bad", "good"), 1)


def test_a_terminal_shows_the_strongest_words_without_colour_too(explanation):
    """Breaks if marks depend on colour alone, or the text between words is lost."""
    shown = str(explanation)
    assert "**good**" in shown and "*dull*" not in shown and "<b>dull & " in shown
    assert shown.startswith("good (70%)")


def test_html_is_escaped(explanation):
    """Breaks if a text can put markup into a page, or the strongest word is not the strongest."""
    page = explanation.to_html()
    assert "&lt;b&gt;" in page and "<b>" not in page and "&amp;" in page
    assert page.count("font-weight:bold") == 1 and "bold;border" in page.split("good</span>")[0]


def shown(text: str, spans: list, scores: list, label: str = "good", **more) -> TextExplanation:
    probabilities = np.array([0.7, 0.3])
    spans, scores = np.array(spans).reshape(-1, 2), np.array(scores, float)
    return TextExplanation(text, spans, scores, 0, probabilities, (label, "bad"), 1, **more)


def printed(explanation: TextExplanation) -> tuple[str, str]:
    """The text without marks and colours, of a terminal and of a browser."""
    line = re.sub(r"\x1b\[[0-9;]*m|\*", "", str(explanation).split("\n", 1)[1])
    return line, html.unescape(re.sub("<[^>]+>", "", explanation.to_html().split("<br>")[1]))


@pytest.mark.parametrize(
    "text, spans",
    [
        ("good \U0001f600 film", [[0, 4], [5, 5], [5, 6], [5, 6], [5, 6], [5, 6], [7, 11]]),
        ("na\u00efve", [[0, 1], [1, 2], [2, 3], [2, 3], [3, 4], [4, 5]]),
        ("\u4e2d\u6587", [[0, 1], [0, 1], [0, 2], [1, 2]]),
        ("b a", [[2, 3], [0, 1]]),
    ],
    ids=["emoji", "accent", "overlap", "unsorted"],
)
@pytest.mark.parametrize("additive", [False, True])
def test_every_character_is_printed_once(text, spans, additive):
    """Breaks if the tokens of one character, which share a span, print it once each."""
    scores = np.linspace(0.1, 0.9, len(spans))
    explanation = shown(text, spans, scores, additive=additive)
    assert printed(explanation) == (text, text)
    assert len(explanation.words) == len(explanation.scores)


def test_one_character_has_one_score():
    """Breaks if of a character's bytes not the largest λ, or not the sum of the φ, is shown."""
    spans = [[0, 1], [0, 1], [2, 3]]
    assert 'title="0.300"' in shown("\u00e9 a", spans, [0.1, 0.3, 0.2]).to_html()
    assert 'title="0.400"' in shown("\u00e9 a", spans, [0.1, 0.3, 0.2], additive=True).to_html()


@pytest.mark.parametrize(
    "scores, additive, marked",
    [
        ([0.99], False, [2]),
        ([0.047], False, [2]),  # with a budget of −3 a lone word has always this
        ([0.99, 0.99], False, [2, 2]),
        ([0.99, 0.985, 0.99], False, [2, 2, 2]),
        ([0.05, 0.05], False, [0, 0]),
        ([0.5, 0.5 + 6e-8, 0.5], False, [0, 0, 0]),
        ([0.3, 0.3, 0.1], False, [2, 2, 0]),
        ([0.02, 0.05, 0.4], False, [0, 0, 2]),
        ([0.2], True, [2]),
        ([-0.2], True, [0]),
        ([0.1, 0.1, -0.3], True, [2, 2, 0]),
        ([-0.1, -0.2], True, [0, 0]),
        ([1e-9, -1e-9], True, [0, 0]),
    ],
)
def test_what_is_marked(scores, additive, marked):
    """Breaks if words that score high alike go unmarked, or rounding or a negative φ is marked."""
    found = strengths(np.array(scores), additive)
    assert ((found >= 0) & (found <= 1)).all()
    assert [int(s >= 0.4) + int(s >= 0.8) for s in found] == marked


def test_blanks_are_no_words():
    """Breaks if a space is marked, or takes part in what the words are compared with."""
    explanation = shown("a  b", [[0, 1], [1, 3], [3, 4]], [0.2, 0.95, 0.3])
    assert explanation.to_html().count("<span") == 2
    assert str(explanation).endswith("a  \x1b[1;31m**b**\x1b[0m")
    assert printed(shown("   ", [[0, 3]], [0.9])) == ("   ", "   ")


def test_nothing_steers_the_terminal():
    """Breaks if a text or a label can clear the screen, set its title or turn its direction."""
    evil = "x\x1b[2Jy\x00\x9b31m\u202ez\r\ud800"
    explanation = shown(evil, [[0, 1], [1, 5]], [0.2, 0.9], label="a\x1b]0;b\x07<c>")
    line = str(explanation).replace("\x1b[1;31m", "").replace("\x1b[0m", "")
    assert not set(line) & set("\x1b\x00\x07\x9b\u202e\r\ud800")
    assert r"y\x00\x9b31m\u202ez\r\ud800" in line and r"a\x1b]0;b\x07<c>" in line
    page = explanation.to_html()
    assert "\x1b" not in page and "<c>" not in page
    page.encode()  # half a surrogate pair cannot be written
