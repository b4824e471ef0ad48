"""Cache of decoded data sets: memory-mapped inputs, keyed by a checksum of the source files.

``ROOT/.cache/NAME/KEY/`` holds ``train.bin`` and ``test.bin`` (the inputs, raw, C order), labels,
domains and, if the data have any, clients as ``.npy``, ``meta.json`` with types and shapes, and
``checksums.json`` with the XXH3 of each of these files. KEY is a SHA-256 of the readers' version,
the options, Pillow's version, the names of classes and domains, and the name, size and content of
every source file. To avoid reading the sources again at every start, ``NAME/stamps/`` records which
key belongs to a list of names, sizes, and times of modification and of change (``ctime``; on
Windows, of creation). A file whose content changes while all of these stay the same is not noticed.

A folder appears under its key by a single rename, once it is complete and on disk, so a
half-written cache is never used. Loading it reads every byte once to check it (200 MB take 0.02 s
from memory, and what the disk takes the first time); a damaged one is made anew. All of ``.cache``
may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import stat
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import PIL
import torch
from torch import Tensor
from xxhash import xxh3_64_hexdigest

from fedbench.store.files import default_data_root, write_atomic
from fedbench.text import summary
from fedbench.types import Dataset, Examples

from .locking import held
from .notices import say, some

VERSION = 2
"""Of the readers and the cache format; raised when the same files would give other tensors."""

SPLITS = ("train", "test")
FILES = (
    "meta.json",
    *(f"{split}.{what}" for split in SPLITS for what in ("bin", "labels.npy", "domains.npy")),
)
CLIENTS = tuple(f"{split}.clients.npy" for split in SPLITS)
"""Further files, for data that come from clients."""
CHECKSUMS = "checksums.json"
QUIET_SECONDS = 10.0
LARGEST = 4 << 30
"""Bytes of a source file; a larger one is refused before it is opened, as it may have no end."""


class ReadError(ValueError):
    """A source file is missing, damaged or not what was expected; the text names the file."""


class Damaged(ValueError):
    """A cache cannot be used; the text says which of its files is at fault."""


def why(error: BaseException) -> str:
    """Return an error's text in one line, to be quoted in another error."""
    return (summary(error) or type(error).__name__).rstrip(" :.")


class Writer:
    """Writes decoded examples to files, chunk by chunk, in the order in which they are added.

    Args:
        folder: an empty folder to write to.
        name: the data set's name, for the progress message.
        expected: the number of examples to come, if known.
    """

    def __init__(self, folder: Path, name: str, expected: int | None) -> None:
        self._folder, self._name, self._expected = folder, name, expected
        self._files: dict[str, IO[bytes]] = {}
        self._kinds: dict[str, tuple[str, tuple[int, ...]]] = {}
        self._labels: dict[str, list[npt.NDArray[np.int64]]] = {s: [] for s in SPLITS}
        self._domains: dict[str, list[npt.NDArray[np.int64]]] = {s: [] for s in SPLITS}
        self._clients: dict[str, list[npt.NDArray[np.int64]]] = {s: [] for s in SPLITS}
        self._remarks: dict[str, list[str]] = {}
        self._done, self._said = 0, time.monotonic()
        self.clients: Sequence[str] = ()
        """The names of the data's own clients; set by whoever adds examples with clients."""

    def remark(self, what: str, path: str) -> None:
        """Note something about a file that the user should know; each ``what`` is said once."""
        self._remarks.setdefault(what, []).append(path)

    def add(
        self,
        split: str,
        inputs: npt.NDArray[Any],
        labels: Sequence[int] | Any,
        domain: int = 0,
        clients: Sequence[int] | Any | None = None,
    ) -> None:
        """Add inputs (n, ...) with labels (n,), all of one domain, to ``train`` or ``test``.

        Data that come from clients also have ``clients`` (n,), indices into `self.clients`.

        Raises:
            ReadError: when the inputs differ in type or shape from those added before.
        """
        kind = (str(inputs.dtype), tuple(inputs.shape[1:]))
        if self._kinds.setdefault("all", kind) != kind:
            raise ReadError(f"expected inputs of {self._kinds['all']} as before, found {kind}")
        if split not in self._files:
            self._files[split] = (self._folder / f"{split}.bin").open("wb")
        self._files[split].write(np.ascontiguousarray(inputs).data)
        self._labels[split].append(np.asarray(labels, dtype=np.int64))
        self._domains[split].append(np.full(len(inputs), domain, dtype=np.int64))
        if clients is not None:
            self._clients[split].append(np.asarray(clients, dtype=np.int64))
        self._done += len(inputs)
        if time.monotonic() - self._said > QUIET_SECONDS:
            self._said = time.monotonic()
            total = f" of {self._expected}" if self._expected else ""
            say(self._name, f"decoded {self._done}{total} (the first time only)")

    def finish(self, classes: Sequence[str], domains: Sequence[str], key: str) -> None:
        """Write all other files next to the inputs and flush them to disk; say the remarks.

        Raises:
            ReadError: when a split is empty or a class has no training example.
        """
        shapes = {}
        for split in SPLITS:
            labels = np.concatenate(self._labels[split] or [np.empty(0, np.int64)])
            if split not in self._files or not len(labels):
                raise ReadError(f"the files hold no {split} examples")
            self._files.pop(split).close()
            if split == "train":
                counts = np.bincount(labels, minlength=len(classes))
                if len(counts) > len(classes) or not counts.all():
                    none = [repr(name) for name, n in zip(classes, counts, strict=False) if not n]
                    raise ReadError(
                        f"expected {len(classes)} classes in the training examples, found "
                        f"{int((counts > 0).sum())}{', none of ' if none else ''}{some(none)}"
                    )
            np.save(self._folder / f"{split}.labels.npy", labels)
            np.save(self._folder / f"{split}.domains.npy", np.concatenate(self._domains[split]))
            if self.clients:
                np.save(self._folder / f"{split}.clients.npy", np.concatenate(self._clients[split]))
            shapes[split] = [len(labels), *self._kinds["all"][1]]
        meta = {
            "checksum": key,
            "dtype": self._kinds["all"][0],
            "shapes": shapes,
            "classes": list(classes),
            "domains": list(domains),
            "clients": list(self.clients),
        }
        (self._folder / "meta.json").write_text(json.dumps(meta), encoding="utf-8")
        names = (*FILES, *(CLIENTS if self.clients else ()))
        sums = {name: _file_checksum(self._folder / name) for name in names}
        (self._folder / CHECKSUMS).write_text(json.dumps(sums), encoding="utf-8")
        for path in self._folder.iterdir():
            with path.open("rb+") as file:
                os.fsync(file.fileno())
        for what, paths in self._remarks.items():
            say(self._name, f"{what}: {some(paths, 1)}")

    def close(self) -> None:
        """Close the files, after success or failure."""
        for file in self._files.values():
            file.close()


