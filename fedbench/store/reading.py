"""Read the files of a run: a damaged one is reported in one clear line, never as a traceback.

Run directories are copied between machines and cut off by crashes, so the form of everything in
them is checked once, when it is read. The result is a typed value.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from ..errors import ConfigError
from ..types import RoundResult
from .contents import Environment, Interrupted, Partition, Result

T = TypeVar("T")

_ROUND = TypeAdapter(RoundResult)
_RESULT = TypeAdapter(Result)
_PARTITION = TypeAdapter(Partition)
_ENVIRONMENT = TypeAdapter(Environment)
_INTERRUPTED = TypeAdapter(Interrupted)


def text(path: Path) -> str:
    """Return the text of a file.

    Raises:
        ConfigError: when it cannot be read or is not UTF-8.
    """
    try:
        return path.read_bytes().decode("utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: damaged: not UTF-8 at byte {error.start}") from error


def json_object(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file.

    Raises:
        ConfigError: when it cannot be read or is not a JSON object.
    """
    return _parse(text(path), str(path))


def result(path: Path) -> Result | None:
    """Return the contents of a ``result.json``; ``None`` if there is no such file.

    Raises:
        ConfigError: when it is damaged. The same holds for the functions below.
    """
    return _optional(_RESULT, path)


def partition(path: Path) -> Partition | None:
    """Return the contents of a ``partition.json``; ``None`` if there is no such file."""
    return _optional(_PARTITION, path)


def environment(path: Path) -> Environment | None:
    """Return the contents of an ``environment.json``; ``None`` if there is no such file."""
    return _optional(_ENVIRONMENT, path)


def interrupted(path: Path) -> Interrupted | None:
    """Return the contents of an ``interrupted.json``; ``None`` if there is no such file."""
    return _optional(_INTERRUPTED, path)


def rounds(path: Path, upto: int | None = None) -> list[RoundResult]:
    """Return the first ``upto`` rounds of a ``rounds.jsonl``; ``[]`` if there is no such file.

    An incomplete last line, which a crash may leave, is ignored.

    Raises:
        ConfigError: with the number of a line that is not a round, or not the next one.
    """
    whole = text(path).split("\n")[:-1][:upto] if path.is_file() else []
    found: list[RoundResult] = []
    first: dict[tuple[str, ...], tuple[set[Any], bool]] = {}
    for number, line in enumerate(whole, 1):
        at = f"{path}:{number}"
        one = check(_ROUND, _parse(line, at), at)
        if one.round != number:
            raise ConfigError(f"{at}: damaged: holds round {one.round}, expected {number}")
        found.append(one)
        if (names := _names(one)) and names != (first := first or names):
            raise ConfigError(f"{at}: damaged: it has other scores than the first scored round")
    return found


def _names(one: RoundResult) -> dict[tuple[str, ...], tuple[set[Any], bool]]:
    """Return the domains or clients of each score of a round, and whether it has a mean.

    Empty for a round that is not scored.
    """
    held = one.validation
    domains = {"domains": one.scores, "validation, domains": held.domains}
    clients = {"clients": one.client_scores, "validation, clients": held.clients}
    return {
        (where, rule, name): (set(scores.domains), scores.mean is not None)
        for where, rules in domains.items()
        for rule, metrics in rules.items()
        for name, scores in metrics.items()
    } | {
        (where, rule, name): (set(over.clients), True)
        for where, by_rule in clients.items()
        for rule, by_metric in by_rule.items()
        for name, over in by_metric.items()
    }


def check(form: TypeAdapter[T], data: Mapping[str, Any], where: str) -> T:
    """Return ``data`` as a value of the type that ``form`` describes.

    Raises:
        ConfigError: naming the first key that does not fit.
    """
    try:
        return form.validate_python(data)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        what = first["msg"][0].lower() + first["msg"][1:]
        raise ConfigError(f"{where}: damaged: {key}: {what}") from error


def _optional(form: TypeAdapter[T], path: Path) -> T | None:
    return check(form, json_object(path), str(path)) if path.is_file() else None


def _parse(source: str, where: str) -> dict[str, Any]:
    try:
        data = json.loads(source)
    except (ValueError, RecursionError) as error:
        why = "nested too deeply" if isinstance(error, RecursionError) else error
        raise ConfigError(f"{where}: damaged: {why}") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{where}: damaged: expected a JSON object")
    return data
