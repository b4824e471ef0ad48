"""The run directory: config, rounds, result, weights, environment; files are written atomically."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from .errors import ConfigError

if TYPE_CHECKING:
    from .config import RunConfig
    from .types import RoundResult, Value, Weights


def default_data_root() -> Path:
    """Return where data sets look for files: ``FEDBENCH_DATA``, else the user's cache folder."""
    given = os.environ.get("FEDBENCH_DATA")
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(given) if given else Path(cache) / "fedbench"


def write_atomic(path: Path, data: bytes, durable: bool = True) -> None:
    """Write a file whole or not at all: to a temporary name, flushed to disk, then renamed.

    Not ``durable`` leaves the flush to the system: quicker, and lost with a power cut.
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


def json_ready(value: Any) -> Any:
    """Turn dataclasses and mappings into plain JSON data."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: json_ready(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(k): json_ready(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [json_ready(v) for v in value]
    return value


def to_json(value: Any) -> bytes:
    """Return ``value`` as indented JSON text in UTF-8, with a newline at the end."""
    return (json.dumps(json_ready(value), indent=2, ensure_ascii=False) + "\n").encode()


def versions() -> dict[str, str]:
    """Return the versions that a result depends on."""
    names = ("fedbench-toolkit", "torch", "torchvision", "numpy")
    found = {"python": platform.python_version()}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def environment(device: str) -> dict[str, Any]:
    """Describe the machine and the working directory's git state, for ``environment.json``."""
    import torch

    accelerator = torch.cuda.get_device_name(device) if device.startswith("cuda") else None
    return {
        "versions": versions(),
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "device": device,
        "device_name": accelerator,
        "threads_per_client": 1,
        "git": _git(),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _git() -> dict[str, Any] | None:
    def ask(*words: str) -> str:
        done = subprocess.run(
            ["git", *words], capture_output=True, text=True, timeout=10, check=True
        )
        return done.stdout.strip()

    try:
        return {"commit": ask("rev-parse", "HEAD"), "changed": bool(ask("status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return None


class ClientStates(Mapping[int, Mapping[str, "Value"]]):
    """What clients keep between their turns: in memory while it is little, on disk beyond that.

    A round's new states are staged and count only once the round is committed, so that an
    interrupted round leaves no trace. A file is never written twice, and an old one stays until
    `forget_old`, so that the last checkpoint remains whole.

    Args:
        folder: where to put files once ``limit`` is reached; default a temporary folder.
        limit: bytes to hold in memory.
    """

    def __init__(self, folder: Path | None = None, limit: int = 256_000_000) -> None:
        self._folder, self._limit = folder, limit
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self._states: dict[int, Mapping[str, Value] | str] = {}
        self._staged: dict[int, tuple[int, Mapping[str, Value] | str]] = {}
        self._held = 0
        self._kept: set[str] = set()
        self._old: list[str] = []
        self._serial = 0

    def __getitem__(self, client: int) -> Mapping[str, Value]:
        found = self._states[client]
        return self._read(found) if isinstance(found, str) else found

    def _read(self, name: str) -> Mapping[str, Value]:
        from safetensors.torch import load_file

        from .types import unflatten

        return unflatten(load_file(self._path(name)))

    def __iter__(self) -> Iterator[int]:
        return iter(sorted(self._states))

    def __len__(self) -> int:
        return len(self._states)

    def newest(self, client: int) -> Mapping[str, Value] | None:
        """Return a client's state with the round under way counted in; ``None`` for no state."""
        _, staged = self._staged.get(client, (0, None))
        found = staged if staged is not None else self._states.get(client)
        return self._read(found) if isinstance(found, str) else found

    def stage(self, client: int, state: Mapping[str, Value], round: int) -> None:
        """Take a client's new state; it replaces the old one when ``round`` is committed."""
        from .types import flatten

        size = _size(state)
        if self._held + size <= self._limit:
            self._held += size
            self._staged[client] = (round, state)
            return
        from safetensors.torch import save

        plain = {name: tensor.contiguous() for name, tensor in flatten(state).items()}
        self._serial += 1
        name = f"{client}.{self._serial}.safetensors"
        write_atomic(self._path(name), save(plain), durable=False)
        self._staged[client] = (round, name)

    def commit(self, round: int) -> None:
        """Make the states staged for ``round`` count, and drop those of later rounds."""
        for client, (staged, state) in list(self._staged.items()):
            if staged <= round:
                self._drop(self._states.get(client))
                self._states[client] = state
            else:
                self._drop(state)
            del self._staged[client]

    def _drop(self, state: Mapping[str, Value] | str | None) -> None:
        if isinstance(state, str):
            if state in self._kept:
                self._old.append(state)
            else:
                self._path(state).unlink(missing_ok=True)
        elif state is not None:
            self._held -= _size(state)

    def snapshot(self) -> tuple[Mapping[int, Mapping[str, Value]], Mapping[int, str]]:
        """Return the states in memory, and the file names of the others; keep those files."""
        files = {c: s for c, s in self._states.items() if isinstance(s, str)}
        self._kept |= set(files.values())
        return {c: s for c, s in self._states.items() if not isinstance(s, str)}, files

    def forget_old(self) -> None:
        """Remove files that no longer belong to a state; call it after a checkpoint is written."""
        for name in self._old:
            self._path(name).unlink(missing_ok=True)
        self._kept -= set(self._old)
        self._old = []

    def restore(self, states: Mapping[int, Mapping[str, Value]], files: Mapping[int, str]) -> None:
        """Take over what a checkpoint holds and names; remove all other files in the folder.

        Raises:
            FileNotFoundError: when a file is missing.
        """
        for client, state in states.items():
            self.stage(client, state, 0)
        self.commit(0)
        for client, name in files.items():
            self._path(name).stat()
            self._states[client] = name
            self._serial = max(self._serial, int(name.split(".")[1]))
        self._kept |= {s for s in self._states.values() if isinstance(s, str)}
        if self._folder and self._folder.is_dir():
            for path in self._folder.iterdir():
                if path.name not in self._kept:
                    path.unlink()

    def _path(self, name: str) -> Path:
        if self._folder is None:
            self._temporary = tempfile.TemporaryDirectory(prefix="fedbench-")
            self._folder = Path(self._temporary.name)
        self._folder.mkdir(parents=True, exist_ok=True)
        return self._folder / name

    def close(self) -> None:
        """Remove a temporary folder, if one was made."""
        if self._temporary:
            self._temporary.cleanup()


def _size(state: Mapping[str, Value]) -> int:
    from .types import nbytes

    return sum(nbytes(value) for value in state.values())


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
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise ConfigError(f"{path} exists already; choose another --out, or remove it first")
        directory = cls(path)
        try:
            path.mkdir(parents=True, exist_ok=True)
            write_atomic(path / "config.yaml", config.to_yaml().encode())
            write_atomic(
                path / "environment.json",
                to_json({**environment(config.device), "config_hash": config.hash}),
            )
        except OSError as error:
            raise ConfigError(f"{path} can't be written: {error.strerror or error}") from error
        return directory

    def lock(self) -> FileLock:
        """Claim the folder for this process until the lock is released.

        Raises:
            ConfigError: when another process runs in it.
        """
        lock = FileLock(self.path / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise ConfigError(f"{self.path}: another process is running in it") from None
        return lock

    def write(self, name: str, value: Any) -> None:
        """Write ``value`` as the JSON file ``name``."""
        write_atomic(self.path / name, to_json(value))

    def add_round(self, result: RoundResult) -> None:
        """Append the round to ``rounds.jsonl`` and flush it."""
        with (self.path / "rounds.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(json_ready(result)) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def rounds(self, upto: int) -> list[dict[str, Any]]:
        """Return the first ``upto`` rounds of ``rounds.jsonl`` and cut the file there.

        Raises:
            ConfigError: when there are fewer, or a line is damaged.
        """
        path = self.path / "rounds.jsonl"
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
        lines = text.splitlines(keepends=True)[:upto]
        try:
            found = [json.loads(line) for line in lines]
        except ValueError as error:
            raise ConfigError(f"{path}: damaged: {error}") from error
        if len(found) < upto:
            raise ConfigError(f"{path}: has {len(found)} rounds, the checkpoint {upto}")
        write_atomic(path, "".join(lines).encode())
        return found

    def finish(self, result: Mapping[str, Any], weights: Weights) -> None:
        """Write ``model.safetensors`` and ``result.json``, then remove what only resuming needs."""
        from safetensors.torch import save

        plain = {name: value.contiguous() for name, value in weights.items()}
        write_atomic(self.path / "model.safetensors", save(plain))
        write_atomic(self.path / "result.json", to_json(result))
        for folder in ("checkpoint", "clients"):
            shutil.rmtree(self.path / folder, ignore_errors=True)


def unfinished(path: Path, config_hash: str) -> bool:
    """Whether ``path`` holds an unfinished run of the config with that hash."""
    if (path / "result.json").exists() or not (path / "config.yaml").is_file():
        return False
    environment = path / "environment.json"
    try:
        known = json.loads(environment.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(known, dict) and known.get("config_hash") == config_hash


def free_name(parent: Path, name: str, config_hash: str) -> Path:
    """Return ``parent/name``, or ``name-2``, ``name-3`` ..., the first that can be used.

    That is one that does not exist, or an unfinished run of the same config.
    """
    path, number = parent / name, 1
    while path.exists() and not unfinished(path, config_hash):
        number += 1
        path = parent / f"{name}-{number}"
    return path
