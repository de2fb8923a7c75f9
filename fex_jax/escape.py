r"""Text that others wrote (labels, texts, file names, tensor names), for where it is shown.

What may not stand there as it is: control characters and half surrogates, which steer a terminal or
break a file; line separators; marks that turn the direction of what follows. They are shown as
Python writes them, "\x1b". A line feed and a tab stay.
"""

import base64
import html as _html
import re

_STEERS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
# An underscore between letters, as in a method's name, marks nothing.
_MARKDOWN = re.compile(r"([\\`*\[\]|~#]|(?<!\w)_|_(?!\w))")


def terminal(text: object) -> str:
    """For a terminal, a log or an error message."""
    return _STEERS.sub(lambda found: found[0].encode("unicode_escape").decode(), str(text))


def html(text: object) -> str:
    """For HTML, between tags and in quoted attributes."""
    return _html.escape(terminal(text))


def url(content: bytes, kind: str = "png") -> str:
    """A picture's file inside HTML, as the address of an image."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"


def markdown(text: object) -> str:
    """For a line or a table cell of Markdown, which may hold HTML."""
    line = " ".join(terminal(text).split())
    return _MARKDOWN.sub(r"\\\1", _html.escape(line, quote=False))


def plot(text: object) -> str:
    """For matplotlib, which reads formulas between dollar signs."""
    return terminal(text).replace("$", r"\$")


def answer(value: float) -> str:
    """A probability in per cent; a number beyond 0 to 1, as a regression's, as it is."""
    return f"{value:.0%}" if 0 <= value <= 1 else f"{value:.3g}"
