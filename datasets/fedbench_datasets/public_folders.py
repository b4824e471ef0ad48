"""Public data sets of one domain as image files: Tiny ImageNet, HAM10000, SUN397."""

from __future__ import annotations

import csv
import os
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field

from . import folders, pictures
from .caching import ReadError, Source, Writer
from .fetching import Download
from .folders import Item
from .public_base import Public, Resolution, in_train


def lines(path: Path) -> list[str]:
    """Return the lines of a text file without the empty ones.

    Raises:
        ReadError: when it is not UTF-8 text.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ReadError(f"{path}: damaged: not UTF-8 text at byte {error.start}") from error
    return [line for line in text.splitlines() if line.strip()]


def from_splits(
    base: Path,
    tables: Sequence[Path],
    splits: Mapping[str, list[Item]],
    classes: Sequence[str],
    domain: str,
    resolution: int,
) -> Source:
    """Return the source of one domain from its listed images; ``tables`` are the other files."""

    def decode(out: Writer) -> tuple[Sequence[str], Sequence[str]]:
        for split, items in splits.items():
            pictures.add_images(out, split, items, resolution)
        return classes, (domain,)

    images = [path for items in splits.values() for path, _ in items]
    return Source(base, [*tables, *images], decode, len(images), (classes, (domain,)))


@dataclass(frozen=True, eq=False)
class TinyImagenet(Public):
    """Tiny ImageNet: 200 ImageNet classes, 64 x 64 RGB, 500 training and 50 test images in each.

    Files in ``ROOT/tiny-imagenet/tiny-imagenet-200/``, as distributed: ``wnids.txt`` (not needed),
    ``train/<wnid>/images/*.JPEG``, ``val/images/*.JPEG`` with ``val/val_annotations.txt``. Where a
    script has sorted the latter into ``val/<wnid>/``, with or without ``images/`` in it, they are
    read in the same order. The validation images are the test images here, since the test labels
    are not public.
    """

    name: ClassVar[str] = "tiny-imagenet"
    size: ClassVar[str] = "110,000 images"
    card: ClassVar[str] = "tiny-imagenet-nid1"
    licence: ClassVar[str] = "ImageNet's terms: non-commercial research"
    source: ClassVar[str] = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"
    domains: ClassVar[tuple[str, ...]] = ("tiny-imagenet",)
    count: ClassVar[int] = 200
    downloads: ClassVar[tuple[Download, ...]] = (
        Download(
            ("http://cs231n.stanford.edu/tiny-imagenet-200.zip",),
            "tiny-imagenet-200.zip",
            "md5:90528d7ca1a48142e341f4ef8d21d0de",
            unpack="tiny-imagenet-200",
        ),
    )

    resolution: Resolution = 64

    def _open(self, root: Path) -> Source:
        place = self._base(root)
        base = folders.holding(place, ("train", "val")) or place / "tiny-imagenet-200"
        train = folders.find_folder(base, "train")
        classes = folders.class_folders(train, self.count)
        names = folders.located(base, "wnids.txt")
        tables = [names] if names.is_file() else []
        odd = sorted({line.strip() for path in tables for line in lines(path)} ^ set(classes))
        if tables and odd:
            raise ReadError(f"{train}: class folders differ from those in {names}: {odd[0]} ...")
        test, notes = self._test(folders.find_folder(base, "val"), classes)
        splits = {"train": folders.folder_items(train, classes), "test": test}
        tables += notes
        return from_splits(base, tables, splits, classes, self.domains[0], self.resolution)

    def _test(self, val: Path, classes: Sequence[str]) -> tuple[list[Item], list[Path]]:
        """Return the images in ``val`` in their published order, and the table that was read."""
        notes, images = (folders.located(val, name) for name in ("val_annotations.txt", "images"))
        published = images.is_dir() and any(not folders.ignored(p.name) for p in images.iterdir())
        if not (published and notes.is_file()) and set(classes) <= set(
            folders.subfolders(val)
        ):  # sorted by a script
            items = folders.folder_items(val, classes)
            return sorted(items, key=lambda item: _last_number(item[0])), []
        if not notes.is_file():
            raise ReadError(
                f"{notes}: no such file; expected it with val/images/*.JPEG, or the images in "
                f"{self.count} folders val/<wnid>/"
            )
        numbers = {wnid: n for n, wnid in enumerate(classes)}
        test = []
        for row, line in enumerate(lines(notes), 1):
            fields = line.split("\t")
            if len(fields) < 2 or fields[1] not in numbers:
                raise ReadError(f"{notes}:{row}: expected an image, a tab and a class of wnids.txt")
            test.append((str(images / fields[0]), numbers[fields[1]]))
        _must_exist(test, notes)
        return test, [notes]


def _last_number(path: str) -> tuple[int, str]:
    """Return what sorts ``val_9.JPEG`` before ``val_10.JPEG``, whatever the folder."""
    name = os.path.basename(path)
    found = re.findall("[0-9]+", name)
    return (int(found[-1]) if found else 0, name)


def _must_exist(items: Sequence[Item], table: Path) -> None:
    missing = [path for path, _ in items if not os.path.isfile(path)]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise ReadError(f"{missing[0]}: no such file, but {table.name} names it{more}")


@dataclass(frozen=True, eq=False)
class Ham10000(Public):
    """HAM10000 (Tschandl et al., 2018): 10,015 images of skin lesions in seven diagnoses.

    Files in ``ROOT/ham10000/``: ``HAM10000_metadata.csv`` (or without ``.csv``, or ``.tab``) and
    anywhere below, for example in ``HAM10000_images_part_1/``, the images ``ISIC_*.jpg``. There is
    no published split of these images: within each diagnosis, of every ten lesions, sorted by id,
    eight train and two test. No lesion is in both.
    """

    name: ClassVar[str] = "ham10000"
    size: ClassVar[str] = "10,015 images"
    card: ClassVar[str] = "ham10000-nid1"
    licence: ClassVar[str] = "CC BY-NC 4.0"
    source: ClassVar[str] = "https://doi.org/10.7910/DVN/DBW86T"
    domains: ClassVar[tuple[str, ...]] = ("ham10000",)
    classes: ClassVar[tuple[str, ...]] = ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")
    by_hand: ClassVar[str] = (
        "after agreeing to its non-commercial terms at https://doi.org/10.7910/DVN/DBW86T, put "
        "HAM10000_metadata.csv and the unpacked HAM10000_images_part_1 and _part_2 into {folder}"
    )

    resolution: Resolution = 64

    def _open(self, root: Path) -> Source:
        base = folders.unwrapped(self._base(root))
        stem = "HAM10000_metadata"
        table = folders.find([base], f"{stem}.csv", f"{stem}.tab", stem)
        images = {Path(path).stem: path for path in reversed(folders.files_below(base))}
        lesions: dict[str, dict[str, list[str]]] = {
            name: defaultdict(list) for name in self.classes
        }
        text = lines(table)
        rows = csv.DictReader(text, delimiter="\t" if text and "\t" in text[0] else ",")
        if not {"lesion_id", "image_id", "dx"} <= set(rows.fieldnames or ()):
            raise ReadError(f"{table}: expected columns lesion_id, image_id, dx, found {text[:1]}")
        for number, row in enumerate(rows, 2):
            if row["dx"] not in lesions or not row["image_id"]:
                raise ReadError(
                    f"{table}:{number}: expected an image_id and a dx among "
                    f"{', '.join(self.classes)}, found {row['image_id']!r} and {row['dx']!r}"
                )
            lesions[row["dx"]][str(row["lesion_id"])].append(row["image_id"])
        splits: dict[str, list[Item]] = {"train": [], "test": []}
        for label, name in enumerate(self.classes):
            if not lesions[name]:
                raise ReadError(f"{table}: expected 7 classes, found no {name!r}")
            for number, lesion in enumerate(sorted(lesions[name])):
                split = "train" if in_train(number) else "test"
                splits[split] += [
                    (images.get(i, str(base / f"{i}.jpg")), label)
                    for i in sorted(lesions[name][lesion])
                ]
        _must_exist([*splits["train"], *splits["test"]], table)
        return from_splits(base, [table], splits, self.classes, self.domains[0], self.resolution)


@dataclass(frozen=True, eq=False)
class Sun397(Public):
    """SUN397 (Xiao et al., CVPR 2010): 108,754 photographs of scenes in 397 classes.

    Files in ``ROOT/sun397/SUN397/``, as distributed: ``ClassName.txt``, ``a/abbey/sun_*.jpg`` and
    so on; for the authors' splits also ``ROOT/sun397/Partitions/Training_01.txt`` and so on.
    Without ``partition`` all images are used: within each class, of every ten images, sorted by
    name, eight train.
    """

    name: ClassVar[str] = "sun397"
    size: ClassVar[str] = "108,754 images"
    licence: ClassVar[str] = "none stated; research use"
    source: ClassVar[str] = "https://vision.princeton.edu/projects/2010/SUN/"
    domains: ClassVar[tuple[str, ...]] = ("sun397",)
    count: ClassVar[int] = 397
    downloads: ClassVar[tuple[Download, ...]] = (
        Download(
            ("https://vision.princeton.edu/projects/2010/SUN/download/Partitions.zip",),
            "Partitions.zip",
            "sha256:e3311ea5f812d4cc6faef194688343d1111f6cd6f70f2c62f393c2b8d6ba1ec9",
            unpack="Partitions",
        ),
        Download(
            ("http://vision.princeton.edu/projects/2010/SUN/SUN397.tar.gz",),
            "SUN397.tar.gz",
            "md5:8ca2778205c41d23104230ba66911c7a",
            unpack="SUN397",
        ),
    )

    resolution: Resolution = 64
    partition: Annotated[
        Annotated[int, Field(ge=1, le=10)] | None,
        Field(description="which of the authors' ten splits, 50 + 50 images per class"),
    ] = None

    def _open(self, root: Path) -> Source:
        base = self._base(root)
        table = folders.find([base], "SUN397/ClassName.txt")
        names = [line.strip() for line in lines(table)]
        if len(set(names)) != self.count or not all(n.startswith("/") for n in names):
            raise ReadError(
                f"{table}: expected {self.count} lines like /a/abbey, found {len(names)}"
            )
        classes = [name[3:] for name in names]
        if self.partition is None:
            splits, tables = self._all(base / "SUN397", names), [table]
        else:
            splits, tables = self._published(base, names)
            tables.append(table)
        return from_splits(base, tables, splits, classes, self.domains[0], self.resolution)

    def _all(self, images: Path, names: Sequence[str]) -> dict[str, list[Item]]:
        splits: dict[str, list[Item]] = {"train": [], "test": []}
        for label, name in enumerate(names):
            folder = images / name[1:]
            found = sorted(os.listdir(folder)) if folder.is_dir() else []
            found = [file for file in found if file.startswith("sun_") and file.endswith(".jpg")]
            if not found:
                raise ReadError(f"{folder}: no image sun_*.jpg of this class")
            for number, file in enumerate(found):
                split = splits["train" if in_train(number) else "test"]
                split.append((os.path.join(folder, file), label))
        return splits

    def _published(
        self, base: Path, names: Sequence[str]
    ) -> tuple[dict[str, list[Item]], list[Path]]:
        splits, tables = {}, []
        numbers = {name: label for label, name in enumerate(names)}
        for split, word in (("train", "Training"), ("test", "Testing")):
            file = f"{word}_{self.partition:02}.txt"
            table = folders.find([base], f"Partitions/{file}", file)
            items = []
            for row, line in enumerate(lines(table), 1):
                name = line.strip().rpartition("/")[0]
                if name not in numbers:
                    raise ReadError(f"{table}:{row}: {name!r} is not a class of ClassName.txt")
                items.append((str(base / "SUN397" / line.strip()[1:]), numbers[name]))
            _must_exist(items, table)
            splits[split] = items
            tables.append(table)
        return splits, tables
