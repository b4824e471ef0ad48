"""Data sets made from the MNIST files or stored like them: rotated MNIST, EMNIST.

Sources: rotated domains, Ghifary et al., ICCV 2015; rotation by client, Ghosh et al., NeurIPS 2020;
EMNIST, Cohen et al., IJCNN 2017, with addresses, checksums and classes as in torchvision.
"""

from __future__ import annotations

import string
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import numpy as np
from PIL import Image
from pydantic import Field

from . import folders, pictures, reading
from .caching import Source, Writer
from .fetching import Download
from .public import DIGITS, MNIST_FILES, idx_files
from .public_base import Public, Resolution

Rgb = Annotated[bool, Field(description="three equal channels instead of one")]


def rotated(images: pictures.U8, angle: float) -> pictures.U8:
    """Rotate grey images (n, height, width) counter-clockwise, in degrees; corners become black."""
    turned = [
        np.asarray(Image.fromarray(one).rotate(angle, Image.Resampling.BILINEAR, fillcolor=0))
        for one in images
    ]
    return np.stack(turned)


@dataclass(frozen=True, eq=False)
class MnistRotated(Public):
    """MNIST in domains that differ by how far the digits are rotated; no digit is in two.

    Image i of each split is rotated by angle number i mod n, of n angles, so that the domains have
    the same size. Domains are named ``0``, ``15``, ...; the partition ``domains`` gives each client
    the digits of one angle. Files in ``ROOT/mnist-rotated/`` or those of the data set ``mnist``.
    """

    name: ClassVar[str] = "mnist-rotated"
    size: ClassVar[str] = "70,000 images"
    card: ClassVar[str] = "mnist-rotated"
    licence: ClassVar[str] = "CC BY-SA 3.0"
    source: ClassVar[str] = "http://yann.lecun.com/exdb/mnist/"
    classes: ClassVar[tuple[str, ...]] = DIGITS
    downloads: ClassVar[tuple[Download, ...]] = MNIST_FILES

    angles: Annotated[
        tuple[Annotated[float, Field(ge=-360, le=360)], ...],
        Field(min_length=1, max_length=360, description="degrees to the left, one for each domain"),
    ] = (0.0, 15.0, 30.0, 45.0, 60.0, 75.0)
    resolution: Resolution = 28
    rgb: Rgb = False

    def __post_init__(self) -> None:
        if len(set(self._domains())) < len(self.angles):
            raise ValueError("an angle is listed twice")

    def _domains(self) -> list[str]:
        return [f"{angle:g}" for angle in self.angles]

    def _open(self, root: Path) -> Source:
        bases = [self._base(root), folders.located(root, "mnist")]
        inside = ("", "raw", "MNIST/raw")
        files = idx_files([folders.located(base, place) for base in bases for place in inside])

        def decode(out: Writer) -> tuple[Sequence[str], Sequence[str]]:
            for split, pair in files.items():
                grey, labels = reading.idx_pair(*pair, len(self.classes))
                for domain, angle in enumerate(self.angles):
                    part = slice(domain, None, len(self.angles))
                    turned = rotated(grey[part], angle)
                    pictures.add_arrays(
                        out, split, turned, labels[part], self.resolution, self.rgb, domain
                    )
            return self.classes, self._domains()

        return Source(bases[0], [path for pair in files.values() for path in pair], decode)


LETTERS = string.ascii_uppercase + string.ascii_lowercase
DISTINCT = string.ascii_uppercase + "abdefghnqrt"
"""Letters whose lower case is a class of its own only where it looks different."""

EmnistSplit = Literal["byclass", "bymerge", "balanced", "letters", "digits", "mnist"]
EMNIST_CLASSES: dict[str, tuple[str, ...]] = {
    "byclass": tuple(DIGITS) + tuple(LETTERS),
    "bymerge": tuple(DIGITS) + tuple(DISTINCT),
    "balanced": tuple(DIGITS) + tuple(DISTINCT),
    "letters": tuple(string.ascii_lowercase),
    "digits": DIGITS,
    "mnist": DIGITS,
}


@dataclass(frozen=True, eq=False)
class Emnist(Public):
    """EMNIST: handwritten letters and digits, 28 x 28 grey, in NIST's six splits.

    Files in ``ROOT/emnist/`` (or ``gzip/``, ``raw/`` or ``EMNIST/raw/`` in it): the four IDX files
    of the split, ``emnist-SPLIT-train-images-idx3-ubyte`` and so on, gzipped or not. In them, rows
    and columns are exchanged; here the images are upright. The files do not say who wrote what: for
    FEMNIST with its real writers, use ``hf``.
    """

    name: ClassVar[str] = "emnist"
    size: ClassVar[str] = "814,255 images"
    licence: ClassVar[str] = "none stated"
    source: ClassVar[str] = "https://www.nist.gov/itl/products-and-services/emnist-dataset"
    domains: ClassVar[tuple[str, ...]] = ("emnist",)
    downloads: ClassVar[tuple[Download, ...]] = (
        Download(
            ("https://biometrics.nist.gov/cs_links/EMNIST/gzip.zip",),
            "gzip.zip",
            "md5:58c8d27c78d21e728a6bc7b3cc06412e",
            unpack="gzip",
        ),
    )

    split: Annotated[
        EmnistSplit,
        Field(description="byclass: 62 classes; bymerge, balanced: 47; letters: 26; others: 10"),
    ] = "balanced"
    resolution: Resolution = 28
    rgb: Rgb = False

    def _open(self, root: Path) -> Source:
        base = self._base(root)
        places = [folders.located(base, place) for place in ("", "gzip", "raw", "EMNIST/raw")]
        parts = {split: f"emnist-{self.split}-{split}" for split in ("train", "test")}
        files = idx_files(places, parts)
        classes = EMNIST_CLASSES[self.split]
        first = 1 if self.split == "letters" else 0

        def decode(out: Writer) -> tuple[Sequence[str], Sequence[str]]:
            for split, pair in files.items():
                grey, labels = reading.idx_pair(*pair, len(classes), first)
                upright = grey.transpose(0, 2, 1)
                pictures.add_arrays(out, split, upright, labels, self.resolution, self.rgb)
            return classes, self.domains

        return Source(base, [path for pair in files.values() for path in pair], decode)
