"""The resolved config as YAML in which a comment states, for each value, the layer that set it."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import Any

from ..text import printable
from . import yamlfile
from .merging import Merged
from .model import RunConfig
from .yamlfile import KeyPath

WIDTH = 80
"""The longest line where values and names allow it."""

COLUMN = 38
"""Where comments begin, after shorter lines."""


def explained(config: RunConfig, merged: Merged) -> str:
    """Return the YAML of a config, with comments, which `load_config` reads back.

    Args:
        config: the resolved config.
        merged: what it was resolved from. A value that no layer set is a default.
    """
    lines = list(_lines(config.to_dict(), (), merged))
    gone = [found for found in merged.removed if found.name not in config.plugins]
    if gone:
        lines += ["", "# not in this run:"]
    for name, source, why in gone:
        lines += _comment(f"{name} ({source}): {why}", "# - ", "#   ")
    return "\n".join(lines) + "\n"


def _lines(data: dict[str, Any], path: KeyPath, merged: Merged) -> Iterator[str]:
    indent = "  " * len(path)
    for key, value in data.items():
        here = (*path, key)
        nested = isinstance(value, dict) and value != {}
        text = yamlfile.dump({key: {} if nested else value}).rstrip("\n")
        text = textwrap.indent(text.removesuffix(" {}") if nested else text, indent)
        if why := _why(here, nested, merged):
            beside = f"{text:{COLUMN}}# {why}" if len(text) < COLUMN else f"{text}  # {why}"
            if "\n" in text or len(beside) > WIDTH:
                yield from _comment(why, f"{indent}# ", f"{indent}#   ")
            else:
                text = beside
        yield from text.split("\n")
        if nested:
            yield from _lines(value, here, merged)


def _why(path: KeyPath, nested: bool, merged: Merged) -> str:
    """Return what set a value or brought a plugin; nothing for what only holds values."""
    if path[0] == "plugins" and len(path) == 2:
        return printable(merged.brought[path[1]].place(path))
    if nested:
        return ""
    document = merged.sources.get(path)
    return printable(document.place(path)) if document else "default"


def _comment(text: str, first: str, rest: str) -> list[str]:
    return textwrap.wrap(
        printable(text),
        WIDTH,
        initial_indent=first,
        subsequent_indent=rest,
        break_long_words=False,
        break_on_hyphens=False,
    )
