"""Names that people write in folders and tables: of splits, of classes, and when two mean the same.

What a name is compared by ignores upper and lower case, spaces, invisible characters, forms of the
same character, and how a number is written (``1``, ``1.0``, ``01``, ``1.0e+00``).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from decimal import Decimal

from .caching import ReadError

SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("test", "testing"), "test"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
}
"""Name of a split, in lower case -> split."""

NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)(e[+-][0-9]{1,2})?", re.IGNORECASE)
"""A number as tables hold it; an exponent has a sign, since ``1e2`` may be a code."""


def split_of(name: str) -> str | None:
    """Return ``train``, ``test`` or ``val`` for a name of one, in any case; else ``None``."""
    return SPLITS.get(name.strip().lower())


def by_number(name: str) -> tuple[int, Decimal, str]:
    """Return a key that sorts numbers by value, before other names by text."""
    number = NUMBER.fullmatch(name)
    return (0, Decimal(name), name) if number else (1, Decimal(0), name)


def compared_by(name: str) -> str:
    """Return what two names have in common that differ only in how they are written."""
    shown = (c for c in unicodedata.normalize("NFKC", name) if unicodedata.category(c) != "Cf")
    plain = "".join("".join(shown).casefold().split())
    # Adding zero turns -0 into 0.
    return f"{Decimal(plain).normalize() + 0:f}" if NUMBER.fullmatch(plain) else plain


def check_spellings(what: str, found: Iterable[Mapping[str, str]]) -> None:
    """Refuse two names that differ only in how they are written.

    Two that are in one mapping stand side by side, so somebody meant both of them, as the classes
    ``a`` and ``A`` of letters.

    Args:
        what: ``class`` or ``domain``, for the error.
        found: mappings from each name to where it is, a row or a folder.

    Raises:
        ReadError: naming both, and where they are.
    """
    seen: dict[str, dict[str, str]] = {}
    for names in found:
        for name, where in names.items():
            others = seen.setdefault(compared_by(name), {})
            for other, before in others.items():
                if name not in others and other not in names:
                    raise ReadError(
                        f"{where}: {what} {name!r} differs from {other!r} ({before}) only in how "
                        "it is written; write both in one way, or give two names that differ more"
                    )
            others.setdefault(name, where)
