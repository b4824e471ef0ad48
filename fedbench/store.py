"""The run directory: config, rounds, result, weights, environment; files are written atomically."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, MutableMapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

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


class ClientStates(MutableMapping[int, Mapping[str, "Value"]]):
    """What clients keep between their turns: in memory while it is little, on disk beyond that.

    Args:
        folder: where to put files once ``limit`` is reached; default a temporary folder.
        limit: bytes to hold in memory.
    """

    def __init__(self, folder: Path | None = None, limit: int = 256_000_000) -> None:
        self._folder, self._limit = folder, limit
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self._memory: dict[int, Mapping[str, Value]] = {}
        self._sizes: dict[int, int] = {}
        self._held = 0
        self._on_disk: set[int] = set()

    def __getitem__(self, client: int) -> Mapping[str, Value]:
        if client in self._on_disk:
            from safetensors.torch import load_file

            from .types import unflatten

            return unflatten(load_file(self._file(client)))
        return self._memory[client]

    def __setitem__(self, client: int, state: Mapping[str, Value]) -> None:
        from .types import flatten, nbytes

        self.pop(client, None)
        size = sum(nbytes(value) for value in state.values())
        if self._held + size <= self._limit:
            self._memory[client], self._sizes[client] = state, size
            self._held += size
            return
        from safetensors.torch import save

        plain = {name: tensor.contiguous() for name, tensor in flatten(state).items()}
        write_atomic(self._file(client), save(plain), durable=False)
        self._on_disk.add(client)

    def __delitem__(self, client: int) -> None:
        if client in self._on_disk:
            self._on_disk.remove(client)
            self._file(client).unlink()
        else:
            del self._memory[client]
            self._held -= self._sizes.pop(client)

    def __iter__(self) -> Iterator[int]:
        return iter(sorted((*self._memory, *self._on_disk)))

    def __len__(self) -> int:
        return len(self._memory) + len(self._on_disk)

    def _file(self, client: int) -> Path:
        if self._folder is None:
            self._temporary = tempfile.TemporaryDirectory(prefix="fedbench-")
            self._folder = Path(self._temporary.name)
        self._folder.mkdir(parents=True, exist_ok=True)
        return self._folder / f"{client}.safetensors"

    def close(self) -> None:
        """Remove a temporary folder, if one was made."""
        if self._temporary:
            self._temporary.cleanup()


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
            write_atomic(path / "environment.json", to_json(environment(config.device)))
        except OSError as error:
            raise ConfigError(f"{path} can't be written: {error.strerror or error}") from error
        return directory

    def write(self, name: str, value: Any) -> None:
        """Write ``value`` as the JSON file ``name``."""
        write_atomic(self.path / name, to_json(value))

    def add_round(self, result: RoundResult) -> None:
        """Append the round to ``rounds.jsonl`` and flush it."""
        with (self.path / "rounds.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(json_ready(result)) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def finish(self, result: Mapping[str, Any], weights: Weights) -> None:
        """Write ``model.safetensors`` and, last of all, ``result.json``."""
        from safetensors.torch import save

        plain = {name: value.contiguous() for name, value in weights.items()}
        write_atomic(self.path / "model.safetensors", save(plain))
        write_atomic(self.path / "result.json", to_json(result))


def free_name(parent: Path, name: str) -> Path:
    """Return ``parent/name``, or ``name-2``, ``name-3`` ..., whichever does not exist yet."""
    path, number = parent / name, 1
    while path.exists():
        number += 1
        path = parent / f"{name}-{number}"
    return path
