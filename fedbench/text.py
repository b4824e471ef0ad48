"""Numbers as text for people to read: metrics, bytes, durations."""

from __future__ import annotations

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
