"""Text for people to read: metrics, bytes and durations; names and messages of any origin."""

from __future__ import annotations

import unicodedata
from typing import Any, Literal, TypeAlias

Unit: TypeAlias = Literal["percent", "plain"]
"""How a metric's numbers are shown: a fraction of 1 as a percentage, any other number as it is."""


def score(value: Any, unit: Unit, sign: str = "") -> str:
    """Return a metric's value as text: a percentage with two decimals, or plain with four.

    Args:
        value: anything but a number becomes ``-``.
        unit: the metric's.
        sign: ``+`` for a sign before positive values too.
    """
    if not isinstance(value, (int, float)):
        return "-"
    return f"{100 * value:{sign}.2f}" if unit == "percent" else f"{value:{sign}.4f}"


def size(number: float) -> str:
    """Return a number of bytes with a unit, in powers of 1000."""
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000 or unit == "GB":
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.2f} {unit}"
        number /= 1000
    return ""


def duration(seconds: float) -> str:
    """Return seconds as ``1:02:03``, ``4:05`` or ``6.7 s``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


JOINERS = "\u200c\u200d"
"""Invisible characters that Persian, Hindi and emoji are spelled with."""


def printable(text: str, keep: str = "") -> str:
    """Return ``text`` with Python's escape (``\\x1b``) for every character that is not printable.

    Control characters steer a terminal, and XML forbids most of them; line breaks fake lines; marks
    for the direction of writing show a text in another order; lone surrogates cannot be encoded.
    Whatever has no glyph is escaped too. Two different texts stay different.

    Args:
        text: a name, a message, a value from a file.
        keep: characters to leave as they are, for example ``"\\n"`` in a text of several lines.
    """
    if text.isprintable():
        return text
    return "".join(c if _shows(c) or c in keep else _escape(c) for c in text)


def _shows(letter: str) -> bool:
    return letter.isprintable() or letter in JOINERS or unicodedata.category(letter) == "Zs"


def _escape(letter: str) -> str:
    return letter.encode("unicode_escape").decode()


def first_line(message: object) -> str:
    """Return the first line of a message that is not blank, printable, at most 500 long.

    Args:
        message: an error, or its text.
    """
    try:
        text = next((line for line in str(message).splitlines() if line.strip()), "")
    except Exception:  # a third-party exception whose text raises
        text = "(its message cannot be read)"
    return printable(text.strip())[:500]
