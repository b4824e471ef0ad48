"""Files that are written whole or not at all, and are there after a power cut."""

from __future__ import annotations

import dataclasses
import json
import os
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

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


def default_data_root() -> Path:
    """Return where data sets look for files: ``FEDBENCH_DATA``, else the user's cache folder."""
    given = os.environ.get("FEDBENCH_DATA")
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(given) if given else Path(cache) / "fedbench"


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
