"""Files that are written whole or not at all, and are there after a power cut."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path

TEMPORARY = ".part"
"""How the names end that `write_atomic` writes to; a killed process may leave one."""


def write_atomic(path: Path, data: bytes, durable: bool = True) -> None:
    """Write a file whole or not at all: to a temporary name, flushed to disk, then renamed.

    Not ``durable`` leaves the flush to the system: quicker, and lost with a power cut.

    Raises:
        OSError: with the name of the file.
    """
    name = None
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=TEMPORARY)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
        if durable:
            flush_to_disk(path.parent)
    except BaseException as error:
        if name:
            with suppress(OSError):
                os.unlink(name)
        if isinstance(error, OSError):
            raise named(error, path) from error
        raise


def flush_to_disk(path: Path) -> None:
    """Wait until a file's content, or the names in a folder, would survive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove_temporary(folder: Path) -> None:
    """Remove what a killed process was writing into ``folder``."""
    for path in folder.glob(f".*{TEMPORARY}"):
        path.unlink(missing_ok=True)


def named(error: OSError, path: Path) -> OSError:
    """Return the error with the name of the file that it came from."""
    return OSError(error.errno, error.strerror or str(error), str(path))
