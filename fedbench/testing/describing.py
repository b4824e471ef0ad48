"""Rules on what a plugin says about itself: its docstring, its source, its options."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from .. import options as option_checks
from ..config import yamlfile
from ..errors import ConfigError
from .breach import Breach
from .rule import rule
from .subject import KINDS, RUN, Subject, build

LEARNING = ("local_loss", "aggregate", "server_update")
"""Hooks that change what is learned; a plugin with one of them must name its source."""

CITES = re.compile(r"\b(19|20)\d\d\b|https?://|arXiv|doi", re.IGNORECASE)
CLASSES = tuple(k for k in KINDS if k != "method")


@rule(*KINDS)
def docstring(subject: Subject) -> None:
    """It says in one line what it does.

    Mend: give the class a docstring, or the `Recipe` an `about=`: listings and the documentation
    show its first line.
    """
    if subject.kind == "method":
        if not subject.entry.about:
            raise Breach("the recipe's `about` is empty")
        return
    own = vars(subject.cls).get("__doc__") or ""
    # A dataclass without a docstring gets its signature as one.
    if not own.strip() or own.startswith(f"{subject.cls.__name__}("):
        raise Breach("the class has no docstring", _place(subject.cls))


def _cites(subject: Subject) -> bool:
    return subject.kind == "method" or (
        subject.entry.kind == "plugin" and any(h in subject.entry.hooks for h in LEARNING)
    )


@rule(*RUN, "dataset", applies=lambda s: s.kind == "dataset" or _cites(s))
def source(subject: Subject) -> None:
    """Whatever changes the learning names the paper that it comes from, and a data set its origin.

    Mend: name authors, venue and year (or a link) in the docstring of the class or its module, or
    in `Recipe(source=...)`; give a data set the class attributes `source` and `licence`.
    """
    if subject.kind == "dataset":
        for name in ("source", "licence"):
            if not getattr(subject.cls, name, ""):
                raise Breach(f"the class attribute {name!r} is missing", _place(subject.cls))
        return
    if subject.kind == "method":
        texts = [subject.entry.value.source]
    else:
        module = sys.modules.get(subject.cls.__module__)
        homes = [r for r in subject.registry.all("recipe") if subject.name in r.value.plugins]
        texts = [inspect.getdoc(subject.cls), getattr(module, "__doc__", "")]
        texts += [home.value.source for home in homes]
    if not any(CITES.search(text or "") for text in texts):
        raise Breach("no year, arXiv id, DOI or link is named", _place(subject))


@rule(*CLASSES)
def options(subject: Subject) -> None:
    """Every option has a type and a description, and a number has bounds that its default meets.

    Mend: write `name: Annotated[float, Field(gt=0, description="...")] = 0.5` with a default within
    the bounds; check what involves several options in `__post_init__`, and raise `ValueError`.
    """
    cls, given = subject.cls, subject.options
    properties = option_checks.schema(cls).get("properties", {})
    for option in option_checks.describe(cls):
        where = f"option {option.name!r}"
        if not option.about:
            raise Breach("it has no description", where)
        if option.type in ("Any", "object"):
            raise Breach(f"its type is {option.type}, which accepts anything", where)
        for number in _numbers(properties[option.name]):
            if not _bounds(number):
                raise Breach("it is a number without a bound", where)
    try:
        dumped = option_checks.dump(build(cls, given))
        document = yamlfile.parse(yamlfile.dump(dumped), "options")
        again = option_checks.dump(build(cls, dict(document.data)))
    except ConfigError as error:
        mend = "give the kit a value: testing.rules(kind, name, options={...})"
        mend = mend if "required" in str(error) else ""
        raise Breach(f"its options are refused: {error}", "defaults", mend) from error
    if again != dumped:
        raise Breach(f"options change when written to YAML and read back: {dumped} becomes {again}")
    for name, schema in properties.items():
        for wrong in _outside(schema):
            _refused(cls, {**dumped, name: wrong}, f"{name}: {wrong!r}")
    _refused(cls, {**dumped, "no_such_option": 1}, "an unknown option")


def _refused(cls: type, given: Mapping[str, Any], what: str) -> None:
    try:
        build(cls, given)
    except ConfigError:
        return
    raise Breach(f"{what} is accepted")


def _numbers(schema: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield the parts of an option's schema that describe a number."""
    for part in (schema, *schema.get("anyOf", ())):
        if part.get("type") in ("integer", "number"):
            yield part


def _bounds(schema: Mapping[str, Any]) -> list[float]:
    """Return a value just outside each bound."""
    step = {"minimum": -1, "maximum": 1, "exclusiveMinimum": 0, "exclusiveMaximum": 0}
    return [schema[key] + by for key, by in step.items() if key in schema]


def _outside(schema: Mapping[str, Any]) -> Iterator[Any]:
    """Yield values that the schema of an option excludes."""
    if "anyOf" in schema:
        return
    for part in _numbers(schema):
        yield from _bounds(part)
    if "enum" in schema:
        yield "no such choice"
    if schema.get("type") in ("integer", "number", "boolean"):
        yield "no number"


def _place(subject: Any) -> str:
    """Return file and line of a class."""
    cls = subject.entry.value if isinstance(subject, Subject) else subject
    if not isinstance(cls, type):
        return ""
    try:
        line = inspect.getsourcelines(cls)[1]
        return f"{inspect.getsourcefile(cls)}:{line}"
    except (OSError, TypeError):
        return f"{cls.__module__}.{cls.__qualname__}"
