"""Readers of the original file formats: each returns arrays or raises one line naming the file.

What torchvision reads safely and from any such file is left to it: libsvm (USPS). IDX is read here
because torchvision reads it only unpacked and asserts without a message; .mat by SciPy because
torchvision's class accepts only the published file; CIFAR here because torchvision's class reads
only the unpacked folder. Image folders are in `folders`, images in `pictures`.
"""

from __future__ import annotations

import gzip
import hashlib
import pickle
import struct
import tarfile
import warnings
import zlib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from .caching import ReadError, why
from .folders import find

U8 = npt.NDArray[np.uint8]
I64 = npt.NDArray[np.int64]


def idx(path: Path, dimensions: int) -> U8:
    """Read an IDX file of unsigned bytes with that many dimensions, gzipped or not.

    Raises:
        ReadError: when it is damaged, truncated, too long or another kind of array.
    """
    data = _unpacked(path)
    if len(data) < 4 or data[:2] != b"\0\0":
        raise ReadError(f"{path}: not an IDX file")
    kind, found = data[2], data[3]
    if kind != 8 or found != dimensions:
        raise ReadError(
            f"{path}: expected an IDX file of bytes (type 8) in {dimensions} dimensions, found "
            f"type {kind} in {found}"
        )
    start = 4 + 4 * dimensions
    if len(data) < start:
        raise ReadError(f"{path}: truncated, its header ends early")
    shape = struct.unpack(f">{dimensions}I", data[4:start])
    expected = start + int(np.prod(shape, dtype=object))
    if len(data) != expected:
        what = "truncated" if len(data) < expected else "too long"
        raise ReadError(
            f"{path}: {what}: expected {expected} bytes for {' x '.join(map(str, shape))}, found "
            f"{len(data)}"
        )
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


def _unpacked(path: Path) -> bytes:
    raw = path.read_bytes()
    if raw[:2] != b"\x1f\x8b":
        return raw
    try:
        return gzip.decompress(raw)
    except (EOFError, OSError, zlib.error) as error:
        raise ReadError(f"{path}: truncated or damaged gzip file ({why(error)})") from error


def idx_pair(images: Path, labels: Path, classes: int, first: int = 0) -> tuple[U8, I64]:
    """Read IDX images (n, height, width) and their labels (n,), which files count from ``first``.

    Raises:
        ReadError: when a file is damaged, the counts differ or a class is missing.
    """
    pictures, numbers = idx(images, 3), idx(labels, 1)
    if len(pictures) != len(numbers):
        raise ReadError(f"{labels}: {len(numbers)} labels for {len(pictures)} images in {images}")
    return pictures, checked_labels(labels, numbers.astype(np.int64) - first, classes)


def checked_labels(path: Path, labels: Any, classes: int) -> I64:
    """Return labels as int64 (n,) after checking that they are 0..classes-1 and all occur.

    Raises:
        ReadError: when they are not; it names the file and what was found.
    """
    numbers = np.asarray(labels).reshape(-1).astype(np.int64)
    present = np.unique(numbers)
    if not len(present) or present[0] < 0 or present[-1] >= classes:
        found = f"{present[0]} to {present[-1]}" if len(present) else "none"
        raise ReadError(f"{path}: expected labels of {classes} classes, found {found}")
    if len(present) != classes:
        raise ReadError(f"{path}: expected examples of {classes} classes, found {len(present)}")
    return numbers


def libsvm_digits(folder: Path, train: bool) -> tuple[U8, I64]:
    """Read ``usps.bz2`` or ``usps.t.bz2`` in ``folder``: images (n, 16, 16) and labels (n,).

    Raises:
        ReadError: when the file is damaged or a class is missing.
    """
    from torchvision.datasets import USPS  # slow to import

    path = folder / ("usps.bz2" if train else "usps.t.bz2")
    try:
        data = USPS(str(folder), train=train)
    except (EOFError, OSError, ValueError, IndexError) as error:
        raise ReadError(
            f"{path}: truncated or damaged: expected bzip2 lines 'label index:value ...' of 256 "
            f"values ({why(error)})"
        ) from error
    return data.data, checked_labels(path, data.targets, 10)


def mat_digits(path: Path) -> tuple[U8, I64]:
    """Read SVHN's cropped digits: images (n, 3, 32, 32) and labels (n,), where 10 becomes 0.

    Raises:
        ReadError: when the file is damaged, of another form, or a class is missing.
    """
    from scipy.io import loadmat

    try:
        found = loadmat(path, variable_names=("X", "y"))
    except Exception as error:  # SciPy fails in many ways on a damaged file
        raise ReadError(f"{path}: truncated or damaged .mat file ({why(error)})") from error
    images, labels = found.get("X"), found.get("y")
    if (
        images is None
        or labels is None
        or images.dtype != np.uint8
        or images.ndim != 4
        or images.shape[:3] != (32, 32, 3)
        or labels.size != images.shape[3]
    ):
        raise ReadError(f"{path}: expected X (32, 32, 3, n) of bytes and y (n, 1)")
    numbers = labels.reshape(-1).astype(np.int64)
    numbers[numbers == 10] = 0
    return images.transpose(3, 2, 0, 1), checked_labels(path, numbers, 10)


def cifar(path: Path, folder: str, checksums: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Read pickled CIFAR batches, from their folder or from the original .tar.gz.

    Opening a pickle runs whatever code it names, so a batch is only opened when it has the MD5
    published for it. MD5 is enough for that: no way is known to make a file for a given MD5.

    Args:
        path: the unpacked folder, or the archive.
        folder: the archive's inner folder.
        checksums: batch to read -> its published MD5, in hexadecimal.

    Returns:
        batch -> what was pickled, with Python 2's strings as str.

    Raises:
        ReadError: when a batch is missing or is not the published one, or the archive is damaged.
    """
    found = {}
    for name, where, data in _batches(path, folder, checksums):
        md5 = hashlib.md5(data, usedforsecurity=False).hexdigest()
        if md5 != checksums[name]:
            raise ReadError(
                f"{where}: expected MD5 {checksums[name]}, found {md5}: not the published file, "
                f"and only that one is safe to unpickle; remove {path} and get it again"
            )
        with warnings.catch_warnings():  # NumPy 2.4.0 to 2.4.4 warn about pickles of Python 2
            warnings.filterwarnings("ignore", r"dtype\(\): align should be passed as")
            found[name] = pickle.loads(data, encoding="latin-1")
    return found


def _batches(path: Path, folder: str, names: Collection[str]) -> Iterator[tuple[str, str, bytes]]:
    """Yield each batch's name, its place in words, and its content."""
    if path.is_dir():
        for name in names:
            yield name, str(path / name), find([path], name).read_bytes()
        return
    left = set(names)
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                name = member.name.removeprefix("./").removeprefix(f"{folder}/")
                file: IO[bytes] | None = archive.extractfile(member) if name in left else None
                if file is not None:
                    left.remove(name)
                    yield name, f"{path}: {member.name}", file.read()
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise ReadError(f"{path}: truncated or damaged archive ({why(error)})") from error
    if left:
        raise ReadError(f"{path}: truncated, or another archive: no {folder}/{sorted(left)[0]}")
