"""The run directory: config, rounds, result, weights, environment; files are written atomically."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from ..errors import ConfigError
from .client_states import ClientStates as ClientStates
from .environment import environment
from .files import TEMPORARY, json_ready, named, remove_temporary, to_json
from .files import write_atomic as write_atomic

if TYPE_CHECKING:
    from ..config.model import RunConfig
    from ..types import RoundResult, Weights


class RunDirectory:
    """A run's folder. `create` makes a new one and never touches an existing run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, path: Path, config: RunConfig) -> RunDirectory:
        """Make the folder with ``config.yaml`` and ``environment.json``.

        Raises:
            ConfigError: when it exists and is not empty, or can't be written.
        """
        directory = cls(path)
        try:
            if path.exists() and (not path.is_dir() or not _begun(path)):
                raise ConfigError(
                    f"{path} exists already; choose another --out, or remove it first"
                )
            path.mkdir(parents=True, exist_ok=True)
            remove_temporary(path)
            # The config comes last: with it the folder is a run that can be gone on with.
            write_atomic(
                path / "environment.json",
                to_json({**environment(config.device), "config_hash": config.hash}),
            )
            write_atomic(path / "config.yaml", config.to_yaml().encode())
        except OSError as error:
            raise ConfigError(f"{path} can't be written: {error.strerror or error}") from error
        return directory

    def lock(self) -> FileLock:
        """Claim the folder for this process until the lock is released, and tidy it.

        Raises:
            ConfigError: when another process runs in it, it can't be written, or a part of it is a
                link that leads elsewhere.
        """
        for name in (".lock", "checkpoint", "checkpoints", "clients"):
            if (self.path / name).is_symlink():
                raise ConfigError(f"{self.path / name} is a link; a run writes into its own folder")
        lock = FileLock(self.path / ".lock")
        try:
            lock.acquire(timeout=0.5)  # the workers of a killed run may hold it a moment longer
        except Timeout:
            raise ConfigError(f"{self.path}: another process is running in it") from None
        except OSError as error:
            raise ConfigError(f"{self.path} can't be written: {error.strerror or error}") from error
        for folder in (self.path, self.path / "checkpoint"):
            remove_temporary(folder)
        return lock

    def write(self, name: str, value: Any) -> None:
        """Write ``value`` as the JSON file ``name``."""
        write_atomic(self.path / name, to_json(value))

    def add_round(self, result: RoundResult) -> None:
        """Append the round to ``rounds.jsonl`` and flush it."""
        path = self.path / "rounds.jsonl"
        try:
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(json_ready(result)) + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise named(error, path) from error

    def rounds(self, upto: int) -> list[dict[str, Any]]:
        """Return the first ``upto`` rounds of ``rounds.jsonl`` and cut the file there.

        Raises:
            ConfigError: when there are fewer, or a line is damaged.
        """
        from . import reading  # heavy: pydantic and torch

        path = self.path / "rounds.jsonl"
        found = reading.rounds(path, upto)
        if len(found) < upto:
            raise ConfigError(f"{path}: has {len(found)} rounds, the checkpoint {upto}")
        write_atomic(path, "".join(json.dumps(one) + "\n" for one in found).encode())
        return found

    def finish(self, result: Mapping[str, Any], weights: Weights) -> None:
        """Write ``model.safetensors`` and ``result.json``, then remove what only resuming needs."""
        from safetensors.torch import save

        plain = {name: value.contiguous() for name, value in weights.items()}
        write_atomic(self.path / "model.safetensors", save(plain))
        write_atomic(self.path / "result.json", to_json(result))
        self.tidy()

    def tidy(self) -> None:
        """Remove what only resuming needs."""
        for folder in ("checkpoint", "clients"):
            shutil.rmtree(self.path / folder, ignore_errors=True)


def _begun(path: Path) -> bool:
    """Whether a folder is empty, or holds only what `RunDirectory.create` was killed over."""
    ours = re.compile(rf"environment\.json|\.(environment\.json|config\.yaml)\..*\{TEMPORARY}")
    return all(ours.fullmatch(entry.name) for entry in path.iterdir())


def unfinished(path: Path, config_hash: str) -> bool:
    """Whether ``path`` holds an unfinished run of the config with that hash."""
    if (path / "result.json").exists() or not (path / "config.yaml").is_file():
        return False
    from . import reading

    try:
        known = reading.json_object(path / "environment.json")
    except ConfigError:
        return False
    return known.get("config_hash") == config_hash


def free_name(parent: Path, name: str, config_hash: str) -> Path:
    """Return ``parent/name``, or ``name-2``, ``name-3`` ..., the first that can be used.

    That is one that does not exist, or an unfinished run of the same config.
    """
    path, number = parent / name, 1
    while path.exists() and not unfinished(path, config_hash):
        number += 1
        path = parent / f"{name}-{number}"
    return path
