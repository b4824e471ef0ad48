"""Search spaces: the values of a method's options that a search tries.

An option's author recommends a space with `fedbench.Search`. A user's own, in a file or on the
command line, replaces it::

    sgd.lr=log:0.001:1            numbers, spread evenly by logarithm; whole ones for whole options
    sgd.momentum=uniform:0:0.99   numbers, spread evenly
    sgd.epochs=int:1:10           whole numbers
    fedprox.mu=choice:0.01,0.1    single values, in YAML
    fedprox.mu=default            not searched: it stays as the method has it
    fedprox:sgd.lr=log:0.01:1     for one of the methods only
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import options
from ..config import yamlfile
from ..config.layers import set_keys_of
from ..config.model import RunConfig
from ..errors import ConfigError, did_you_mean
from ..options import Search
from ..plugins.registry import Registry
from .records import setting_plugins

KINDS = ("log", "uniform", "int", "choice", "default")
FORMS = "log:0.001:1, uniform:0:1, int:1:10, choice:0.1,1 or default"
RANGE = ("low", "high", "scale")
DIGITS = 4
"""Significant digits of a number that a search tries; more would only make it hard to quote."""

Values = Mapping[str, Any]
"""``PLUGIN.OPTION`` -> its value."""


@dataclass(frozen=True, eq=False)
class Space:
    """The values of one option that a search tries.

    Args:
        search: a range or choices.
        whole: whether the numbers of a range are whole.
    """

    search: Search
    whole: bool = False

    def __str__(self) -> str:
        if self.search.choices:
            return ", ".join(map(yamlfile.inline, self.search.choices))
        return str(self.search)

    @property
    def ends(self) -> tuple[float, float]:
        """The ends of a range, both included."""
        assert self.search.low is not None
        assert self.search.high is not None
        return self.search.low, self.search.high

    @property
    def size(self) -> float:
        """How many values there are; infinite for numbers that need not be whole."""
        if self.search.choices:
            return len(self.search.choices)
        low, high = self.ends
        return high - low + 1 if self.whole else math.inf

    def __contains__(self, value: object) -> bool:
        if self.search.choices:
            return yamlfile.inline(value) in map(yamlfile.inline, self.search.choices)
        low, high = self.ends
        if not isinstance(value, int | float) or (self.whole and value != round(value)):
            return False
        return low <= value <= high

    def rounded(self, value: float) -> float:
        """Return a number of a range with `DIGITS` significant digits."""
        low, high = self.ends
        return value if self.whole else min(max(float(f"{value:.{DIGITS}g}"), low), high)

    def points(self, number: int) -> list[Any]:
        """Return the choices, or at most ``number`` (2 or more) values spread over the range."""
        if self.search.choices:
            return list(self.search.choices)
        low, high = self.ends
        shares = [place / (number - 1) for place in range(number)]
        if self.search.scale == "log":
            found = [low * (high / low) ** share for share in shares]
        else:
            found = [low + (high - low) * share for share in shares]
        found[-1] = high
        return list(dict.fromkeys(map(round if self.whole else self.rounded, found)))


Spaces = Mapping[str, Space]
"""``PLUGIN.OPTION`` -> the values that are tried."""


def size(spaces: Spaces) -> float:
    """Return how many points a product of spaces has; 1 for none."""
    return math.prod(space.size for space in spaces.values())


def grid(spaces: Spaces, most: int, seed: int) -> list[dict[str, Any]]:
    """Return ``most`` points of a grid over the spaces, or all if there are fewer, in random order.

    The grid has as many values of each range, at least 2, as let it have at most ``most`` points.
    """
    number = 2
    while math.prod(len(s.points(number + 1)) for s in spaces.values()) <= most and number < most:
        number += 1
    axes = [[(key, value) for value in space.points(number)] for key, space in spaces.items()]
    found = [dict(point) for point in itertools.product(*axes)]
    random.Random(seed).shuffle(found)
    return found[:most]


def sets(values: Values) -> list[str]:
    """Return values as ``KEY=VALUE``, as in ``--set`` and in a method's name."""
    return [f"{key}={yamlfile.inline(value)}" for key, value in values.items()]


@dataclass(frozen=True, eq=False)
class Override:
    """A space that the user gives.

    Args:
        key: ``PLUGIN.OPTION``.
        search: the space; ``None`` leaves the option as it is.
        where: where it was given, for errors.
        method: the method that it is for; ``None`` for every method that has the plugin.
        whole: whether numbers must be whole even if the option takes others.
    """

    key: str
    search: Search | None
    where: str
    method: str | None = None
    whole: bool = False


def overrides(
    file: Path | None, texts: Iterable[str], methods: Sequence[str]
) -> tuple[Override, ...]:
    """Read the spaces of a YAML file, and those of ``--set-space``, which come later and win.

    In the file, a space is a text as on the command line, a list of choices, or a mapping with
    ``low``, ``high`` and perhaps ``scale``.

    Raises:
        ConfigError: naming the place and what to write instead.
    """
    found = []
    if file:
        document = yamlfile.read(file)
        for name, given in document.data.items():
            found.append(_override(name, given, document.where((name,)), methods))
    for text in texts:
        name, given = _split(text, methods)
        found.append(_override(name, given, f"--set-space {text}", methods))
    return tuple(found)


def _split(text: str, methods: Sequence[str]) -> tuple[str, str]:
    """Split ``KEY=SPACE``, whose key may begin with a method's name that has an equals sign."""
    start = len(_method(text, methods) or "")
    key, equals, given = text[start:].partition("=")
    if not equals:
        raise ConfigError(f"--set-space {text}: write PLUGIN.OPTION=SPACE; a space is {FORMS}")
    return text[:start] + key, given


