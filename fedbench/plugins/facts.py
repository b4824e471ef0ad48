"""What a class says of itself in class attributes: read in one place, with types checked.

Options are dataclass fields; these are not. They are ``ClassVar``s, and all of them may be left
out. `fedbench.plugins.rules` checks them when a class is registered.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

from .. import options
from ..errors import ConfigError, PluginError

T = TypeVar("T")


@dataclass(frozen=True)
class DatasetFacts:
    """What a data set's class says of itself.

    Args:
        card: the protocol card that its runs use by default.
        default: whether runs that name no data set use this one.
        embedded: whether the data is inside the package, so that nothing has to be fetched.
        size: how much data there is, in words.
        licence: of the data.
        source: where files come from that have to be brought by hand.
    """

    card: str | None = None
    default: bool = False
    embedded: bool = False
    size: str = "-"
    licence: str = "-"
    source: str = "files of your own"


@dataclass(frozen=True)
class PluginFacts:
    """What a run plugin's class says of itself.

    Args:
        requires: plugins that must come before it in a run.
        outermost: whether it comes before all others, so that its wrappers are the outermost.
    """

    requires: tuple[str, ...] = ()
    outermost: bool = False


def facts(form: type[T], cls: type, who: str = "") -> T:
    """Return what ``cls`` says of itself, in the form of one of the classes above.

    Args:
        form: `DatasetFacts` or `PluginFacts`.
        cls: a registered class; attributes that are options of its own are no facts.
        who: what the class is called in an error; default its own name.

    Raises:
        PluginError: for a class attribute of another type than its fact has.
    """
    found = _read(form, cls, who or cls.__name__)  # type: ignore[arg-type]
    assert isinstance(found, form)
    return found


@lru_cache(1000)
def _read(form: type, cls: type, who: str) -> object:
    own = {f.name for f in dataclasses.fields(cls)} if dataclasses.is_dataclass(cls) else set()
    found: dict[str, Any] = {}
    for fact in options.describe(form):
        if fact.name in own or not hasattr(cls, fact.name):
            continue
        given = getattr(cls, fact.name)
        try:
            options.build(form, {**found, fact.name: given}, str)
        except ConfigError as error:
            raise PluginError(
                f"{who}: class attribute {fact.name} must be {fact.type}, got {given!r}"
            ) from error
        found[fact.name] = given
    return options.build(form, found, str)
