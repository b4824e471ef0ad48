"""Validation of options: plain dataclasses with ``Annotated`` bounds, checked by pydantic."""

from __future__ import annotations

import dataclasses
import json
import math
import types
import typing
from collections import abc, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Annotated, Any, Literal, TypeVar

from pydantic import TypeAdapter, ValidationError

from .errors import ConfigError, did_you_mean

T = TypeVar("T")

Where = Callable[[tuple[str, ...]], str]
"""A function from a key path to the beginning of an error text: ``file:line: key``."""


LARGEST = 3.4028234663852886e38
"""The largest number of float32. Torch overflows at a greater one only in the middle of a run."""

_ADAPTERS: dict[type, TypeAdapter[Any]] = {}


def adapter(cls: type) -> TypeAdapter[Any]:
    """Return the validator of a dataclass, built once."""
    if cls not in _ADAPTERS:
        _ADAPTERS[cls] = TypeAdapter(cls)
    return _ADAPTERS[cls]


def build(cls: type[T], options: Mapping[str, Any], where: Where) -> T:
    """Return an instance of ``cls`` with the given options.

    Validation is strict (``lr: true`` is not a number) and takes JSON-like data, so lists become
    tuples. ``where`` says where an option was given, for errors.

    Raises:
        ConfigError: for an unknown or missing key, a wrong type, a value out of bounds, or a number
            that is not finite or too large for float32.
    """
    _refuse_unknown(cls, options, (), where)
    _refuse_not_finite(options, (), where)
    try:
        made: T = adapter(cls).validate_json(json.dumps(options, allow_nan=False), strict=True)
        return made
    except ValidationError as error:
        found = [
            (_path(one["loc"], options, one["type"] == "missing"), one) for one in error.errors()
        ]
        # Every member of a union reports an error; the one that got furthest was meant.
        outer = found[0][0]
        path, first = max(
            ((p, one) for p, one in found if p[: len(outer)] == outer),
            key=lambda item: len(item[0]),
        )
        if first["type"] == "value_error":
            raise ConfigError(f"{where(path)}: {first['ctx']['error']}") from error
        message = first["msg"][0].lower() + first["msg"][1:]
        given = "" if first["type"] == "missing" else f", got {first['input']!r}"
        raise ConfigError(f"{where(path)}: {message}{given}") from error
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{where(())}: {error}") from error


def _refuse_unknown(
    cls: type, options: Mapping[str, Any], path: tuple[str, ...], where: Where
) -> None:
    hints = _hints(cls)
    known = [f.name for f in dataclasses.fields(cls) if f.init]
    for key, value in options.items():
        if key not in known:
            what = did_you_mean(key, known) if known else " (it has no options)"
            raise ConfigError(f"{where((*path, key))}: unknown option{what}")
        _refuse_unknown_inside(hints[key], value, (*path, key), where)


def _refuse_unknown_inside(hint: Any, value: Any, path: tuple[str, ...], where: Where) -> None:
    """Check the keys of dataclasses in an option's value: as it is, in sequences and mappings."""
    inner = typing.get_args(hint)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        if isinstance(value, Mapping):
            _refuse_unknown(hint, value, path, where)
    elif typing.get_origin(hint) is Annotated:
        _refuse_unknown_inside(inner[0], value, path, where)
    elif typing.get_origin(hint) in (typing.Union, types.UnionType):
        members = [one for one in inner if one is not type(None)]
        if len(members) == 1:  # which of several is meant is not known
            _refuse_unknown_inside(members[0], value, path, where)
    elif inner and isinstance(value, Mapping):
        for name, one in value.items():
            _refuse_unknown_inside(inner[-1], one, (*path, str(name)), where)
    elif inner and isinstance(value, Sequence) and not isinstance(value, str):
        for number, one in enumerate(value):
            _refuse_unknown_inside(inner[0], one, (*path, str(number)), where)


@lru_cache(1000)
def _hints(cls: type) -> Mapping[str, Any]:
    return typing.get_type_hints(cls)


