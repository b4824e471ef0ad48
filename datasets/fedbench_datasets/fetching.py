"""Downloads: resumed where they stopped, checked, and moved into place when they are complete.

A file grows as ``NAME.part``; ``NAME.part.json`` records its address and its version there, so that
a later call resumes only the same file (``Range`` with ``If-Range``). An archive is unpacked into a
temporary folder next to its place, which is then renamed; the archive is removed.
"""

from __future__ import annotations

import gzip
import hashlib
import http.client
import json
import shutil
import tarfile
import tempfile
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from filelock import Timeout

from fedbench.errors import ConfigError

from . import locking
from .caching import why

Report = Callable[[str, int, int | None], None]
"""Called with (what is in progress, how much is done, of how much or ``None``)."""

BLOCK = 1 << 18
TRIES = 4
TIMEOUT = 30.0
PAUSE = 1.0

_DAMAGED = (tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, EOFError)


@dataclass(frozen=True)
class Download:
    """One file of a data set.

    Args:
        urls: one or more addresses of the file, tried in order.
        path: where it belongs, relative to the data set's folder.
        checksum: ``md5:...`` or ``sha256:...``, as published; empty if none is published.
        unpack: the folder next to it that unpacking creates; empty if it is not an archive.
    """

    urls: tuple[str, ...]
    path: str
    checksum: str = ""
    unpack: str = ""


class _Failed(Exception):
    """An address did not deliver the file; the text says why."""


def fetch(downloads: Sequence[Download], folder: Path, report: Report) -> None:
    """Download all files into ``folder``, except those that are already there and intact.

    Raises:
        ConfigError: in one line, when a file cannot be downloaded; it says where to put it by hand.
    """
    lock = folder / ".fetch.lock"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locking.held(lock, folder.name, wait=False):
            for item in downloads:
                _fetch(item, folder, report)
    except Timeout:
        raise ConfigError(f"{folder}: {locking.holder(lock)} is fetching it") from None
    except OSError as error:
        raise ConfigError(f"{folder} cannot be written: {error.strerror or error}") from error


def _fetch(item: Download, folder: Path, report: Report) -> None:
    target = folder / item.path
    place = target.parent / item.unpack if item.unpack else target
    if item.unpack and place.is_dir():
        return
    if not (target.is_file() and _intact(target, item.checksum, report)):
        target.parent.mkdir(parents=True, exist_ok=True)
        reasons = []
        for url in item.urls:
            try:
                _download(url, item, target, report)
                break
            except _Failed as error:
                reasons.append(str(error))
        else:
            raise ConfigError(
                f"{'; '.join(reasons)}; if this machine cannot get the file, download it on "
                f"another one and put it at {target}"
            )
    if item.unpack:
        _unpack(target, place, report)
        target.unlink()


def _download(url: str, item: Download, target: Path, report: Report) -> None:
    part = target.with_name(target.name + ".part")
    note = target.with_name(target.name + ".part.json")
    resumed = _transfer(url, item, part, note, report)
    if not _intact(part, item.checksum, report):
        found = _digest(part, item.checksum.partition(":")[0])
        part.unlink()
        note.unlink(missing_ok=True)
        if resumed:  # the earlier bytes may have been of another version
            return _download(url, item, target, report)
        raise _Failed(f"{url}: expected {item.checksum}, found {found}: not the published file")
    part.replace(target)
    note.unlink(missing_ok=True)
    return None


def _transfer(url: str, item: Download, part: Path, note: Path, report: Report) -> bool:
    """Complete ``part``; return whether it began with bytes from an earlier call."""
    resumed = False
    for attempt in range(TRIES):
        if attempt:
            time.sleep(PAUSE * attempt)
        done, headers = _begin(url, item, part, note)
        resumed = resumed or (done > 0 and attempt == 0)
        try:
            response = urllib.request.urlopen(
                urllib.request.Request(url, headers=headers), timeout=TIMEOUT
            )
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == 416 and done:  # nothing is left to send, or the file has changed
                if item.checksum:
                    return True
                part.unlink()
            elif error.code not in (408, 429) and error.code < 500:
                raise _Failed(f"{url}: the server answered {error.code} {error.reason}") from error
            problem = f"the server answered {error.code} {error.reason}"
            continue
        except (OSError, http.client.HTTPException) as error:
            problem = f"cannot be reached ({getattr(error, 'reason', None) or error})"
            if not attempt:
                raise _Failed(f"{url}: {problem}") from error
            continue
        with response:
            done = done if _is_rest(response, done) else 0
            length = response.headers.get("Content-Length", "")
            total = done + int(length) if length.isdecimal() else None
            _write_note(url, response.headers, note)
            done, problem = _receive(
                response, part, done, total, PurePosixPath(item.path).name, report
            )
        if not problem:
            return resumed
    raise _Failed(
        f"{url}: {problem}; what has arrived is kept, and the same command resumes from there"
    )


