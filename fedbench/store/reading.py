"""Files that a run left, read with suspicion: a damaged one is one clear line, never a traceback.

Run directories travel between machines and are cut off by crashes, so nothing in them is believed
before its form has been checked.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from ..errors import ConfigError
from ..types import RoundResult


@dataclass(frozen=True)
class _Reported:
    """The accuracy of a ``result.json``."""

    rule: str
    metric: str
    inference: str
    mean: float | None
    worst: float | None
    std: float | None
    domains: dict[str, float]


@dataclass(frozen=True)
class _Sent:
    """The bytes of a ``result.json``."""

    up: dict[str, float]
    down: dict[str, float]


@dataclass(frozen=True)
class _Result:
    """What every ``result.json`` holds; more keys may follow."""

    method: str
    changes: list[str]
    data: str
    seed: int
    rounds: int
    accuracy: _Reported
    bytes: _Sent
    seconds: float
    weights_sha256: str
    metrics_sha256: str
    model: str | None = None
    card: dict[str, str] | None = None
    failures: dict[str, int] | None = None


@dataclass(frozen=True)
class _Partition:
    """What a ``partition.json`` holds: client -> domain -> examples per class."""

    classes: list[str]
    domains: list[str]
    counts: dict[str, dict[str, list[int]]]


@dataclass(frozen=True)
class _Environment:
    """What of an ``environment.json`` is read."""

    config_hash: str | None = None
    versions: dict[str, str] | None = None


_FORMS: dict[str, TypeAdapter[Any]] = {
    "result.json": TypeAdapter(_Result),
    "partition.json": TypeAdapter(_Partition),
    "environment.json": TypeAdapter(_Environment),
}
_ROUND: TypeAdapter[Any] = TypeAdapter(RoundResult)


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
    """Return the JSON object in a file; of a run's own files the form is checked as well.

    Raises:
        ConfigError: when it can't be read, is no JSON object or lacks what such a file holds.
    """
    data = _parse(text(path), str(path))
    form = _FORMS.get(path.name)
    if form:
        check(form, data, str(path))
    return data


def optional(path: Path) -> dict[str, Any] | None:
    """Return the JSON object in a file, ``None`` when there is no such file."""
    return json_object(path) if path.is_file() else None


def rounds(path: Path, upto: int | None = None) -> list[dict[str, Any]]:
    """Return the first ``upto`` rounds of a ``rounds.jsonl``, ``[]`` when there is no such file.

    A last line without its end is what a crash leaves, and is left out.

    Raises:
        ConfigError: for a line that is no round, or not the next one, with its number.
    """
    whole = text(path).split("\n")[:-1][:upto] if path.is_file() else []
    found = []
    for number, line in enumerate(whole, 1):
        at = f"{path}:{number}"
        data = _parse(line, at)
        check(_ROUND, data, at)
        if data["round"] != number:
            raise ConfigError(f"{at}: damaged: holds round {data['round']}, expected {number}")
        found.append(data)
        if _names(data) != _names(found[0]):
            raise ConfigError(f"{at}: damaged: its scores are not those of the first round")
    return found


def _names(data: Mapping[str, Any]) -> dict[str, dict[str, tuple[set[str], bool]]]:
    """Return which domains each score of a round has, and whether it is summarised over them."""
    return {
        rule: {
            name: (set(scores["domains"]), scores.get("mean") is not None)
            for name, scores in metrics.items()
        }
        for rule, metrics in data["scores"].items()
    }


def progress(path: Path) -> tuple[list[dict[str, Any]], dict[str, Any] | None]:
    """Return a run directory's rounds and its result, ``None`` for a run that is not finished.

    Raises:
        ConfigError: when one of them is damaged, or they don't belong together.
    """
    done = rounds(path / "rounds.jsonl")
    result = optional(path / "result.json")
    if result and result["rounds"] != len(done):
        file = path / "rounds.jsonl"
        raise ConfigError(f"{file}: damaged: {len(done)} rounds, the result has {result['rounds']}")
    return done, result


def check(form: TypeAdapter[Any], data: Mapping[str, Any], where: str) -> None:
    """Check that ``data`` has a form.

    Raises:
        ConfigError: naming the first key that does not fit.
    """
    try:
        form.validate_python(data)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        what = first["msg"][0].lower() + first["msg"][1:]
        raise ConfigError(f"{where}: damaged: {key}: {what}") from error


def _parse(source: str, where: str) -> dict[str, Any]:
    try:
        data = json.loads(source)
    except (ValueError, RecursionError) as error:
        why = "nested too deeply" if isinstance(error, RecursionError) else error
        raise ConfigError(f"{where}: damaged: {why}") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{where}: damaged: expected a JSON object")
    return data