def _refuse_not_finite(value: Any, path: tuple[str, ...], where: Where) -> None:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            _refuse_not_finite(inner, (*path, str(key)), where)
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for position, inner in enumerate(value):
            _refuse_not_finite(inner, (*path, str(position)), where)
    elif isinstance(value, int | float):
        if value != value or abs(value) == math.inf:
            raise ConfigError(f"{where(path)}: {value} is not a finite number")
        if abs(value) > LARGEST:
            raise ConfigError(
                f"{where(path)}: the number is too large; runs compute in float32, which ends at "
                f"{LARGEST:.3g}"
            )


def _path(loc: Sequence[str | int], options: Mapping[str, Any], missing: bool) -> tuple[str, ...]:
    """Return the key path of a pydantic error, without the names of union members and the like."""
    path: list[str] = []
    at: Any = options
    for part in loc:
        try:
            at = at[part]
        except (KeyError, IndexError, TypeError):
            continue
        path.append(str(part))
    return (*path, str(loc[-1])) if missing else tuple(path)


def dump(instance: Any) -> dict[str, Any]:
    """Return the options of a dataclass instance as JSON-like data, defaults included."""
    cls = type(instance)
    data: dict[str, Any] = adapter(cls).dump_python(instance, mode="json")
    return {f.name: data[f.name] for f in dataclasses.fields(cls) if f.init and f.name in data}


def schema(cls: type) -> dict[str, Any]:
    """Return the JSON schema of a dataclass's options; unknown keys are not allowed."""
    found = {**adapter(cls).json_schema(), "additionalProperties": False}
    for inner in found.get("$defs", {}).values():
        if inner.get("type") == "object" and "properties" in inner:
            inner["additionalProperties"] = False
    return found


@dataclasses.dataclass(
    frozen=True, eq=False
)  # typing would confuse equal ones: 0, 1 and False, True
class Search:
    """The values of an option that its author recommends to search, as ``Annotated`` metadata.

    ``Annotated[float, Field(gt=0), Search(low=1e-4, high=1e-1, scale="log")]`` names a range,
    ``Annotated[float, Field(ge=0), Search(choices=(0.01, 0.1, 1.0))]`` single values. Both are
    checked against the option's type and bounds when its class is registered.

    Args:
        low, high: the ends of a range of numbers, both included.
        scale: how values are spread over the range: evenly, or evenly by logarithm.
        choices: two or more values, instead of a range.
    """

    low: float | None = None
    high: float | None = None
    scale: Literal["linear", "log"] = "linear"
    choices: tuple[Any, ...] = ()

    def __str__(self) -> str:
        if self.choices:
            return ", ".join(json.dumps(c) if isinstance(c, bool) else str(c) for c in self.choices)
        return f"{self.low:g} to {self.high:g}" + (", log" if self.scale == "log" else "")

    @property
    def wrong(self) -> str:
        """What is wrong with it by itself; "" if nothing is."""
        ends = (self.low, self.high)
        if self.choices:
            if not isinstance(self.choices, tuple) or len(set(map(repr, self.choices))) < 2:
                return "choices must be a tuple of two or more different values"
            return "give either choices or low and high" if ends != (None, None) else ""
        numbers = all(isinstance(e, int | float) and not isinstance(e, bool) for e in ends)
        if self.low is None or self.high is None or not numbers:
            return "give numbers for low and high, or choices"
        if not self.low < self.high:
            return f"low {self.low} must be less than high {self.high}"
        if self.scale not in ("linear", "log"):
            return f"scale must be linear or log, got {self.scale!r}"
        return "a log scale needs low > 0" if self.scale == "log" and self.low <= 0 else ""


def searches(cls: type) -> dict[str, Search]:
    """Return option -> the search space that its author recommends, where there is one.

    Raises:
        ValueError: naming the option, for a space that is not valid, of another type than the
            option, or outside its bounds.
    """
    hints = typing.get_type_hints(cls, include_extras=True)
    found = {}
    for f in dataclasses.fields(cls):
        spaces = [part for part in _parts(hints[f.name]) if isinstance(part, Search)]
        if f.init and spaces:
            if wrong := _search_error(hints[f.name], spaces):
                raise ValueError(f"the search space of option {f.name!r}: {wrong}")
            found[f.name] = spaces[0]
    return found