def _begin(url: str, item: Download, part: Path, note: Path) -> tuple[int, dict[str, str]]:
    """Return how many bytes to resume after, and the request's headers."""
    headers = {"User-Agent": "fedbench", "Accept-Encoding": "identity"}
    done = part.stat().st_size if part.is_file() else 0
    if not done:
        return 0, headers
    try:
        known = json.loads(note.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        known = {}
    validator = known.get("validator") if isinstance(known, dict) else None
    if not isinstance(known, dict) or known.get("url") != url or not (validator or item.checksum):
        return 0, headers
    headers["Range"] = f"bytes={done}-"
    if validator:
        headers["If-Range"] = str(validator)
    return done, headers


def _is_rest(response: Any, done: int) -> bool:
    """Return whether the server sends only what follows ``done`` bytes, not the whole file."""
    return (
        done > 0
        and response.status == 206
        and str(response.headers.get("Content-Range", "")).startswith(f"bytes {done}-")
    )


def _write_note(url: str, headers: Any, note: Path) -> None:
    etag = str(headers.get("ETag") or "")
    strong = "" if etag.startswith("W/") else etag
    validator = strong or str(headers.get("Last-Modified") or "")
    note.write_text(json.dumps({"url": url, "validator": validator}), encoding="utf-8")


def _receive(
    response: Any, part: Path, done: int, total: int | None, name: str, report: Report
) -> tuple[int, str]:
    """Append what arrives; return how much there is now, and what went wrong, if anything did."""
    report(name, done, total)
    with part.open("ab" if done else "wb") as file:
        while True:
            try:
                block = response.read(BLOCK)
            except (OSError, http.client.HTTPException) as error:
                return done, f"the connection broke after {done} bytes ({error})"
            if not block:
                break
            file.write(block)
            done += len(block)
            report(name, done, total)
    if total is not None and done != total:
        return done, f"the connection ended after {done} of {total} bytes"
    return done, ""


def _intact(path: Path, checksum: str, report: Report) -> bool:
    if not checksum:
        return True
    size = path.stat().st_size
    report(f"checking {path.name.removesuffix('.part')}", 0, size)
    kind, _, expected = checksum.partition(":")
    good = _digest(path, kind) == f"{kind}:{expected}"
    report(f"checking {path.name.removesuffix('.part')}", size, size)
    return good


def _digest(path: Path, kind: str) -> str:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.new(kind, usedforsecurity=False))
    return f"{kind}:{digest.hexdigest()}"


def _unpack(archive: Path, place: Path, report: Report) -> None:
    """Unpack a .zip or .tar.gz so that ``place`` appears whole or not at all; links are omitted."""
    what = f"unpacking {archive.name}"
    with tempfile.TemporaryDirectory(prefix=".unpacking-", dir=place.parent) as name:
        inside = Path(name) / place.name
        done = count = 0
        try:
            for member, file in _members(archive):
                path = PurePosixPath(member)
                if path.is_absolute() or ".." in path.parts or "\\" in member or ":" in member:
                    raise ConfigError(
                        f"{archive}: refused: its {member!r} is not a plain relative path"
                    )
                # Some archives hold the folder itself, others only its content.
                parts = path.parts[1:] if path.parts[0] == place.name else path.parts
                target = inside.joinpath(*parts)
                target.parent.mkdir(parents=True, exist_ok=True)
                with target.open("wb") as out:
                    shutil.copyfileobj(file, out)
                done, count = done + target.stat().st_size, count + 1
                if count % 500 == 0:
                    report(what, done, None)
        except _DAMAGED as error:
            raise ConfigError(
                f"{archive}: damaged archive ({why(error)}); remove it and fetch again"
            ) from error
        if not count:
            raise ConfigError(f"{archive}: damaged archive (empty); remove it and fetch again")
        inside.replace(place)
        report(what, done, done)


def _members(archive: Path) -> Iterator[tuple[str, IO[bytes]]]:
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as packed:
            for info in packed.infolist():
                if not info.is_dir() and not info.filename.startswith("__MACOSX/"):
                    with packed.open(info) as file:
                        yield info.filename, file
        return
    with tarfile.open(archive) as tar:
        for member in tar:
            found = tar.extractfile(member) if member.isfile() else None
            if found is not None:
                yield member.name, found
