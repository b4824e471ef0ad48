"""Checksums of what clients sent and what the server kept, per round: ``digests.jsonl``.

With a few bytes per tensor, they let `fedbench.engine.verify` name the first round, client and
tensor that differ. A line holds ``round``; ``names``, the tensors of an upload; ``clients``, id ->
sixteen digits per name in that order, or a mapping if a client sent other tensors; ``server``; and
``checksum``, the kind of checksum. Lines with another kind of checksum are ignored.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, TypeAdapter

from ..errors import ConfigError
from ..types import ServerState
from ..values import CHECKSUM, checksums
from . import reading
from .directory import RunDirectory
from .files import append, write_atomic

DIGITS = 16


@dataclass(frozen=True)
class _Line:
    """The contents of a line of ``digests.jsonl``."""

    round: Annotated[int, Field(ge=1)]
    names: list[str]
    clients: dict[int, str | dict[str, str]]
    server: dict[str, str]
    checksum: str = ""


_LINE: TypeAdapter[_Line] = TypeAdapter(_Line)


def of_state(state: ServerState) -> dict[str, str]:
    """Return the checksums of the server's weights and entries after a round."""
    return {**checksums({"weights": state.weights}), **checksums(state.entries)}


def line(
    round: int, clients: Mapping[int, Mapping[str, str]], server: Mapping[str, str]
) -> dict[str, Any]:
    """Return a round's line of ``digests.jsonl``; `clients_of` reads it."""
    names = list(next(iter(clients.values()), {}))
    packed = {
        str(client): "".join(found.values()) if list(found) == names else dict(found)
        for client, found in clients.items()
    }
    return {
        "round": round,
        "names": names,
        "clients": packed,
        "server": dict(server),
        "checksum": CHECKSUM,
    }


def clients_of(line: Mapping[str, Any]) -> dict[int, dict[str, str]]:
    """Return client -> tensor's name -> checksum, as given to `line`."""
    found: dict[int, dict[str, str]] = {}
    for client, packed in line["clients"].items():
        if isinstance(packed, str):
            parts = [packed[i : i + DIGITS] for i in range(0, len(packed), DIGITS)]
            packed = dict(zip(line["names"], parts, strict=True))
        found[int(client)] = packed
    return found


def add(directory: Path, line: Mapping[str, Any]) -> None:
    """Append a round's line to a run's ``digests.jsonl``."""
    text = json.dumps(line, separators=(",", ":")) + "\n"
    append(RunDirectory(directory).digests_file, text, durable=False)


def read(directory: Path) -> dict[int, dict[str, Any]]:
    """Return a run's lines by round; rounds without a line are missing.

    Raises:
        ConfigError: for a complete line that is damaged.
    """
    path = RunDirectory(directory).digests_file
    if not path.is_file():
        return {}
    found = {}
    for number, text in enumerate(path.read_bytes().split(b"\n")[:-1], 1):
        try:
            one = json.loads(text)
            reading.check(_LINE, one, f"{path}:{number}")
            if one.get("checksum") == CHECKSUM:
                clients_of(one)
                found[int(one["round"])] = one
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ConfigError(f"{path}:{number}: damaged: {error}") from error
    return found


def cut(directory: Path, upto: int) -> None:
    """Drop the lines of rounds after ``upto``, and an incomplete line that a crash left."""
    path = RunDirectory(directory).digests_file
    if path.is_file():
        kept = [one for number, one in read(directory).items() if number <= upto]
        text = "".join(json.dumps(one, separators=(",", ":")) + "\n" for one in kept)
        write_atomic(path, text.encode())
