"""YAML with line numbers: plain data only, no aliases, no tags, no repeated keys."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from .errors import ConfigError

KeyPath: TypeAlias = tuple[str, ...]


class _Loader(yaml.SafeLoader):
    """SafeLoader with YAML 1.2's scalars: ``1e-3`` is a number; ``off``, ``no``, dates are text."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - a class attribute of PyYAML
        first: [(tag, regex) for tag, regex in pairs if not tag.endswith((":timestamp", ":bool"))]
        for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]+$"),
    list("-+0123456789."),
)


@dataclass(frozen=True)
class Document:
    """A parsed mapping and the line of each of its keys.

    Args:
        data: nested dicts, lists and scalars.
        source: what to call it in errors: a file's name, ``--set``.
        lines: key path -> line number from 1; empty for sources without lines.
    """

    data: dict[str, Any]
    source: str
    lines: dict[KeyPath, int] = field(default_factory=dict)

    def where(self, path: KeyPath) -> str:
        """Return ``file:line: key`` for the longest known prefix of ``path``."""
        key = ".".join(path)
        for end in range(len(path), 0, -1):
            if path[:end] in self.lines:
                return f"{self.source}:{self.lines[path[:end]]}: {key}"
        return f"{self.source}: {key}" if key else self.source


def parse(text: str, source: str) -> Document:
    """Parse YAML text whose top level is a mapping.

    Raises:
        ConfigError: for a syntax error, alias, tag, repeated or non-text key, with its line.
    """
    try:
        loader = _Loader(text)
        for event in yaml.parse(text, Loader=_Loader):
            mark = event.start_mark
            at = f"{source}:{mark.line + 1 if mark else 1}"
            if isinstance(event, yaml.AliasEvent):
                raise ConfigError(f"{at}: aliases (*{event.anchor}) are not allowed")
            tag = getattr(event, "tag", None)
            if tag:
                raise ConfigError(f"{at}: tags ({tag}) are not allowed")
        node = loader.get_single_node()
    except RecursionError:
        raise ConfigError(f"{source}: nested too deeply") from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigError(f"{source}:{line}: not valid YAML: {error.problem}") from error
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"{source}: not valid YAML: {str(error).splitlines()[0]}") from error
    if node is None:
        raise ConfigError(f"{source}: the file is empty")
    if not isinstance(node, yaml.MappingNode):
        raise ConfigError(f"{source}: expected a mapping of keys at the top level")
    lines: dict[KeyPath, int] = {}
    data = _build(loader, node, (), lines, source)
    return Document(data, source, lines)


def scalar(text: str) -> Any:
    """Read one YAML value, as ``--set`` takes it: ``0.1``, ``true``, ``[1, 2]``, plain text."""
    return parse(f"value: {text}", "--set").data["value"]


def read(path: Path) -> Document:
    """Parse the YAML file at ``path``."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: can't be read: {error}") from error
    return parse(text, str(path))


def dump(data: dict[str, Any]) -> str:
    """Write ``data`` as YAML, keys in their order; `parse` reads back the same data."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


class _Dumper(yaml.SafeDumper):
    """Quote what our reader would take for a number."""

    yaml_implicit_resolvers = _Loader.yaml_implicit_resolvers


def _short_list(dumper: yaml.SafeDumper, items: list[Any]) -> yaml.Node:
    return dumper.represent_sequence("tag:yaml.org,2002:seq", items, flow_style=True)


_Dumper.add_representer(list, _short_list)


def _build(
    loader: _Loader, node: yaml.Node, path: KeyPath, lines: dict[KeyPath, int], source: str
) -> Any:
    if isinstance(node, yaml.MappingNode):
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            key = loader.construct_object(key_node, deep=True)
            if not isinstance(key, (str, int)) or isinstance(key, bool):
                raise ConfigError(f"{source}:{line}: a key must be text, got {key!r}")
            key = str(key)
            if key in result:
                raise ConfigError(f"{source}:{line}: key {key!r} appears twice")
            lines[(*path, key)] = line
            result[key] = _build(loader, value_node, (*path, key), lines, source)
        return result
    if isinstance(node, yaml.SequenceNode):
        return [
            _build(loader, item, (*path, str(i)), lines, source)
            for i, item in enumerate(node.value)
        ]
    value = loader.construct_object(node, deep=True)
    if isinstance(value, float) and not math.isfinite(value):
        line = node.start_mark.line + 1
        raise ConfigError(f"{source}:{line}: {'.'.join(path)}: {value} is no finite number")
    return value
