"""YAML with line numbers: plain data only, no aliases, no tags, no repeated keys."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from ..errors import ConfigError
from ..text import printable, summary

KeyPath: TypeAlias = tuple[str, ...]


DEPTH = 100
"""How many levels of nesting are read at most."""

LIMIT = 4_000_000
"""How many bytes of text are read at most."""


class _Loader(yaml.SafeLoader):
    """SafeLoader with the scalars of YAML 1.2's core schema.

    ``1e-3`` is a number and ``012`` is 12, while ``off``, ``no``, ``1:30``, ``1_000`` and dates are
    text.
    """

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - a class attribute of PyYAML


class _Dumper(yaml.SafeDumper):
    """SafeDumper that quotes text which our reader or one of YAML 1.1 would not read as text."""


_TAG = "tag:yaml.org,2002:"
for _kind, _form, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    (
        "float",
        r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
):
    for _cls in (_Loader, _Dumper):
        _cls.add_implicit_resolver(_TAG + _kind, re.compile(rf"^(?:{_form})$"), _first)


def _integer(loader: _Loader, node: yaml.ScalarNode) -> int:
    """Read an integer; Python's own rules would reject ``012``."""
    base = {"0o": 8, "0x": 16}.get(node.value[:2], 10)
    return int(node.value, base)


_Loader.add_constructor(_TAG + "int", _integer)


@dataclass(frozen=True)
class Document:
    """A parsed mapping and the line of each of its keys.

    Args:
        data: nested dicts, lists and scalars.
        source: what to call it in errors: a file's name, ``--set``.
        lines: path of each key and item -> line number from 1; empty for sources without lines.
    """

    data: dict[str, Any]
    source: str
    lines: dict[KeyPath, int] = field(default_factory=dict)

    def where(self, path: KeyPath) -> str:
        """Return ``file:line: key`` for the longest known prefix of ``path``."""
        key = ".".join(part if part.isprintable() else repr(part) for part in path)
        return f"{self.place(path)}: {key}" if path else self.source

    def place(self, path: KeyPath) -> str:
        """Return ``file:line`` for the longest known prefix of ``path``, or else the source."""
        for end in range(len(path), 0, -1):
            if path[:end] in self.lines:
                return f"{self.source}:{self.lines[path[:end]]}"
        return self.source


def parse(text: str, source: str) -> Document:
    """Parse YAML text whose top level is a mapping.

    Raises:
        ConfigError: for a syntax error, alias, tag, repeated or non-text key, with its line.
    """
    if len(text) > LIMIT:
        raise ConfigError(f"{source}: longer than {LIMIT} characters")
    lines: dict[KeyPath, int] = {}
    try:
        loader = _Loader(text)
        depth = 0
        for event in yaml.parse(text, Loader=_Loader):
            # Refused here already, because PyYAML's time grows with the square of the depth.
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if depth > DEPTH:
                raise ConfigError(f"{source}: nested too deeply")
            mark = event.start_mark
            at = f"{source}:{mark.line + 1 if mark else 1}"
            if isinstance(event, yaml.AliasEvent):
                raise ConfigError(f"{at}: aliases (*{event.anchor}) are not allowed")
            tag = getattr(event, "tag", None)
            if tag:
                raise ConfigError(f"{at}: tags ({tag}) are not allowed")
        node = loader.get_single_node()
        if node is None:
            raise ConfigError(f"{source}: the file is empty")
        if not isinstance(node, yaml.MappingNode):
            raise ConfigError(f"{source}: expected a mapping of keys at the top level")
        return Document(_build(loader, node, (), lines, source), source, lines)
    except RecursionError:
        raise ConfigError(f"{source}: nested too deeply") from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigError(f"{source}:{line}: not valid YAML: {error.problem}") from error
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"{source}: not valid YAML: {summary(error)}") from error


def scalar(text: str) -> Any:
    """Return one YAML value as ``--set`` accepts it: ``0.1``, ``true``, ``[1, 2]``, plain text.

    Raises:
        ConfigError: for text that is not one YAML value.
    """
    data = parse(f"value: {text}", "--set").data
    if len(data) > 1:
        raise ConfigError("--set: give one value, not several lines")
    return data["value"]


PLAIN = re.compile(r"[\w./+-][\w ./+*=@%-]*")
"""Text that may be written without quotes if YAML does not take it for something else."""


def inline(value: Any) -> str:
    """Return a value as `scalar` reads it back: plain text where that is clear, else JSON."""
    if isinstance(value, str) and PLAIN.fullmatch(value) and scalar(value) == value:
        return value
    return json.dumps(value, ensure_ascii=False)


def read(path: Path) -> Document:
    """Parse the YAML file at ``path``.

    Raises:
        ConfigError: when it cannot be read, is too long, or is not valid as in `parse`.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(LIMIT + 1)
        if len(raw) > LIMIT:
            raise ConfigError(f"{path}: longer than {LIMIT} bytes; this is not a config")
        text = raw.decode("utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    return parse(text, str(path))


def dump(data: dict[str, Any]) -> str:
    """Return ``data`` as YAML with its keys in order; `parse` reads back the same data."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    # In double quotes, an escape of `printable` is one of YAML too: what is shown can be read back.
    style = None if text == printable(text) else '"'
    return dumper.represent_scalar(_TAG + "str", text, style=style)


def _short_list(dumper: yaml.SafeDumper, items: list[Any]) -> yaml.Node:
    return dumper.represent_sequence("tag:yaml.org,2002:seq", items, flow_style=True)


_Dumper.add_representer(list, _short_list)
_Dumper.add_representer(str, _text)


def _build(
    loader: _Loader, node: yaml.Node, path: KeyPath, lines: dict[KeyPath, int], source: str
) -> Any:
    if isinstance(node, yaml.MappingNode):
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                raise ConfigError(f"{source}:{line}: a key must be text, got a {key_node.id}")
            key = _scalar(loader, key_node, path, source)
            if not isinstance(key, (str, int)) or isinstance(key, bool):
                raise ConfigError(f"{source}:{line}: a key must be text, got {key!r}")
            key = str(key)
            if key in result:
                raise ConfigError(f"{source}:{line}: key {key!r} appears twice")
            lines[(*path, key)] = line
            result[key] = _build(loader, value_node, (*path, key), lines, source)
        return result
    if isinstance(node, yaml.SequenceNode):
        places = [(*path, str(i)) for i in range(len(node.value))]
        for here, item in zip(places, node.value, strict=True):
            lines[here] = item.start_mark.line + 1
        return [
            _build(loader, item, here, lines, source)
            for here, item in zip(places, node.value, strict=True)
        ]
    return _scalar(loader, node, path, source)


def _scalar(loader: _Loader, node: yaml.Node, path: KeyPath, source: str) -> Any:
    where = f"{source}:{node.start_mark.line + 1}: {'.'.join(path)}"
    try:
        value = loader.construct_object(node, deep=True)
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from error
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{where}: {value} is not a finite number")
    if isinstance(value, str) and not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise ConfigError(f"{where}: half of a character (a lone surrogate)") from None
    return value