@dataclass(frozen=True)
class Source:
    """Files on disk and how to decode them.

    Args:
        base: the folder that file names are relative to.
        files: every file that ``decode`` reads.
        decode: adds the examples to a `Writer` and returns (classes, domains).
        examples: the number of examples, if known.
        names: (classes, domains), if they come from more than the files, such as an empty folder.
    """

    base: Path
    files: Sequence[Path | str]
    decode: Callable[[Writer], tuple[Sequence[str], Sequence[str]]]
    examples: int | None = None
    names: tuple[Sequence[str], Sequence[str]] = ((), ())


def load(source: Source, root: Path, name: str, options: Mapping[str, Any]) -> Dataset:
    """Return the data set from the cache, decoding it into the cache first if necessary.

    Processes that need the same data at the same time decode it only once. If ``root`` is not
    writable, the cache is in the user's own folder instead.

    Raises:
        ReadError: when a source file cannot be decoded, or is not a plain file.
        OSError: when no cache can be written.
    """
    places = list(dict.fromkeys((root, default_data_root(), _own_folder())))
    for parent in places:
        folder = parent / ".cache" / name
        if _writable(folder):
            return _load(source, folder, name, options)
        found = _open_stamped(folder, _stamp(source, options))
        if found:
            return found
    raise PermissionError(f"no cache can be written in {' or '.join(map(str, places))}")


def _writable(folder: Path) -> bool:
    try:
        (folder / "stamps").mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK) and os.access(folder / "stamps", os.W_OK)


def _own_folder() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.path.expanduser(cache)) / "fedbench"


def _load(source: Source, folder: Path, name: str, options: Mapping[str, Any]) -> Dataset:
    stamp = _stamp(source, options)
    found = _open_stamped(folder, stamp)
    if found:
        return found
    with held(folder / ".lock", name):
        found = _open_stamped(folder, stamp)  # another process may just have made it
        if found:
            return found
        key = _checksum(source, options)
        if not _whole(folder / key, name):
            _decode(source, folder, name, key)
            if _stamp(source, options) != stamp:
                shutil.rmtree(folder / key)
                raise ReadError(f"{source.base}: files changed while they were read")
        write_atomic(folder / "stamps" / stamp, key.encode())
        return _open(folder / key)


def _whole(folder: Path, name: str) -> bool:
    """Return whether there is a cache that can be used; say so if there is a damaged one."""
    if not folder.is_dir():
        return False
    try:
        _open(folder)
    except Damaged as error:
        say(name, f"{error}; decoding the files again")
        return False
    return True


def _decode(source: Source, folder: Path, name: str, key: str) -> None:
    """Decode into a temporary folder and rename it; the caller holds the lock."""
    for stale in folder.glob("unfinished-*"):  # left by a process that was killed
        shutil.rmtree(stale)
    target = folder / key
    if target.exists():  # damaged, or it would have been opened
        shutil.rmtree(target)
    unfinished = folder / f"unfinished-{os.getpid()}"
    unfinished.mkdir()
    writer = Writer(unfinished, name, source.examples)
    try:
        classes, domains = source.decode(writer)
        writer.finish(classes, domains, key)
        unfinished.rename(target)
    finally:
        writer.close()
        shutil.rmtree(unfinished, ignore_errors=True)