def _method(text: str, methods: Sequence[str]) -> str | None:
    """Return the method with whose name and a colon ``text`` begins, the longest of them."""
    return max((m for m in methods if text.startswith(f"{m}:")), key=len, default=None)


def _override(name: str, given: Any, where: str, methods: Sequence[str]) -> Override:
    method = _method(name, methods)
    key = name.removeprefix(f"{method}:") if method else name
    if ":" in key:
        head = key.rpartition(":")[0]
        raise ConfigError(f"{where}: no method {head!r} is tuned{did_you_mean(head, methods)}")
    kind = given.partition(":")[0] if isinstance(given, str) else ""
    search, whole = _search(given, where), kind == "int"
    if search and whole and not all(isinstance(end, int) for end in (search.low, search.high)):
        raise ConfigError(f"{where}: int takes whole numbers")
    return Override(key, search, where, method, whole)


def _search(given: Any, where: str) -> Search | None:
    """Return the space that a text, list or mapping describes.

    Raises:
        ConfigError: when it describes none.
    """
    if isinstance(given, list):
        space: Search | None = Search(choices=tuple(given))
    elif isinstance(given, dict):
        if wrong := [key for key in given if key not in RANGE]:
            raise ConfigError(f"{where}: unknown key {wrong[0]!r}{did_you_mean(wrong[0], RANGE)}")
        space = Search(**given)
    elif isinstance(given, str):
        space = _from_text(given, where)
    else:
        raise ConfigError(f"{where}: {given!r} is not a space; write {FORMS}")
    if space and space.wrong:
        raise ConfigError(f"{where}: {space.wrong}")
    return space


def _from_text(text: str, where: str) -> Search | None:
    kind, _, rest = text.partition(":")
    if kind not in KINDS or (kind == "default" and rest):
        raise ConfigError(f"{where}: {text!r} is not a space{did_you_mean(kind, KINDS)}: {FORMS}")
    if kind == "default":
        return None
    if kind == "choice":
        return Search(choices=tuple(_value(f"[{rest}]", where)))
    low, colon, high = rest.partition(":")
    if not colon:
        raise ConfigError(f"{where}: give both ends, for example {kind}:1:10")
    low, high = _value(low, where), _value(high, where)
    return Search(low=low, high=high, scale="log" if kind == "log" else "linear")


def _value(text: str, where: str) -> Any:
    try:
        return yamlfile.scalar(text)
    except ConfigError as error:
        why = str(error).removeprefix("--set:1:").removeprefix(" value:")
        raise ConfigError(f"{where}:{why}") from error


def of_method(
    registry: Registry,
    config: RunConfig,
    method: str,
    fixed: Iterable[str],
    given: Sequence[Override],
) -> dict[str, Space]:
    """Return the spaces of a method: those that its plugins declare, changed by the user's.

    Options of the setting, which all methods share, are not searched.

    Args:
        registry: what is installed.
        config: the method's config with its default options.
        method: its name.
        fixed: ``KEY=VALUE`` that the user sets; these options are not searched.
        given: the user's spaces.

    Raises:
        ConfigError: for a space that does not fit its option, or that is of a set option.
    """
    setting = setting_plugins(registry, config.plugins)
    classes = {n: registry.get("plugin", n).value for n in config.plugins if n not in setting}
    set_keys = set().union(*map(set_keys_of, fixed))
    found = {
        f"{name}.{option}": Space(search, options.whole(cls, option))
        for name, cls in classes.items()
        for option, search in options.searches(cls).items()
        if f"{name}.{option}" not in set_keys
    }
    for one in _sorted(given):
        name, _, option = one.key.partition(".")
        if name not in config.plugins or one.method not in (None, method):
            continue
        if name in setting:
            raise ConfigError(f"{one.where}: {name!r} belongs to the setting that methods share")
        if space := _fitting(classes[name], option, one):
            if one.key in set_keys:
                raise ConfigError(f"{one.where}: {one.key} is set, so it cannot be searched")
            found[one.key] = space
        else:
            found.pop(one.key, None)
    return found


def _sorted(given: Sequence[Override]) -> list[Override]:
    """Return the spaces for every method, then those for one, which win."""
    return sorted(given, key=lambda one: one.method is not None)


def _fitting(cls: type, option: str, one: Override) -> Space | None:
    """Return the user's space of an option; ``None`` when the option is not to be searched."""
    known = [found.name for found in options.describe(cls)]
    if option not in known:
        raise ConfigError(f"{one.where}: unknown option {option!r}{did_you_mean(option, known)}")
    if one.search is None:
        return None
    if why := options.unfit(cls, option, one.search):
        raise ConfigError(f"{one.where}: {why}")
    return Space(one.search, one.whole or options.whole(cls, option))


def refuse_unused(given: Iterable[Override], configs: Mapping[str, RunConfig]) -> None:
    """Check that every space of the user's is of a plugin that a method has.

    Raises:
        ConfigError: naming the nearest plugin.
    """
    for one in given:
        of = configs.items() if one.method is None else [(one.method, configs[one.method])]
        known = {name for _, config in of for name in config.plugins}
        name = one.key.partition(".")[0]
        if name not in known:
            who = one.method or "the methods"
            raise ConfigError(
                f"{one.where}: {name!r} is not a plugin of {who}{did_you_mean(name, known)}"
            )
