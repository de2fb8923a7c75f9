"""Others' text on terminals, in HTML, in Markdown and in plots."""

import html.parser

import pytest

from fex_jax import escape

EVIL = '\x1b[31m`a`|<b>\u202e*c*\x00 "d" [e](f)\x85\u2028$x$'


def test_only_what_steers_is_shown_otherwise():
    """Breaks if a control character passes, or emoji, joiners, accents or line feeds do not."""
    assert escape.terminal("\x1b[2J\x9b\x7f\r") == r"\x1b[2J\x9b\x7f\r"
    assert escape.terminal("\u202e\u2066\u200f\u2028\udc80") == r"\u202e\u2066\u200f\u2028\udc80"
    plain = "na\u00efve \U0001f468\u200d\U0001f469 \u05d0\u0628\n\tx"
    assert escape.terminal(plain) == plain
    assert escape.terminal(3) == "3"


@pytest.mark.parametrize("name", ["terminal", "html", "markdown", "plot"])
def test_no_place_takes_control_characters(name):
    """Breaks if one of the places forgets them."""
    found = getattr(escape, name)(EVIL)
    assert found.replace("\n", "").isprintable()


def test_html_holds_in_attributes():
    """Breaks if a quote ends an attribute, or a tag begins one."""
    tags = []
    parser = html.parser.HTMLParser()
    parser.handle_starttag = lambda tag, attrs: tags.append((tag, dict(attrs)))
    parser.feed(f"<p title=\"{escape.html(EVIL)}\" id='{escape.html(EVIL)}'>")
    assert tags == [("p", {"title": escape.terminal(EVIL), "id": escape.terminal(EVIL)})]


def test_a_markdown_cell_stays_one():
    """Breaks if a label ends its cell or its line, or becomes code, a link, emphasis or a tag."""
    found = escape.markdown("a|b\n`c` *d* _e_ [f](g) <h> # ~~i~~ \\")
    assert found == r"a\|b \`c\` \*d\* \_e\_ \[f\](g) &lt;h&gt; \# \~\~i\~\~ \\"


@pytest.mark.parametrize(("value", "shown"), [(0.984, "98%"), (1.0, "100%"), (-31.4, "-31.4")])
def test_answers_are_shares_or_numbers(value, shown):
    """Breaks if a regression's value is shown in per cent."""
    assert escape.answer(value) == shown
