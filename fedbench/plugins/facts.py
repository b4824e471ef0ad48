"""What a class states about itself in class attributes: read in one place, with types checked.

Options are dataclass fields; these facts are ``ClassVar``s, and those with a default may be left
out. `fedbench.plugins.rules` checks them when a class is registered.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Annotated, Any, Literal, TypeAlias, TypeVar, get_type_hints

from pydantic import Field, TypeAdapter

from .. import options
from ..errors import PluginError
from ..text import Unit

T = TypeVar("T")

Inputs: TypeAlias = Literal["pixels", "normalised"]
"""What a transform works on: pixels in [0, 1], or values that have been normalised."""


@dataclass(frozen=True)
class DatasetFacts:
    """What a data set's class states about itself.

    Args:
        card: the protocol card that its runs use by default.
        default: whether runs that name no data set use this one.
        embedded: whether the data is inside the package, so that nothing has to be fetched.
        size: how much data there is, in words.
        licence: the licence of the data.
        source: where to get files that have to be obtained by hand.
        classes: names of the classes, where they are known without the files.
        domains: names of the domains, where they are known without the files.
    """

    card: str | None = None
    default: bool = False
    embedded: bool = False
    size: str = "-"
    licence: str = "-"
    source: str = "files of your own"
    classes: tuple[str, ...] = ()
    domains: tuple[str, ...] = ()


@dataclass(frozen=True)
class PluginFacts:
    """What a run plugin's class states about itself.

    Args:
        requires: plugins that must come before it in a run.
        roles: what it is in a run, in free words such as ``"server step"``, for ``conflicts``.
        conflicts: plugin or role -> why no other plugin of that name or role can be in the same
            run. It is enough that one of the two states it.
        setting: whether it is a part of the problem, as an attack is, rather than of the methods
            that are compared on it. Plugins that prepare or divide data or choose clients always
            are.
        outermost: whether it comes before all others, so that its wrappers are the outermost.
        expects: the inputs that its ``transform`` is for; ``None`` for either.
        produces: the inputs that its ``transform`` returns, where that changes what they are.
        addresses: options that name a machine to connect to, see `ExecutorFacts`.
        files: options that name files on whose contents the result depends, empty for none. A run
            keeps a digest of each.
        last_round: what it does in the last round and its result needs, in words; a run with
            ``stop_at``, which may end before, is refused with them.
        anchors: keys under which it broadcasts class anchors, such as prototypes, for diagnostics;
            see `fedbench.anchors.class_anchors` for their forms.
    """

    requires: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()
    conflicts: Mapping[str, str] = field(default_factory=dict)
    setting: bool = False
    outermost: bool = False
    expects: Inputs | None = None
    produces: Inputs | None = None
    addresses: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    last_round: str = ""
    anchors: tuple[str, ...] = ()


@dataclass(frozen=True)
class ExecutorFacts:
    """What an executor's class states about itself.

    Args:
        addresses: options that name a machine to connect to. They are not taken from a run
            directory, which may come from someone else, unless the user repeats them.
    """

    addresses: tuple[str, ...] = ()


@dataclass(frozen=True)
class ModelFacts:
    """What a model's class states about itself.

    Args:
        packages: distributions that its numbers depend on, besides its own and those that every run
            depends on. A run keeps their versions.
    """

    packages: tuple[str, ...] = ()


@dataclass(frozen=True)
class MetricFacts:
    """What a metric's class states about itself; both are required.

    Args:
        higher_is_better: decides which domain is the worst and which round is the best.
        unit: how its numbers are shown.
    """

    higher_is_better: Annotated[bool, Field(description="whether a higher number is better")]
    unit: Annotated[
        Unit,
        Field(
            description="percent for a fraction of 1 that is shown as a percentage, plain for any "
            "other number"
        ),
    ]


def facts(form: type[T], cls: type, who: str = "") -> T:
    """Return what ``cls`` states about itself, as an instance of ``form``.

    Args:
        form: `DatasetFacts`, `ExecutorFacts`, `MetricFacts`, `ModelFacts` or `PluginFacts`.
        cls: a registered class; an attribute that is one of its options is not a fact.
        who: what to call the class in an error; default its name.

    Raises:
        PluginError: for a class attribute of the wrong type, or one that is missing and has no
            default.
    """
    found = _read(form, cls, who or cls.__name__)  # type: ignore[arg-type]
    assert isinstance(found, form)
    return found


@lru_cache(1000)
def _read(form: type, cls: type, who: str) -> object:
    own = {f.name for f in dataclasses.fields(cls)} if dataclasses.is_dataclass(cls) else set()
    hints = get_type_hints(form)
    required = {
        f.name
        for f in dataclasses.fields(form)
        if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    }
    found: dict[str, Any] = {}
    for fact in options.describe(form):
        if fact.name in own or not hasattr(cls, fact.name):
            if fact.name in required:
                raise PluginError(
                    f"{who} needs the class attribute {fact.name} ({fact.type}): {fact.about}"
                )
            continue
        given = getattr(cls, fact.name)
        if not _fits(given, hints[fact.name]):
            raise PluginError(
                f"{who}: class attribute {fact.name} must be {fact.type}, got {given!r}"
            )
        found[fact.name] = given
    return options.build(form, found, str)


def _fits(given: Any, hint: Any) -> bool:
    try:
        TypeAdapter(hint).validate_json(json.dumps(given, allow_nan=False), strict=True)
    except (TypeError, ValueError):
        return False
    return True
