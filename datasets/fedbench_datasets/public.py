"""Public image data sets whose files hold arrays: MNIST, Fashion-MNIST, CIFAR, and four digit sets.

Addresses and checksums are those that torchvision's classes carry. Sources: MNIST, LeCun et al.,
Proc. IEEE 1998; Fashion-MNIST, Xiao et al., arXiv 1708.07747; CIFAR, Krizhevsky 2009; USPS, Hull,
TPAMI 1994; SVHN, Netzer et al., NIPS workshop 2011; SYN, Ganin & Lempitsky, ICML 2015.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import Field

from . import pictures, reading
from .caching import ReadError, Source, Writer
from .fetching import Download
from .public_base import Public, Resolution

DIGITS = tuple("0123456789")
IDX_PARTS = {"train": "train", "test": "t10k"}


def idx_downloads(mirrors: Sequence[str], md5: Sequence[str]) -> tuple[Download, ...]:
    """Return the four IDX files of an MNIST-like set: train images, labels, test images, labels."""
    names = [
        f"{part}-{what}-ubyte.gz"
        for part in IDX_PARTS.values()
        for what in ("images-idx3", "labels-idx1")
    ]
    return tuple(
        Download(tuple(mirror + name for mirror in mirrors), name, f"md5:{checksum}")
        for name, checksum in zip(names, md5, strict=True)
    )


def idx_files(folders: Sequence[Path]) -> dict[str, tuple[Path, Path]]:
    """Find the four IDX files, packed or not: split -> (images, labels)."""

    def find(part: str, what: str, dimensions: int) -> Path:
        stems = [f"{part}-{what}{dot}idx{dimensions}-ubyte" for dot in "-."]
        return reading.find(folders, *(s + end for s in stems for end in (".gz", "")))

    return {
        split: (find(part, "images", 3), find(part, "labels", 1))
        for split, part in IDX_PARTS.items()
    }


MNIST_FILES = idx_downloads(
    ("https://ossci-datasets.s3.amazonaws.com/mnist/", "http://yann.lecun.com/exdb/mnist/"),
    (
        "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "d53e105ee54ea40749a09fcbcd1e9432",
        "9fb629c4189551a2d022fa330f9573f3",
        "ec29112dd5afa0611ce80d1b7f02629c",
    ),
)


@dataclass(frozen=True, eq=False)
class Mnist(Public):
    """MNIST: 70,000 handwritten digits, 28 x 28 grey (60,000 to train).

    Files in ``ROOT/mnist/`` (or ``raw/``, ``MNIST/raw/`` in it): the four IDX files, packed or not.
    """

    name: ClassVar[str] = "mnist"
    size: ClassVar[str] = "70,000 images"
    card: ClassVar[str] = "mnist-nid1"
    licence: ClassVar[str] = "CC BY-SA 3.0"
    source: ClassVar[str] = "http://yann.lecun.com/exdb/mnist/"
    domains: ClassVar[tuple[str, ...]] = ("mnist",)
    classes: ClassVar[tuple[str, ...]] = DIGITS
    downloads: ClassVar[tuple[Download, ...]] = MNIST_FILES
    inner: ClassVar[str] = "MNIST"

    resolution: Resolution = 28
    rgb: Annotated[bool, Field(description="three equal channels instead of one")] = False

    def _open(self, root: Path) -> Source:
        base = root / self.name
        files = idx_files([base, base / "raw", base / self.inner / "raw"])

        def decode(out: Writer) -> tuple[Sequence[str], Sequence[str]]:
            for split, (images, labels) in files.items():
                grey, numbers = reading.idx_pair(images, labels, len(self.classes))
                pictures.add_arrays(out, split, grey, numbers, self.resolution, self.rgb)
            return self.classes, self.domains

        return Source(base, [path for pair in files.values() for path in pair], decode)


@dataclass(frozen=True, eq=False)
class FashionMnist(Mnist):
    """Fashion-MNIST: 70,000 pieces of clothing, 28 x 28 grey (60,000 to train).

    Files in ``ROOT/fashion-mnist/``, named and read like MNIST's. Debian's package
    ``dataset-fashion-mnist`` has them in ``/usr/share/datasets/fashion-mnist``.
    """

    name: ClassVar[str] = "fashion-mnist"
    size: ClassVar[str] = "70,000 images"
    card: ClassVar[str] = "fashion-mnist-nid1"
    licence: ClassVar[str] = "MIT"
    source: ClassVar[str] = "https://github.com/zalandoresearch/fashion-mnist"
    domains: ClassVar[tuple[str, ...]] = ("fashion-mnist",)
    classes: ClassVar[tuple[str, ...]] = (
        *("t-shirt", "trouser", "pullover", "dress", "coat"),
        *("sandal", "shirt", "sneaker", "bag", "ankle boot"),
    )
    downloads: ClassVar[tuple[Download, ...]] = idx_downloads(
        ("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",),
        (
            "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
            "25c81989df183df01b3e8a0aad5dffbe",
            "bef4ecab320f06d8554ea6380940ec79",
            "bb300cfdad3c16e7a12a480ee83cd310",
        ),
    )
    inner: ClassVar[str] = "FashionMNIST"


@dataclass(frozen=True, eq=False)
class Cifar10(Public):
    """CIFAR-10: 60,000 photographs of ten kinds of things, 32 x 32 RGB (50,000 to train).

    Files in ``ROOT/cifar10/``: ``cifar-10-python.tar.gz``, or ``cifar-10-batches-py/`` from it.
    """

    name: ClassVar[str] = "cifar10"
    size: ClassVar[str] = "60,000 images"
    card: ClassVar[str] = "cifar10-nid1-0.5"
    licence: ClassVar[str] = "none stated"
    source: ClassVar[str] = "https://www.cs.toronto.edu/~kriz/cifar.html"
    domains: ClassVar[tuple[str, ...]] = ("cifar10",)
    downloads: ClassVar[tuple[Download, ...]] = (
        Download(
            ("https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",),
            "cifar-10-python.tar.gz",
            "md5:c58f30108f718f92721af3b95e74349a",
        ),
    )
    inner: ClassVar[str] = "cifar-10-batches-py"
    batches: ClassVar[dict[str, tuple[str, ...]]] = {
        "train": tuple(f"data_batch_{n}" for n in range(1, 6)),
        "test": ("test_batch",),
    }
    meta: ClassVar[tuple[str, str]] = ("batches.meta", "label_names")
    labels: ClassVar[str] = "labels"
    count: ClassVar[int] = 10

    def _open(self, root: Path) -> Source:
        base = root / self.name
        names = [self.meta[0], *(name for batch in self.batches.values() for name in batch)]
        folder = base / self.inner
        if folder.is_dir():
            files, where = [reading.find([folder], name) for name in names], folder
        else:
            where = reading.find([base], self.downloads[0].path)
            files = [where]

        def decode(out: Writer) -> tuple[Sequence[str], Sequence[str]]:
            found = reading.cifar(where, self.inner, names)
            classes = found[self.meta[0]].get(self.meta[1])
            if not isinstance(classes, list) or len(classes) != self.count:
                many = len(classes) if isinstance(classes, list) else "no"
                raise ReadError(
                    f"{where}: {self.meta[0]}: expected the names of {self.count} classes, "
                    f"found {many}"
                )
            for split, batch in self.batches.items():
                parts = [self._batch(where, name, found[name]) for name in batch]
                numbers = np.concatenate([labels for _, labels in parts])
                reading.checked_labels(where / batch[0], numbers, self.count)
                for images, labels in parts:
                    out.add(split, images, labels)
            return [str(name) for name in classes], self.domains

        return Source(base, files, decode)

    def _batch(self, where: Path, name: str, batch: dict[str, Any]) -> tuple[Any, Any]:
        data, labels = batch.get("data"), batch.get(self.labels)
        if (
            not isinstance(data, np.ndarray)
            or not isinstance(labels, list)
            or data.dtype != np.uint8
            or data.shape != (len(labels), 3072)
        ):
            raise ReadError(
                f"{where}: {name}: expected 'data' (n, 3072) of bytes and n {self.labels!r}"
            )
        return data.reshape(-1, 3, 32, 32), np.asarray(labels)


@dataclass(frozen=True, eq=False)
class Cifar100(Cifar10):
    """CIFAR-100: 60,000 photographs in 100 classes, 32 x 32 RGB (50,000 to train).

    Files in ``ROOT/cifar100/``: ``cifar-100-python.tar.gz``, or ``cifar-100-python/`` from it.
    """

    name: ClassVar[str] = "cifar100"
    size: ClassVar[str] = "60,000 images"
    card: ClassVar[str] = "cifar100-nid1"
    domains: ClassVar[tuple[str, ...]] = ("cifar100",)
    downloads: ClassVar[tuple[Download, ...]] = (
        Download(
            ("https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",),
            "cifar-100-python.tar.gz",
            "md5:eb9058c3a382ffc7106e4002c42a8d85",
        ),
    )
    inner: ClassVar[str] = "cifar-100-python"
    batches: ClassVar[dict[str, tuple[str, ...]]] = {"train": ("train",), "test": ("test",)}
    meta: ClassVar[tuple[str, str]] = ("meta", "fine_label_names")
    labels: ClassVar[str] = "fine_labels"
    count: ClassVar[int] = 100
