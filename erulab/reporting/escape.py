"""Escapes text from a model, a data file or a config for the place where it is shown.

A forgotten row can hold HTML, terminal escapes, Markdown or a spreadsheet formula; none of it may take effect.
"""

from __future__ import annotations

import re
import unicodedata

# These characters reverse or hide text, and Unicode does not class them as control characters.
_TURNING = frozenset("\u061c\u200e\u200f\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufeff")
_MARKDOWN = re.compile(r"([\\`*_{}\[\]!|~$^@#])")
_MARKDOWN_START = re.compile(r"^(\s*)([-+=>])|^(\s*\d+)([.)])(?=\s|$)")  # lists and headings, at the start of a line
_MARKDOWN_LINK = re.compile(r"(?i)(https?|ftp|mailto|www)([:.])")  # bare addresses become links
_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "`": r"\textasciigrave{}",
}
# Some locales read the full-width forms as formulas too.
_FORMULA = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")
_HTML = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}


def visible(text: object, *, lines: bool = False) -> str:
    """Writes out control, bidirectional and lone surrogate characters, and non-characters (`\\x1b`).

    Args:
        text: any value; it is converted to text.
        lines: keep newlines and tabs; otherwise they become spaces.
    """
    return "".join(_written_out(char, lines) for char in str(text))


def _written_out(char: str, lines: bool) -> str:
    if char in "\n\t":
        return char if lines else " "
    code = ord(char)
    # U+FFFE, U+FFFF and their like are no characters: no XML, and so no plot, may hold them.
    if char in _TURNING or unicodedata.category(char) in ("Cc", "Cs") or code & 0xFFFE == 0xFFFE:
        return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
    return char


def markdown(text: object) -> str:
    """Returns one line of Markdown that shows the text unchanged, in a table cell or outside."""
    escaped = _MARKDOWN_START.sub(_backslashed, _MARKDOWN.sub(r"\\\1", visible(text)))
    escaped = _MARKDOWN_LINK.sub(r"\1\\\2", escaped)
    return "".join(_HTML.get(char, char) for char in escaped)


def _backslashed(match: re.Match[str]) -> str:
    before, sign = (group for group in match.groups() if group is not None)
    return f"{before}\\{sign}"


def markdown_block(text: object) -> str:
    """Returns a fenced block; the fence is longer than any run of backticks inside."""
    shown = visible(text, lines=True)
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", shown)), default=0))
    return f"{fence}text\n{shown}\n{fence}"


def csv_cell(text: object) -> str:
    """Puts a quote before text that a spreadsheet would read as a formula (`= + - @`). Not for numbers."""
    shown = visible(text)
    return f"'{shown}" if shown.lstrip().startswith(_FORMULA) else shown


def latex(text: object) -> str:
    """Escapes text for LaTeX: no command, no mathematics, no comment."""
    return "".join(_LATEX.get(char, char) for char in visible(text))
