"""Your own images, from folders or from a CSV index, without writing a plugin."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field

from fedbench import options
from fedbench.errors import ConfigError
from fedbench.types import Dataset

from . import caching, pictures
from .caching import ReadError, Source, Writer
from .index import read_index
from .layout import read_layout
from .listing import Listing, arranged, check_unique, say_missing, without_validation
from .names import by_number, check_spellings
from .notices import say, some
from .pictures import Fit
from .public_base import Resolution


@dataclass(frozen=True, eq=False)
class ImageFolder:
    """Your own images, from folders or from a CSV index.

    Folders are ``[domain/]train/class/*.jpg`` and ``[domain/]test/class/*.jpg``. An index has the
    columns ``path`` (relative to the index), ``label``, ``split`` (train or test) and, if there are
    several domains, ``domain``. Classes and domains are sorted by name. ``val`` is left out; a
    folder ``val`` is the test set if there is no ``test``, rows of an index never are. Inputs are
    uint8 (N, 3, resolution, resolution).
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
        Field(min_length=1, description="folder or CSV file, absolute or below the data root"),
    ] = "image-folder"
    resolution: Resolution = 64
    fit: Annotated[
        Fit, Field(description="stretch to a square, or crop the largest central square")
    ] = "stretch"

    def load(self, root: Path) -> Dataset:
        """Return the images; inputs are mapped from the cache under ``root``, decoded if need be.

        What is left out is said on stderr, in a line for each kind.

        Raises:
            ConfigError: in one line, naming the file or folder.
        """
        root = Path(os.path.expanduser(root))
        place = root / os.path.expanduser(self.path)
        try:
            index = not place.is_dir() and (place.is_file() or place.suffix.lower() == ".csv")
            listing = self._from_index(place) if index else self._from_folders(place)
            say_missing(listing, partial(say, self.name))
            source = self._source(place, [place] if index else [], listing)
            return caching.load(source, root, self.name, options.dump(self))
        except ReadError as error:
            raise ConfigError(f"{self.name}: {error}") from error
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            raise ConfigError(f"{self.name}: {where}{error.strerror or error}") from error

    def _from_folders(self, base: Path) -> Listing:
        found = read_layout(base)
        check_unique(found.entries)
        self._say_left_out("files or folders that are not images in class folders", found.left_out)
        if found.doubt:
            say(self.name, found.doubt)
        entries = without_validation(found.entries, partial(say, self.name), may_replace_test=True)
        return arranged(entries, found.classes, found.domains)

    def _from_index(self, index: Path) -> Listing:
        found, system = read_index(index)
        check_unique(found)
        self._say_left_out("rows of files that a system or tool left behind", system)
        for what in ("label", "domain"):
            first: dict[str, str] = {}
            for entry in found:
                first.setdefault(getattr(entry, what), entry.where)
            check_spellings(what, ({name: where} for name, where in first.items()))
        entries = without_validation(found, partial(say, self.name), may_replace_test=False)
        classes = sorted({entry.label for entry in entries}, key=by_number)
        return arranged(entries, classes, sorted({entry.domain for entry in entries}))

    def _say_left_out(self, what: str, paths: Sequence[str]) -> None:
        if paths:
            say(self.name, f"left out {len(paths)} {what}: {some(paths, 1)}")

    def _source(self, place: Path, tables: Sequence[Path], listing: Listing) -> Source:
        def decode(out: Writer) -> tuple[Sequence[str], Sequence[str]]:
            for number, found in enumerate(listing.splits):
                for split, items in found.items():
                    pictures.add_images(out, split, items, self.resolution, self.fit, number)
            return listing.classes, listing.domains

        images = [path for found in listing.splits for items in found.values() for path, _ in items]
        base = place.parent if tables else place
        names = (listing.classes, listing.domains)
        return Source(base, [*tables, *images], decode, len(images), names)
