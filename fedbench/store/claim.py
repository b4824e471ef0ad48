"""A process's claim on a folder, held by means of a lock file."""

from __future__ import annotations

from pathlib import Path

from filelock import FileLock, Timeout

from ..errors import ConfigError, TemporaryError
from .files import refuse_link


class Busy(TemporaryError, ConfigError):
    """Another process has claimed the folder."""


class Claim:
    """Keeps other processes out, from its creation until `release` or the end of the process.

    Args:
        file: the lock file, which is never removed.
        patience: how many seconds to wait for another process.

    Raises:
        Busy: when another process has the claim.
        ConfigError: when the lock file is a link.
        OSError: when it cannot be written.
    """

    def __init__(self, file: Path, patience: float = 0.0) -> None:
        refuse_link(file)
        self._file, self._lock = file, FileLock(file, thread_local=False)
        self._held: tuple[int, int] | None = None
        while self._held is None:
            try:
                self._lock.acquire(timeout=patience)
            except Timeout:
                raise Busy(f"{file.parent}: another process is running in it") from None
            self._held = self._found()
            if self._held is None:  # just removed, so another process may create it again
                self._lock.release()

    @property
    def holds(self) -> bool:
        """Whether the lock file is still the claimed one, neither removed nor replaced."""
        return self._held is not None and self._found() == self._held

    def release(self) -> None:
        """Let others have the folder."""
        self._held = None
        self._lock.release()

    def _found(self) -> tuple[int, int] | None:
        try:
            found = self._file.lstat()
        except FileNotFoundError:
            return None
        return found.st_dev, found.st_ino
