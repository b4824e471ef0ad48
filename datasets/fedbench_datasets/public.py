"""Public image data sets whose files hold arrays: MNIST, Fashion-MNIST, CIFAR-10, CIFAR-100.

Addresses and checksums are those in torchvision's classes. Sources: MNIST, LeCun et al., Proc. IEEE
1998; Fashion-MNIST, Xiao et al., arXiv 1708.07747; CIFAR, Krizhevsky 2009.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field

from . import folders, pictures, reading
from .caching import Source, Writer
from .fetching import Download
from .public_base import Public, Resolution

DIGITS = tuple("0123456789")
IDX_PARTS = {"train": "train", "test": "t10k"}


def idx_downloads(mirrors: Sequence[str], md5: Sequence[str]) -> tuple[Download, ...]:
    """Return the four IDX files of an MNIST-like set: images and labels of train, then of test."""
    names = [
        f"{part}-{what}-ubyte.gz"
        for part in IDX_PARTS.values()
        for what in ("images-idx3", "labels-idx1")
    ]
    return tuple(
        Download(tuple(mirror + name for mirror in mirrors), name, f"md5:{checksum}")
        for name, checksum in zip(names, md5, strict=True)
    )


def idx_files(
    places: Sequence[Path], parts: Mapping[str, str] = IDX_PARTS
) -> dict[str, tuple[Path, Path]]:
    """Find the four IDX files, gzipped or not; return split -> (images, labels).

    Args:
        places: where to look.
        parts: split -> how the names of its files begin.

    Raises:
        ReadError: when one is missing.
    """

    def find(part: str, what: str, dimensions: int) -> Path:
        stems = [f"{part}-{what}{dot}idx{dimensions}-ubyte" for dot in "-."]
        return folders.find(places, *(s + end for s in stems for end in (".gz", "")))

    return {
        split: (find(part, "images", 3), find(part, "labels", 1)) for split, part in parts.items()
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
    """MNIST: 70,000 handwritten digits, 28 x 28 grey (60,000 for training).

    Files in ``ROOT/mnist/`` (or ``raw/`` or ``MNIST/raw/`` in it): the four IDX files, gzipped or
    not.
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
        base = self._base(root)
        places = ("", "raw", f"{self.inner}/raw")
        files = idx_files([folders.located(base, place) for place in places])

        def decode(out: Writer) -> tuple[Sequence[str], Sequence[str]]:
            for split, (images, labels) in files.items():
                grey, numbers = reading.idx_pair(images, labels, len(self.classes))
                pictures.add_arrays(out, split, grey, numbers, self.resolution, self.rgb)
            return self.classes, self.domains

        return Source(base, [path for pair in files.values() for path in pair], decode)


@dataclass(frozen=True, eq=False)
class FashionMnist(Mnist):
    """Fashion-MNIST: 70,000 pieces of clothing, 28 x 28 grey (60,000 for training).

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
    """CIFAR-10: 60,000 photographs in ten classes, 32 x 32 RGB (50,000 for training).

    Files in ``ROOT/cifar10/``: ``cifar-10-python.tar.gz``, or ``cifar-10-batches-py/`` from it.
    They are pickles, so only the published files are opened.
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
    checksums: ClassVar[dict[str, str]] = {
        "batches.meta": "5ff9c542aee3614f3951f8cda6e48888",
        "data_batch_1": "c99cafc152244af753f735de768cd75f",
        "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
        "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
        "data_batch_4": "634d18415352ddfa80567beed471001a",
        "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
        "test_batch": "40351d587109b95175f43aff81a1287e",
    }
    """Published MD5 of each pickled file; a file with a different MD5 is never opened."""
    batches: ClassVar[dict[str, tuple[str, ...]]] = {
        "train": tuple(f"data_batch_{n}" for n in range(1, 6)),
        "test": ("test_batch",),
    }
    meta: ClassVar[tuple[str, str]] = ("batches.meta", "label_names")
    labels: ClassVar[str] = "labels"

    def _open(self, root: Path) -> Source:
        base = self._base(root)
        folder = folders.located(base, self.inner)
        if folder.is_dir():
            files, where = [folders.find([folder], name) for name in self.checksums], folder
        else:
            where = folders.find([base], self.downloads[0].path)
            files = [where]

        def decode(out: Writer) -> tuple[Sequence[str], Sequence[str]]:
            found = reading.cifar(where, self.inner, self.checksums)
            for split, names in self.batches.items():
                for name in names:
                    images = found[name]["data"].reshape(-1, 3, 32, 32)
                    out.add(split, images, found[name][self.labels])
            file, key = self.meta
            return found[file][key], self.domains

        return Source(base, files, decode)


@dataclass(frozen=True, eq=False)
class Cifar100(Cifar10):
    """CIFAR-100: 60,000 photographs in 100 classes, 32 x 32 RGB (50,000 for training).

    Files in ``ROOT/cifar100/``: ``cifar-100-python.tar.gz``, or ``cifar-100-python/`` from it.
    They are pickles, so only the published files are opened.
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
    checksums: ClassVar[dict[str, str]] = {
        "meta": "7973b15100ade9c7d40fb424638fde48",
        "test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
        "train": "16019d7e3df5f24257cddd939b257f8d",
    }
    batches: ClassVar[dict[str, tuple[str, ...]]] = {"train": ("train",), "test": ("test",)}
    meta: ClassVar[tuple[str, str]] = ("meta", "fine_label_names")
    labels: ClassVar[str] = "fine_labels"
