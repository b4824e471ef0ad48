"""The base of all public data sets: finding, caching and fetching their files, and the errors."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field

from fedbench import options
from fedbench.errors import ConfigError
from fedbench.store.files import default_data_root
from fedbench.types import Dataset

from . import caching, fetching, folders
from .caching import ReadError, Source
from .fetching import Download, Report

Resolution = Annotated[int, Field(ge=4, le=1024, description="pixels per side after resizing")]


def in_train(number: int) -> bool:
    """Return whether item ``number`` of a list, from 0, trains: the first 8 of every 10 do."""
    return number % 10 <= 7


@dataclass(frozen=True, eq=False)
class Public:
    """A data set of published files under ``ROOT/NAME``; subclasses find them in `_open`."""

    name: ClassVar[str]
    size: ClassVar[str]
    card: ClassVar[str]
    """The name of the data set's own protocol card; not every data set has one."""
    default: ClassVar[bool]
    """Set only by the data set that a run uses when it names none."""
    embedded: ClassVar[bool] = False
    licence: ClassVar[str]
    source: ClassVar[str]
    downloads: ClassVar[tuple[Download, ...]] = ()
    by_hand: ClassVar[str] = ""
    """For files that may not or cannot be downloaded directly: where they are and where to put
    them; ``{folder}`` stands for the data set's folder."""

    def _base(self, root: Path) -> Path:
        """Return the data set's folder below ``root``."""
        return folders.located(root, self.name)

    def _open(self, root: Path) -> Source:
        """Find the files below ``root``; return them with the function that decodes them.

        Raises:
            ReadError: when a file is missing.
        """
        raise NotImplementedError

    def load(self, root: Path) -> Dataset:
        """Return the data set, from the cache if it is there; inputs are mapped from disk.

        Raises:
            ConfigError: when a file is missing, damaged or not what was expected, in one line.
        """
        root = Path(os.path.expanduser(root))
        try:
            return caching.load(self._open(root), root, self.name, options.dump(self))
        except ReadError as error:
            raise ConfigError(f"{self.name}: {error}{self._hint(root)}") from error
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            raise ConfigError(f"{self.name}: {where}{error.strerror or error}") from error

    def fetch(self, root: Path, report: Report) -> None:
        """Download what may be downloaded into ``root``.

        Raises:
            ConfigError: when that fails, or when files must be obtained by hand; it says how.
        """
        root = Path(os.path.expanduser(root))
        folder = root / self.name
        if self.downloads:
            fetching.fetch(self.downloads, folder, report)
        if self.by_hand:
            try:
                self._open(root)
            except ReadError as error:
                how = self.by_hand.format(folder=folder)
                raise ConfigError(f"{self.name}: {error}; {how}") from error

    def _hint(self, root: Path) -> str:
        flag = "" if root == default_data_root() else f" --data-root {root}"
        does = "downloads it"
        if self.by_hand:
            does = "downloads what it can" if self.downloads else "says where to get it"
            does += " and says where to get the rest" if self.downloads else ""
        return f"; `fedbench data{flag} fetch {self.name}` {does}"
