"""Write files completely or not at all, durably, and only where they belong."""

from __future__ import annotations

import dataclasses
import json
import os
import secrets
import stat
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..errors import ConfigError

TEMPORARY = ".part"
"""The ending of the names that `write_atomic` writes to; a killed process may leave one."""


def write_atomic(path: Path, data: bytes, durable: bool = True) -> None:
    """Write a file whole or not at all: to a temporary name, flushed to disk, then renamed.

    A link of that name is replaced, not followed. With ``durable=False``, the flush is left to the
    operating system: faster, but the file may be lost in a power cut.

    Raises:
        OSError: with the name of the file.
    """
    name = None
    try:
        handle, name = new_file(path)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            if durable:
                os.fsync(file.fileno())
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


def new_file(path: Path) -> tuple[int, Path]:
    """Create a temporary file next to ``path``; return its descriptor and its name.

    As for any new file, the umask decides who may read it.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    while True:
        name = path.with_name(f".{path.name}.{secrets.token_hex(4)}{TEMPORARY}")
        with suppress(FileExistsError):
            return os.open(name, flags, 0o666), name


def append(path: Path, text: str, durable: bool = True) -> None:
    """Append text to a file, which is created if there is none; ``durable`` as in `write_atomic`.

    Raises:
        ConfigError: when the file is a link, a pipe or a device.
        OSError: with the name of the file.
    """
    # Without waiting, because opening a pipe waits for a reader.
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NONBLOCK", 0)
    try:
        refuse_link(path)
        handle = os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), 0o666)
        with os.fdopen(handle, "a", encoding="utf-8") as file:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise ConfigError(f"{path} is not a plain file; a run cannot append to it")
            file.write(text)
            file.flush()
            if durable:
                os.fsync(handle)
    except OSError as error:
        raise named(error, path) from error


def refuse_link(path: Path) -> None:
    """Refuse to write through a link, which may lead anywhere.

    Raises:
        ConfigError: when ``path`` is a link.
    """
    if path.is_symlink():
        raise ConfigError(f"{path} is a link; a run writes only into its own folder")


def flush_to_disk(path: Path) -> None:
    """Wait until the contents of a file, or the names in a folder, would survive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove_temporary(folder: Path) -> None:
    """Remove the files that a killed process was writing into ``folder``."""
    for path in folder.glob(f".*{TEMPORARY}"):
        path.unlink(missing_ok=True)


def named(error: OSError, path: Path) -> OSError:
    """Return the error with the name of the file that it is about."""
    return OSError(error.errno, error.strerror or str(error), str(path))


def default_data_root() -> Path:
    """Return where data sets look for files: ``FEDBENCH_DATA``, else the user's cache folder."""
    given = os.environ.get("FEDBENCH_DATA")
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.path.expanduser(given or Path(cache) / "fedbench"))


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
    text = json.dumps(json_ready(value), indent=2, ensure_ascii=False) + "\n"
    return text.encode(errors="backslashreplace")  # a lone surrogate becomes JSON's own escape
