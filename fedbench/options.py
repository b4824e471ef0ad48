"""Validation of options: plain dataclasses with ``Annotated`` bounds, checked by pydantic."""

from __future__ import annotations

import dataclasses
import json
import typing
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from .errors import ConfigError, did_you_mean

T = TypeVar("T")

Where = Callable[[tuple[str, ...]], str]
"""Turns a key path into what an error begins with: ``file:line: key``."""


_ADAPTERS: dict[type, TypeAdapter[Any]] = {}


def adapter(cls: type) -> TypeAdapter[Any]:
    """Return the validator of a dataclass, built once."""
    if cls not in _ADAPTERS:
        _ADAPTERS[cls] = TypeAdapter(cls)
    return _ADAPTERS[cls]


def build(cls: type[T], options: Mapping[str, Any], where: Where) -> T:
    """Make ``cls`` from ``options``.

    Validation is strict (``lr: true`` is no number) on JSON-like data, so lists become tuples.

    Raises:
        ConfigError: for an unknown or missing key, a wrong type or a value out of bounds.
    """
    known = [f.name for f in dataclasses.fields(cls) if f.init]  # type: ignore[arg-type]
    for key in options:
        if key not in known:
            what = did_you_mean(key, known) if known else " (it has no options)"
            raise ConfigError(f"{where((key,))}: unknown option{what}")
    try:
        made: T = adapter(cls).validate_json(json.dumps(options, allow_nan=False), strict=True)
        return made
    except ValidationError as error:
        first = error.errors()[0]
        path = tuple(str(p) for p in first["loc"] if p in known or isinstance(p, int))
        message = first["msg"][0].lower() + first["msg"][1:]
        given = "" if first["type"] == "missing" else f", got {first['input']!r}"
        raise ConfigError(f"{where(path)}: {message}{given}") from error
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{where(())}: {error}") from error


def dump(instance: Any) -> dict[str, Any]:
    """Return the options of a dataclass instance as JSON-like data, defaults included."""
    cls = type(instance)
    data: dict[str, Any] = adapter(cls).dump_python(instance, mode="json")
    return {f.name: data[f.name] for f in dataclasses.fields(cls) if f.name in data}


def schema(cls: type) -> dict[str, Any]:
    """Return the JSON schema of a dataclass's options; unknown keys are not allowed."""
    return {**adapter(cls).json_schema(), "additionalProperties": False}


@dataclasses.dataclass(frozen=True)
class Option:
    """One option as the command line and the documentation show it."""

    name: str
    type: str
    default: str
    bounds: str
    about: str


def describe(cls: type) -> list[Option]:
    """Return the options of a dataclass with types, defaults, bounds and descriptions."""
    properties = schema(cls).get("properties", {})
    hints = typing.get_type_hints(cls)
    return [
        Option(
            name=f.name,
            type=_type_name(hints[f.name]),
            default=_default(f),
            bounds=_bounds(properties.get(f.name, {})),
            about=str(properties.get(f.name, {}).get("description", "")),
        )
        for f in dataclasses.fields(cls)
        if f.init
    ]


def _default(f: dataclasses.Field[Any]) -> str:
    if f.default is not dataclasses.MISSING:
        return json.dumps(f.default, default=str)
    if f.default_factory is not dataclasses.MISSING:
        return json.dumps(f.default_factory(), default=str)
    return "(required)"


def _type_name(hint: Any) -> str:
    if typing.get_origin(hint) is typing.Literal:
        return " | ".join(str(a) for a in typing.get_args(hint))
    return getattr(hint, "__name__", None) if isinstance(hint, type) else str(hint)  # type: ignore[return-value]


def _bounds(property_: Mapping[str, Any]) -> str:
    signs = {
        "minimum": ">=",
        "exclusiveMinimum": ">",
        "maximum": "<=",
        "exclusiveMaximum": "<",
        "minItems": "items >=",
        "maxItems": "items <=",
    }
    options = [property_, *property_.get("anyOf", [])]
    return ", ".join(f"{s} {o[k]}" for o in options for k, s in signs.items() if k in o)
