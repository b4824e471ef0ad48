"""Your own images, from folders or from a CSV index, without writing a plugin."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field

from fedbench import options
from fedbench.errors import ConfigError, did_you_mean
from fedbench.types import Dataset

from . import caching, folders, pictures
from .caching import ReadError, Source, Writer
from .folders import Item
from .pictures import Fit
from .public_base import Resolution
from .public_folders import lines

SPLITS = {"train": "train", "test": "test", "val": "test", "valid": "test", "validation": "test"}
"""Name of a folder, or of a split in an index -> split; a folder ``test`` precedes ``val``."""

Split = dict[str, list[Item]]


@dataclass(frozen=True, eq=False)
class ImageFolder:
    """Your own images, from folders or from a CSV index.

    Folders are ``[domain/]train/class/*.jpg`` and ``[domain/]test/class/*.jpg``. An index has the
    columns ``path`` (relative to the index), ``label``, ``split`` (train or test) and, if there are
    several domains, ``domain``. Classes and domains are sorted by name. Without a folder ``test``,
    ``val`` is the test set. Inputs are uint8 (N, 3, resolution, resolution).
    """

    name: ClassVar[str] = "image-folder"
    size: ClassVar[str] = "yours"
    card: ClassVar[str]
    default: ClassVar[bool]
    embedded: ClassVar[bool] = False
    licence: ClassVar[str] = "your own"
    source: ClassVar[str] = "your own files"

    path: Annotated[
        str,
        Field(min_length=1, description="folder or .csv, absolute or relative to the data root"),
    ] = "image-folder"
    resolution: Resolution = 64
    fit: Annotated[
        Fit, Field(description="stretch to a square, or crop the largest central square")
    ] = "stretch"

    def load(self, root: Path) -> Dataset:
        """Return the images; inputs are mapped from the cache under ``root``, decoded if need be.

        Raises:
            ConfigError: in one line, naming the file or folder.
        """
        place = root / Path(self.path).expanduser()
        try:
            index = place.suffix.lower() == ".csv" and not place.is_dir()
            source = self._from_index(place) if index else self._from_folders(place)
            return caching.load(source, root, self.name, options.dump(self))
        except ReadError as error:
            raise ConfigError(f"{self.name}: {error}") from error
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            raise ConfigError(f"{self.name}: {where}{error.strerror or error}") from error

    def _from_folders(self, base: Path) -> Source:
        top = folders.class_folders(base)
        if {"train"} & set(top):
            domains, places = [base.name], [base]
        else:
            domains, places = top, [base / name for name in top]
        found = [_split_folders(place) for place in places]
        classes = folders.class_folders(found[0]["train"])
        splits: list[Split] = []
        for inside in found:
            for folder in inside.values():
                odd = sorted(set(folders.class_folders(folder)) ^ set(classes))
                if odd:
                    raise ReadError(
                        f"{folder}: class folders differ from those of {found[0]['train']}: "
                        f"{', '.join(odd)}"
                    )
            splits.append({s: folders.folder_items(f, classes) for s, f in inside.items()})
        return self._source(base, [], domains, classes, splits)

    def _from_index(self, index: Path) -> Source:
        rows = csv.DictReader(lines(index))
        header = [str(name) for name in rows.fieldnames or ()]
        for column in ("path", "label", "split"):
            if column not in header:
                raise ReadError(f"{index}: no column {column!r}{did_you_mean(column, header)}")
        table: list[tuple[str, str, str, Path]] = []
        for number, row in enumerate(rows, 2):
            split = SPLITS.get(str(row["split"]).lower())
            if split is None or not row["path"] or not row["label"]:
                raise ReadError(
                    f"{index}:{number}: expected a path, a label, train or test as split, found "
                    f"{row['path']!r}, {row['label']!r}, {row['split']!r}"
                )
            path = index.parent / Path(row["path"])
            if not path.is_file():
                raise ReadError(f"{index}:{number}: {path}: no such file")
            table.append((row.get("domain") or index.stem, split, row["label"], path))
        names = {label for _, _, label, _ in table}
        classes = sorted(names, key=lambda n: (0, int(n), n) if n.isdecimal() else (1, 0, n))
        numbers = {label: number for number, label in enumerate(classes)}
        domains = sorted({domain for domain, _, _, _ in table})
        splits: list[Split] = [{"train": [], "test": []} for _ in domains]
        for domain, split, label, path in table:
            splits[domains.index(domain)][split].append((str(path), numbers[label]))
        return self._source(index.parent, [index], domains, classes, splits)

    def _source(
        self,
        base: Path,
        tables: list[Path],
        domains: Sequence[str],
        classes: Sequence[str],
        splits: Sequence[Split],
    ) -> Source:
        def decode(out: Writer) -> tuple[Sequence[str], Sequence[str]]:
            for number, found in enumerate(splits):
                for split, items in found.items():
                    pictures.add_images(out, split, items, self.resolution, self.fit, number)
            return classes, domains

        images = [path for found in splits for items in found.values() for path, _ in items]
        return Source(base, [*tables, *images], decode, len(images))


def _split_folders(place: Path) -> dict[str, Path]:
    """Return the split folders in ``place``: split -> folder."""
    inside: dict[str, Path] = {}
    for name, split in SPLITS.items():
        if (place / name).is_dir():
            inside.setdefault(split, place / name)
    for split in ("train", "test"):
        if split not in inside:
            raise ReadError(
                f"{place / split}: no such folder; expected {place}/{split}/<class>/*.jpg, with a "
                "folder for each domain above it if there are several"
            )
    return inside
