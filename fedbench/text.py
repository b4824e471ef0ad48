"""Text for people to read: metrics, bytes and durations; names and messages of any origin."""

from __future__ import annotations

import re
import sys
import unicodedata
from collections.abc import Mapping, Sequence
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


def unrepeatable(plugins: Sequence[str]) -> str:
    """Return what it means for a run that these plugins of it were classes in memory."""
    what = "was a class" if len(plugins) == 1 else "were classes"
    return f"not repeatable from its config alone: {', '.join(plugins)} {what} in memory"


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


def all_printable(data: Any) -> Any:
    """Return JSON-like data with every text that is a value in it made `printable`."""
    if isinstance(data, str):
        return printable(data)
    if isinstance(data, Mapping):
        return {key: all_printable(value) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [all_printable(value) for value in data]
    return data


LONGEST = 500
"""Characters of a message that is quoted in a line."""

NOISE = re.compile(
    r"Exception raised from .*most recent call first|C\+\+ CapturedTraceback:|frame #\d+: "
    r"|#\d+ .* from .*:\d+$|\w+: (fallthrough )?registered at |CUDA kernel errors might be "
    r"|For debugging consider passing CUDA_LAUNCH_BLOCKING|Compile with `TORCH_USE_CUDA_DSA`"
    r"|For further information visit https://errors\.pydantic\.dev"
)
"""How lines begin that say nothing about the cause: frames of native code, advice to developers."""


def summary(message: BaseException | str, longest: int = LONGEST) -> str:
    """Return a message as one printable line: all of its lines but `NOISE`, joined by spaces.

    Args:
        message: an exception stands for its text.
        longest: how many characters to return at most. Of a longer message the beginning and the
            end are kept, because either may name the cause.
    """
    try:
        text = str(message)
    except Exception:  # a third-party exception whose text raises
        text = "(its message cannot be read)"
    lines = [line for line in map(str.strip, text.splitlines()) if not NOISE.match(line)]
    line = printable(" ".join(" ".join(lines).split()))
    if len(line) <= longest:
        return line
    head = longest * 3 // 5
    return f"{line[:head]} ... {line[head + 5 - longest :]}"


def cause(error: BaseException) -> str:
    """Return what an exception was raised from: ``(from KeyError: 'key')``; "" if from none."""
    names: list[str] = []
    found = error.__cause__
    while found is not None and len(names) < 5:
        names.append(f"{type(found).__name__}: {summary(found, LONGEST // 2)}")
        found = found.__cause__
    return f"(from {', from '.join(names)})" if names else ""


def last_words(log: str) -> str:
    """Return why a process ended, in one line, from what it printed; ``""`` if it printed nothing.

    That is the line ``Error: ...`` at the end, all of the message under the last traceback, or else
    the last line.
    """
    lines = [line for line in log.splitlines() if line.strip()]
    if not lines:
        return ""
    heads = [n for n, line in enumerate(lines) if line.startswith("Traceback (most recent call")]
    if heads and not lines[-1].startswith("Error: "):
        frames = heads[-1] + 1
        while frames < len(lines) and lines[frames].startswith("  "):
            frames += 1
        lines = ["\n".join(lines[frames:]) or lines[-1]]
    return summary(lines[-1].removeprefix("Error: "))


def echo(text: str, *, err: bool = False, lines: bool = False) -> None:
    """Print a line to standard output or to standard error.

    Args:
        text: the line.
        err: whether to print to standard error.
        lines: whether the text may have several lines; a name in it must not.
    """
    stream = sys.stderr if err else sys.stdout
    if stream is not None:  # a program without a console has none
        print(printable(text, keep="\n" if lines else ""), file=stream, flush=True)
