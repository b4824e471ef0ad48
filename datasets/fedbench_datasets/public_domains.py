"""Public data sets of several domains: digits from four sources, Office-Caltech, PACS.

A data set without a split of its own is split as in the code of FPL's authors (Huang et al., CVPR
2023): the images of a domain are numbered in torchvision's ``ImageFolder`` order (by class folder,
then by file name), and of every ten, numbers 0 to 7 train and 8 and 9 test.

Sources of the digits: MNIST, LeCun et al., Proc. IEEE 1998; USPS, Hull, TPAMI 1994; SVHN, Netzer et
al., NIPS workshop 2011; SYN, Ganin & Lempitsky, ICML 2015.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from . import folders, pictures, reading
from .caching import ReadError, Source, Writer
from .fetching import Download
from .folders import Item
from .public import DIGITS, MNIST_FILES, idx_files
from .public_base import Public, Resolution, in_train


@dataclass(frozen=True, eq=False)
class DigitsFull(Public):
    """The original four digit domains: MNIST, USPS, SVHN and SYN, 32 x 32 RGB.

    Files in ``ROOT/digits-full/``: ``MNIST/`` (or the data set ``mnist``'s folder) with four IDX
    files; ``USPS/usps.bz2`` and ``usps.t.bz2``; ``SVHN/train_32x32.mat`` and ``test_32x32.mat``;
    ``SYN/train/<0..9>/`` and ``SYN/test/<0..9>/`` (or ``val``) with images. The folder in which the
    code of FPL's authors expects all of these, with ``syn/``, is read as it is, and so are the
    downloaded ``synthetic_digits/imgs_train/<0..9>/`` and ``imgs_valid/<0..9>/``.
    MNIST has 70,000 images, USPS 9,298 and SVHN 99,289.
    """

    name: ClassVar[str] = "digits-full"
    size: ClassVar[str] = "178,587 images without SYN"
    card: ClassVar[str] = "digits-fpl"
    licence: ClassVar[str] = "MNIST CC BY-SA 3.0; SVHN non-commercial; USPS and SYN none stated"
    source: ClassVar[str] = "MNIST, USPS, SVHN, and SYN (Ganin & Lempitsky, ICML 2015)"
    domains: ClassVar[tuple[str, ...]] = ("mnist", "usps", "svhn", "syn")
    classes: ClassVar[tuple[str, ...]] = DIGITS
    downloads: ClassVar[tuple[Download, ...]] = (
        *(Download(d.urls, f"MNIST/{d.path}", d.checksum) for d in MNIST_FILES),
        *(
            Download(
                (f"https://www.csie.ntu.edu.tw/~cjlin/libsvmtools/datasets/multiclass/{name}",),
                f"USPS/{name}",
                f"md5:{md5}",
            )
            for name, md5 in (
                ("usps.bz2", "ec16c51db3855ca6c91edd34d0e9b197"),
                ("usps.t.bz2", "8ea070ee2aca1ac39742fdd1ef5ed118"),
            )
        ),
        *(
            Download((f"http://ufldl.stanford.edu/housenumbers/{name}",), f"SVHN/{name}", md5)
            for name, md5 in (
                ("train_32x32.mat", "md5:e26dedcc434d2e4c54c9b2d4a06d8373"),
                ("test_32x32.mat", "md5:eb5a983be6a315427106f1b164d9cef3"),
            )
        ),
    )
    by_hand: ClassVar[str] = (
        "SYN is on its authors' drive (linked from http://yaroslav.ganin.net): put its images at "
        "{folder}/SYN/train/<digit>/ and {folder}/SYN/test/<digit>/, or a folder "
        "synthetic_digits with imgs_train and imgs_valid into {folder}"
    )

    def _open(self, root: Path) -> Source:
        base = self._base(root)
        places = [folders.located(base, place) for place in ("MNIST", "MNIST/raw", "")]
        other = folders.located(root, "mnist")
        places += [folders.located(other, place) for place in ("", "raw", "MNIST/raw")]
        mnist = idx_files(places)
        usps = [folders.find([base], f"USPS/{n}", n) for n in ("usps.bz2", "usps.t.bz2")]
        svhn = {
            split: folders.find([base], f"SVHN/{split}_32x32.mat", f"{split}_32x32.mat")
            for split in ("train", "test")
        }
        syn = {
            split: folders.find_folder(base, *(f"{p}/{name}" for p in SYN for name in names))
            for split, names in SYN_FOLDERS.items()
        }
        items = {
            split: folders.folder_items(folder, checked_digits(folder))
            for split, folder in syn.items()
        }

        def decode(out: Writer) -> tuple[Sequence[str], Sequence[str]]:
            for split in ("train", "test"):
                grey, labels = reading.idx_pair(*mnist[split], 10)
                pictures.add_arrays(out, split, grey, labels, 32, rgb=True, domain=0)
                folder = usps[0 if split == "train" else 1].parent
                grey, labels = reading.libsvm_digits(folder, split == "train")
                pictures.add_arrays(out, split, grey, labels, 32, rgb=True, domain=1)
                out.add(split, *reading.mat_digits(svhn[split]), domain=2)
                pictures.add_images(out, split, items[split], 32, domain=3)
            return self.classes, self.domains

        files = [*(path for pair in mnist.values() for path in pair), *usps, *svhn.values()]
        images = [path for found in items.values() for path, _ in found]
        return Source(base, [*files, *images], decode)


SYN = ("SYN", "synthetic_digits", "SYN/synthetic_digits")
SYN_FOLDERS = {"train": ("train", "imgs_train"), "test": ("test", "val", "imgs_valid")}


def checked_digits(folder: Path) -> list[str]:
    """Return the ten digits after checking that ``folder`` has a folder for each and no others.

    Raises:
        ReadError: when it has others.
    """
    names = folders.class_folders(folder, 10)
    if names != list(DIGITS):
        raise ReadError(f"{folder}: expected class folders 0 to 9, found {', '.join(names)}")
    return names


@dataclass(frozen=True, eq=False)
class FolderDomains(Public):
    """A data set with a folder of class folders for each domain, and no split of its own."""

    domains: ClassVar[tuple[str, ...]]
    count: ClassVar[int]

    resolution: Resolution = 32

    def _open(self, root: Path) -> Source:
        place = self._base(root)
        base = folders.holding(place, self.domains) or place
        classes: list[str] = []
        items: list[list[Item]] = []
        for domain in self.domains:
            folder = folders.unwrapped(folders.find_folder(base, domain))
            found = folders.class_folders(folder, self.count)
            classes = classes or found
            if found != classes:
                odd = sorted(set(found) ^ set(classes))
                raise ReadError(
                    f"{folder}: class folders differ from those of {self.domains[0]}: "
                    f"{', '.join(odd)}"
                )
            items.append(folders.folder_items(folder, classes))

        def decode(out: Writer) -> tuple[Sequence[str], Sequence[str]]:
            for domain, found in enumerate(items):
                for split in ("train", "test"):
                    chosen = [
                        item for n, item in enumerate(found) if in_train(n) == (split == "train")
                    ]
                    pictures.add_images(out, split, chosen, self.resolution, domain=domain)
            return classes, self.domains

        files = [path for found in items for path, _ in found]
        return Source(base, files, decode, len(files), (classes, self.domains))


@dataclass(frozen=True, eq=False)
class OfficeCaltech(FolderDomains):
    """Office-Caltech-10 (Gong et al., CVPR 2012): ten classes of objects in four domains.

    Files in ``ROOT/office-caltech/`` (or a folder in it, such as ``Office_Caltech_10/``): folders
    ``caltech``, ``amazon``, ``webcam``, ``dslr``, each with the same ten class folders of images.
    Of every ten images, eight train; see the module.
    """

    name: ClassVar[str] = "office-caltech"
    size: ClassVar[str] = "2,533 images"
    card: ClassVar[str] = "office-caltech-fpl"
    licence: ClassVar[str] = "none stated; research use"
    source: ClassVar[str] = "Gong et al., CVPR 2012, from Office-31 and Caltech-256"
    domains: ClassVar[tuple[str, ...]] = ("caltech", "amazon", "webcam", "dslr")
    count: ClassVar[int] = 10
    by_hand: ClassVar[str] = (
        "its images are on personal drives only; find 'Office-Caltech-10' (2,533 images) and put "
        "them at {folder}/<caltech, amazon, webcam, dslr>/<class>/*.jpg"
    )


@dataclass(frozen=True, eq=False)
class Pacs(FolderDomains):
    """PACS (Li et al., ICCV 2017): seven classes as photographs, art, cartoons and sketches.

    Files in ``ROOT/pacs/`` (or a folder in it, such as ``PACS/kfold/``): folders ``art_painting``,
    ``cartoon``, ``photo``, ``sketch``, each with the same seven class folders. Of every ten
    images, eight train; see the module. The authors' own lists are not used.
    """

    name: ClassVar[str] = "pacs"
    size: ClassVar[str] = "9,991 images"
    licence: ClassVar[str] = "none stated; research use"
    source: ClassVar[str] = "Li et al., ICCV 2017"
    domains: ClassVar[tuple[str, ...]] = ("art_painting", "cartoon", "photo", "sketch")
    count: ClassVar[int] = 7
    by_hand: ClassVar[str] = (
        "its images are on its authors' drive (linked from their ICCV 2017 project page); put them "
        "at {folder}/<art_painting, cartoon, photo, sketch>/<class>/*"
    )

    resolution: Resolution = 64