def _open_stamped(folder: Path, stamp: str) -> Dataset | None:
    try:
        key = (folder / "stamps" / stamp).read_text(encoding="ascii")
        return _open(folder / key) if len(key) == 64 and key.isalnum() else None
    except (OSError, UnicodeDecodeError, Damaged):
        return None


def _open(folder: Path) -> Dataset:
    """Check a finished cache and map it into memory.

    Raises:
        Damaged: when there is none, or a file is missing or differs from its checksum.
    """
    place = folder / CHECKSUMS
    try:
        sums = json.loads(place.read_text(encoding="utf-8"))
        for name in dict.fromkeys((*FILES, *sums)):
            place = folder / name
            if _file_checksum(place) != sums[name]:
                raise Damaged(f"{place} is damaged (its checksum differs)")
        place = folder / "meta.json"
        meta = json.loads(place.read_text(encoding="utf-8"))
        train, test = (_examples(folder, split, meta) for split in SPLITS)
        clients = tuple(meta.get("clients", ()))
        return Dataset(tuple(meta["classes"]), tuple(meta["domains"]), train, test, clients)
    except Damaged:
        raise
    except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
        raise Damaged(f"{place} is damaged ({why(error)})") from error


def _file_checksum(path: Path) -> str:
    """Return the XXH3 of a file, which is about as fast as memory."""
    if not path.stat().st_size:
        return xxh3_64_hexdigest(b"")
    return xxh3_64_hexdigest(np.memmap(path, np.uint8, mode="r").data)


def _examples(folder: Path, split: str, meta: Mapping[str, Any]) -> Examples:
    shape, dtype = tuple(meta["shapes"][split]), np.dtype(meta["dtype"])
    path = folder / f"{split}.bin"
    if path.stat().st_size != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"{path} has the wrong size")
    # Copy on write ("c"): pages are shared with the file, which never changes.
    inputs = torch.from_numpy(np.memmap(path, dtype, mode="c", shape=shape))

    def column(what: str) -> Tensor:
        values = np.load(folder / f"{split}.{what}.npy", allow_pickle=False)
        if values.shape != shape[:1] or values.dtype != np.int64:
            raise ValueError(f"{split}.{what} has the wrong shape")
        return torch.from_numpy(values)

    clients = column("clients") if meta.get("clients") else None
    return Examples(inputs, column("labels"), column("domains"), clients)


def _names(source: Source) -> list[tuple[bytes, str]]:
    """Return the name relative to the base, with ``/``, and the path of each file; sorted."""
    base = os.path.join(source.base, "")

    def name(path: str) -> bytes:
        # relpath is slow, and a data set may have 100,000 files
        short = path[len(base) :] if path.startswith(base) else os.path.relpath(path, base)
        return os.fsencode(short.replace(os.sep, "/"))

    return sorted((name(path), path) for path in map(str, source.files))


def plain_file(path: str | Path) -> os.stat_result:
    """Return the state of a file that may be read to its end; follow links.

    Raises:
        ReadError: when it is missing, empty, too large, or a folder, pipe or device; nothing is
            opened.
    """
    try:
        found = os.stat(path)
    except FileNotFoundError:
        raise ReadError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:
        raise ReadError(f"{path}: {getattr(error, 'strerror', None) or error}") from None
    if not stat.S_ISREG(found.st_mode):
        what = "a folder" if stat.S_ISDIR(found.st_mode) else "a pipe, socket or device"
        raise ReadError(f"{path}: {what}, not a file")
    if not 0 < found.st_size <= LARGEST:
        what = f"{found.st_size:,} bytes are too many, at most {LARGEST:,} are read"
        raise ReadError(f"{path}: {what if found.st_size else 'truncated or damaged: empty'}")
    return found


def _stamp(source: Source, options: Mapping[str, Any]) -> str:
    digest = _begin(source, options)
    digest.update(os.fsencode(source.base.resolve()) + b"\n")
    for name, path in _names(source):
        found = plain_file(path)
        times = f"{found.st_mtime_ns} {found.st_ctime_ns}"
        digest.update(name + f"\0{found.st_size} {times}\n".encode())
    return str(digest.hexdigest())


def _checksum(source: Source, options: Mapping[str, Any]) -> str:
    digest = _begin(source, options)
    for name, path in _names(source):
        with open(path, "rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        digest.update(name + f"\0{os.stat(path).st_size} {content}\n".encode())
    return str(digest.hexdigest())


def _begin(source: Source, options: Mapping[str, Any]) -> Any:
    about = {
        "version": VERSION,
        "pillow": PIL.__version__,
        "options": dict(options),
        "names": [list(names) for names in source.names],
    }
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode() + b"\n")
