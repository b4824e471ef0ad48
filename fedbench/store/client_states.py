"""What clients keep between their turns, in memory or in files, consistent when interrupted."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, ItemsView, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ConfigError
from .files import flush_to_disk, write_atomic

if TYPE_CHECKING:
    from ..types import Value


OVERHEAD = 1024
"""Approximate number of bytes that a tensor in memory takes in addition to its numbers."""


class Filed(Mapping[str, "Value"]):
    """A client's state in a file, read for each use, so that many of them take no memory.

    Args:
        read: reads the file.
    """

    def __init__(self, read: Callable[[], Mapping[str, Value]]) -> None:
        self._read = read

    def __getitem__(self, key: str) -> Value:
        return self._read()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._read())

    def __len__(self) -> int:
        return len(self._read())

    def __bool__(self) -> bool:
        return True  # no file is written for an empty state

    def items(self) -> ItemsView[str, Value]:
        """Return all values by key, from one reading of the file."""
        return self._read().items()


class ClientStates(Mapping[int, Mapping[str, "Value"]]):
    """What clients keep between their turns: in memory up to a limit, on disk beyond that.

    A round's new states are staged and take effect only when the round is committed, so an
    interrupted round leaves no trace. A file is never overwritten, and an old one stays until
    `forget_old`, so the last checkpoint remains complete.

    Args:
        folder: where to put files once ``limit`` is reached; default a temporary folder.
        limit: number of bytes to keep in memory, so that memory does not grow with the rounds of a
            run with many clients.
    """

    def __init__(self, folder: Path | None = None, limit: int = 8_000_000) -> None:
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
        return _load(self._path(name))

    def __iter__(self) -> Iterator[int]:
        return iter(sorted(self._states))

    def __len__(self) -> int:
        return len(self._states)

    def for_turn(self, client: int) -> Mapping[str, Value]:
        """Return what a client kept, for its next turn; one in a file is read when it is used."""
        found = self._states.get(client, {})
        return Filed(partial(self._read, found)) if isinstance(found, str) else found

    def newest(self, client: int) -> Mapping[str, Value] | None:
        """Return a client's newest state, staged or not; ``None`` if it has none.

        It is a copy, or if it is in a file, read when it is used.
        """
        _, staged = self._staged.get(client, (0, None))
        found = staged if staged is not None else self._states.get(client)
        if found is None or isinstance(found, str):
            return Filed(partial(self._read, found)) if found else None
        import torch

        from ..types import copy_to

        return {key: copy_to(value, torch.device("cpu")) for key, value in found.items()}

    def stage(self, client: int, state: Mapping[str, Value], round: int) -> None:
        """Stage a client's new state, which replaces the old one when ``round`` is committed."""
        from ..types import flatten

        size = _size(state)
        if self._held + size <= self._limit:
            self._held += size
            self._staged[client] = (round, state)
            return
        from .tensor_file import to_bytes

        self._serial += 1
        name = f"{client}.{self._serial}.safetensors"
        write_atomic(self._path(name), to_bytes(flatten(state)), durable=False)
        self._staged[client] = (round, name)

    def commit(self, round: int) -> None:
        """Put the states staged for ``round`` into effect, and drop those of later rounds."""
        new = {c: state for c, (staged, state) in self._staged.items() if staged <= round}
        late = [state for staged, state in self._staged.values() if staged > round]
        replaced = [self._states[c] for c in new if c in self._states]
        # All states change at once, so an interrupt cannot leave some of them a round behind.
        self._states, self._staged = {**self._states, **new}, {}
        for state in (*replaced, *late):
            self._drop(state)

    def _drop(self, state: Mapping[str, Value] | str | None) -> None:
        if isinstance(state, str):
            if state in self._kept:
                self._old.append(state)
            else:
                self._path(state).unlink(missing_ok=True)
        elif state is not None:
            self._held -= _size(state)

    def snapshot(self) -> tuple[Mapping[int, Mapping[str, Value]], Mapping[int, str]]:
        """Return the states in memory and the file names of the others, and keep those files.

        The files are flushed to disk before it returns, because they were written without a flush.
        """
        files = {c: s for c, s in self._states.items() if isinstance(s, str)}
        new = set(files.values()) - self._kept
        for name in sorted(new):
            flush_to_disk(self._path(name))
        if new:
            flush_to_disk(self._path("."))
        self._kept |= new
        return {c: s for c, s in self._states.items() if not isinstance(s, str)}, files

    def forget_old(self) -> None:
        """Remove files that no longer belong to a state; called after a checkpoint is written."""
        for name in self._old:
            self._path(name).unlink(missing_ok=True)
        self._kept -= set(self._old)
        self._old = []

    def restore(self, states: Mapping[int, Mapping[str, Value]], files: Mapping[int, str]) -> None:
        """Adopt the states and files of a checkpoint; remove all other files in the folder.

        Raises:
            FileNotFoundError: when a file is missing.
            ValueError: for a name that this class does not give.
        """
        _check_names(files)
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

    def copy(
        self, states: Mapping[int, Mapping[str, Value]], source: Path, files: Mapping[int, str]
    ) -> None:
        """Copy the states and files of a checkpoint without changing the files in ``source``.

        Raises:
            ConfigError: when a file is missing or damaged.
            ValueError: for a name that this class does not give.
        """
        _check_names(files)
        for client, state in states.items():
            self.stage(client, state, 0)
        for client, name in files.items():
            self.stage(client, _load(source / name), 0)
        self.commit(0)

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


def _check_names(files: Mapping[int, str]) -> None:
    for name in files.values():
        if not re.fullmatch(r"\d+\.\d+\.safetensors", name):
            raise ValueError(f"{name!r} is not the name of a client's state file")


def _load(path: Path) -> Mapping[str, Value]:
    from safetensors import SafetensorError

    from ..types import unflatten
    from .tensor_file import from_bytes

    try:
        return unflatten(from_bytes(path.read_bytes()))
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise ConfigError(f"{path}: damaged: {error}") from error


def _size(state: Mapping[str, Value]) -> int:
    from ..types import nbytes, tensors

    return sum(
        nbytes(value) + OVERHEAD * sum(1 for _ in tensors(value)) for value in state.values()
    )
