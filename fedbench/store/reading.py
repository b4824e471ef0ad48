"""Files that a run left, read with suspicion: a damaged one is one clear line, never a traceback.

Run directories travel between machines and are cut off by crashes, so nothing in them is believed
before its form has been checked. What has been checked is a typed value, made once.
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
        ConfigError: when it can't be read or is no UTF-8.
    """
    try:
        return path.read_bytes().decode("utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: can't be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: damaged: not UTF-8 at byte {error.start}") from error


def json_object(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file.

    Raises:
        ConfigError: when it can't be read or is no JSON object.
    """
    return _parse(text(path), str(path))


def result(path: Path) -> Result | None:
    """Return what a ``result.json`` holds, ``None`` when there is no such file.

    Raises:
        ConfigError: when it is damaged. The same holds for the functions below.
    """
    return _optional(_RESULT, path)


def partition(path: Path) -> Partition | None:
    """Return what a ``partition.json`` holds, ``None`` when there is no such file."""
    return _optional(_PARTITION, path)


def environment(path: Path) -> Environment | None:
    """Return what an ``environment.json`` holds, ``None`` when there is no such file."""
    return _optional(_ENVIRONMENT, path)


def interrupted(path: Path) -> Interrupted | None:
    """Return what an ``interrupted.json`` holds, ``None`` when there is no such file."""
    return _optional(_INTERRUPTED, path)


def rounds(path: Path, upto: int | None = None) -> list[RoundResult]:
    """Return the first ``upto`` rounds of a ``rounds.jsonl``, ``[]`` when there is no such file.

    A last line without its end is what a crash leaves, and is left out.

    Raises:
        ConfigError: for a line that is no round, or not the next one, with its number.
    """
    whole = text(path).split("\n")[:-1][:upto] if path.is_file() else []
    found: list[RoundResult] = []
    for number, line in enumerate(whole, 1):
        at = f"{path}:{number}"
        one = check(_ROUND, _parse(line, at), at)
        if one.round != number:
            raise ConfigError(f"{at}: damaged: holds round {one.round}, expected {number}")
        found.append(one)
        if _names(one) != _names(found[0]):
            raise ConfigError(f"{at}: damaged: its scores are not those of the first round")
    return found


def _names(one: RoundResult) -> dict[str, dict[str, tuple[set[str], bool]]]:
    """Return which domains each score of a round has, and whether it is summarised over them."""
    return {
        rule: {
            name: (set(scores.domains), scores.mean is not None) for name, scores in metrics.items()
        }
        for rule, metrics in one.scores.items()
    }


def check(form: TypeAdapter[T], data: Mapping[str, Any], where: str) -> T:
    """Return ``data`` as the type that ``form`` is of.

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
