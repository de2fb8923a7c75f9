"""Text that others wrote (labels, texts, file names, tensor names) for where it is shown.

What may not stand there as it is: control characters and half surrogates, which steer a terminal or
break a file; line separators; marks that turn the direction of what follows. They are shown as
Python writes them, "\\x1b". A line feed and a tab stay.
"""

import html as _html
import re
import unicodedata

_TURNS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_STEERS = {"Cc", "Cs", "Zl", "Zp"}
_MARKDOWN = re.compile(r"([\\`*_\[\]|~#])")


def terminal(text: object) -> str:
    """For a terminal, a log or an error message."""
    return "".join(_shown(character) for character in str(text))


def html(text: object) -> str:
    """For HTML, between tags and in quoted attributes."""
    return _html.escape(terminal(text))


def markdown(text: object) -> str:
    """For a line or a table cell of Markdown, HTML included."""
    line = " ".join(terminal(text).split())
    return _MARKDOWN.sub(r"\\\1", _html.escape(line, quote=False))


def _shown(character: str) -> str:
    if character in "\n\t":
        return character
    if unicodedata.category(character) in _STEERS or character in _TURNS:
        return character.encode("unicode_escape").decode()
    return character