def unfit(cls: type, name: str, space: Search) -> str:
    """Return why a search space does not fit an option of ``cls``; empty if it does."""
    return _search_error(typing.get_type_hints(cls, include_extras=True)[name], [space])


def whole(cls: type, name: str) -> bool:
    """Return whether the numbers that an option of ``cls`` takes are whole."""
    kinds = [*_parts(typing.get_type_hints(cls)[name])]
    return int in kinds and float not in kinds


def _search_error(hint: Any, spaces: Sequence[Search]) -> str:
    if len(spaces) > 1:
        return "there are two"
    space = spaces[0]
    if space.wrong:
        return space.wrong
    checked = TypeAdapter(hint)
    for value in space.choices or (space.low, space.high):
        try:
            _refuse_not_finite(value, (), str)
            checked.validate_json(json.dumps(value), strict=True)
        except ConfigError:
            return f"{value} is not a number that a run can use"
        except ValidationError as error:
            message = error.errors()[0]["msg"]
            return f"{value!r} is not valid for it: {message[0].lower()}{message[1:]}"
        except TypeError as error:
            return f"{value!r} is not valid for it: {error}"
    return ""


@dataclasses.dataclass(frozen=True)
class Option:
    """One option as the command line and the documentation show it."""

    name: str
    type: str
    default: str
    bounds: str
    about: str
    search: str = ""


def describe(cls: type) -> list[Option]:
    """Return the options of a dataclass: types, defaults, bounds, descriptions, search spaces."""
    properties = schema(cls).get("properties", {})
    hints, spaces = typing.get_type_hints(cls), searches(cls)
    return [
        Option(
            name=f.name,
            type=_type_name(hints[f.name]),
            default=_default(f),
            bounds=_bounds(properties.get(f.name, {})),
            about=str(properties.get(f.name, {}).get("description", "")),
            search=str(spaces.get(f.name, "")),
        )
        for f in dataclasses.fields(cls)
        if f.init
    ]


LISTS = (list, set, frozenset, deque, abc.MutableSequence, abc.Set, abc.MutableSet)
"""Types that an option may not have: they can change, or their order differs between processes."""


def mutable(cls: type) -> Iterator[tuple[str, str, str]]:
    """Yield (option, its type, the type to use instead) for options that hold a list or a set.

    Unions, tuples, mappings and nested dataclasses are looked into.
    """
    for f in dataclasses.fields(cls):
        if f.init:
            for hint in _parts(typing.get_type_hints(cls)[f.name]):
                kind = typing.get_origin(hint) or hint
                inner = [_type_name(a) for a in typing.get_args(hint)]
                if kind in LISTS:
                    yield f.name, _type_name(hint), f"tuple[{inner[0] if inner else 'str'}, ...]"
                elif dataclasses.is_dataclass(kind) and isinstance(kind, type):
                    for name, given, wanted in mutable(kind):
                        yield f"{f.name}.{name}", given, wanted


def _parts(hint: Any) -> Iterator[Any]:
    yield hint
    for inner in typing.get_args(hint):
        yield from _parts(inner)


def _default(f: dataclasses.Field[Any]) -> str:
    if f.default is not dataclasses.MISSING:
        return json.dumps(f.default, default=str)
    if f.default_factory is not dataclasses.MISSING:
        return json.dumps(f.default_factory(), default=str)
    return "(required)"


def _type_name(hint: Any) -> str:
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return " | ".join(str(a) for a in inner)
    if origin in (typing.Union, types.UnionType):
        return " | ".join(_type_name(a) for a in inner)
    if hint in (None, types.NoneType):
        return "null"
    name = getattr(hint, "__name__", str(hint))
    if origin is None or not inner:
        return "..." if hint is Ellipsis else str(name)
    return f"{origin.__name__}[{', '.join(_type_name(a) for a in inner)}]"


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
