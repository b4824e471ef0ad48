"""Data sets of the Hugging Face hub, or local parquet and arrow files, by the names of columns.

The library `datasets` finds and downloads the files; images are decoded as in every other data set.
"""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import Field

from fedbench import options
from fedbench.errors import ConfigError, did_you_mean
from fedbench.types import Dataset

from . import caching, pictures
from .caching import ReadError, Source, Writer, why
from .folders import files_below
from .names import by_number
from .notices import say
from .pictures import Fit
from .public_base import Resolution
from .public_text import PADDING, UNKNOWN

PRINTABLE = "\n" + "".join(map(chr, range(32, 127)))
HUB_NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*")
ROWS = 1000
"""Rows that are read at a time."""

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


def character_ids(texts: Sequence[str], characters: str, length: int) -> Ints:
    """Return ids (n, length) of the first characters of each text, after padding.

    Padding is 0 and an unknown character 1; ``characters`` are numbered from 2. Padding comes
    first, so that a model that reads from left to right ends with the text.
    """
    known = {character: n for n, character in enumerate(characters, UNKNOWN + 1)}
    rows = np.full((len(texts), length), PADDING, dtype=np.int64)
    for row, text in zip(rows, texts, strict=True):
        found = [known.get(character, UNKNOWN) for character in text[:length]]
        row[length - len(found) :] = found
    return rows


def held_out(clients: Ints, share: float) -> Bools:
    """Draw the test examples (n,), ``share`` of each client's, rounded down; always the same."""
    # NumPy promises the numbers of this generator for all versions, but not default_rng's.
    order = np.lexsort((np.random.RandomState(0).random_sample(len(clients)), clients))
    counts = np.bincount(clients)
    place = np.empty_like(clients)
    place[order] = np.arange(len(clients)) - (np.cumsum(counts) - counts)[clients[order]]
    drawn: Bools = place < np.floor(share * counts)[clients]
    return drawn


def grey(images: pictures.U8) -> pictures.U8:
    """Return the luma (n, 1, height, width) of RGB images, rounded as Pillow does."""
    red, green, blue = images.astype(np.uint32).transpose(1, 0, 2, 3)
    luma: pictures.U8 = ((19595 * red + 38470 * green + 7471 * blue + 0x8000) >> 16).astype(
        np.uint8
    )
    return luma[:, None]


def _library() -> Any:
    """Import the library `datasets`.

    Raises:
        ConfigError: when it is not installed.
    """
    try:
        found = importlib.import_module("datasets")
        _ = found.load_dataset  # a folder of that name can be imported, too
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            "data set 'hf' needs the library datasets; install it: "
            "pip install 'fedbench-toolkit[hf]'"
        ) from error
    return found


@dataclass(frozen=True, eq=False)
class Table:
    """One split as the library returns it, and its name for errors."""

    name: str
    rows: Any

    def column(self, column: str) -> list[str]:
        """Return a column's values as text: names of classes, numbers or strings.

        Raises:
            ReadError: when a value is missing or is neither text nor a whole number.
        """
        names = getattr(self.feature(column), "names", None)
        found: list[str] = []
        for value in self._values(self.rows.select_columns([column]), column):
            if names is not None and value in range(len(names)):
                value = names[value]
            elif names is not None or not isinstance(value, str | int):
                what = f"one of {len(names)} classes" if names else "text or a whole number"
                raise ReadError(
                    f"{self.name}, row {len(found)}: {column} is {value!r}, expected {what}"
                )
            found.append(str(value))
        return found

    def _values(self, rows: Any, column: str) -> Iterator[Any]:
        try:
            for batch in rows.iter(batch_size=ROWS):
                yield from batch[column]
        except Exception as error:  # the library fails in many ways on damaged files
            raise ReadError(f"{self.name}: truncated or damaged ({why(error)})") from error

    def feature(self, column: str) -> Any:
        """Return what the library says about a column.

        Raises:
            ReadError: when there is no such column.
        """
        known = self.rows.features or {}
        if column not in known:
            raise ReadError(f"{self.name}: no column {column!r}{did_you_mean(column, known)}")
        return known[column]

    def inputs(self, column: str, images: type) -> Iterator[tuple[str, Any]]:
        """Yield each row's name and its text, or bytes and path of its image.

        Raises:
            ReadError: when a value is missing.
        """
        rows = self.rows.select_columns([column])
        if isinstance(self.feature(column), images):
            rows = rows.cast_column(column, images(decode=False))
        for number, value in enumerate(self._values(rows, column)):
            name = f"{self.name}, row {number}"
            if value is None:
                raise ReadError(f"{name}: no {column}")
            yield name, value


@dataclass(frozen=True, eq=False)
class Hub:
    """Images or texts to classify, from the Hugging Face hub or your own parquet or arrow files.

    ``path`` is a name on the hub, such as ``ylecun/mnist``, which the first run downloads, or a
    folder or file of parquet or arrow, which needs no network. Images become uint8 (N, 3,
    resolution, resolution), or (N, 1, ...) without ``rgb``. Of texts, the first ``length``
    characters become ids, int64 (N, length): 0 is padding, in front, 1 any other character, and
    ``characters`` are numbered from 2. A column ``client`` says which client an example comes from,
    for the partition ``natural``: FEMNIST's ``writer_id``, Shakespeare's ``character_id``.
    """

    name: ClassVar[str] = "hf"
    size: ClassVar[str] = "any"
    card: ClassVar[str]
    default: ClassVar[bool]
    embedded: ClassVar[bool] = False
    licence: ClassVar[str] = "as the data set says"
    source: ClassVar[str] = "https://huggingface.co/datasets, or your own files"

    path: Annotated[
        str,
        Field(min_length=1, description="name on the hub; or folder or file, below the data root"),
    ] = "hf"
    config: Annotated[str | None, Field(description="its subset, if there are several")] = None
    revision: Annotated[
        str | None, Field(description="branch, tag or commit on the hub; a commit never changes")
    ] = None
    train: Annotated[str, Field(min_length=1, description="split to train on")] = "train"
    test: Annotated[
        str | None, Field(description="split to test on; null: hold out a share of train")
    ] = "test"
    test_share: Annotated[
        float, Field(gt=0, lt=1, description="share held out of each client, with test: null")
    ] = 0.1
    input: Annotated[str, Field(min_length=1, description="column of images or texts")] = "image"
    label: Annotated[str, Field(min_length=1, description="column of classes")] = "label"
    client: Annotated[str | None, Field(description="column of clients, if there is one")] = None
    resolution: Resolution = 32
    fit: Annotated[
        Fit, Field(description="stretch to a square, or crop the largest central square")
    ] = "stretch"
    rgb: Annotated[bool, Field(description="three channels; if not, one, in grey")] = True
    length: Annotated[int, Field(ge=1, le=100_000, description="characters kept per text")] = 80
    characters: Annotated[
        Annotated[str, Field(min_length=1)] | None,
        Field(description="known characters; null: line break and printable ASCII, so 98 ids"),
    ] = None

    def __post_init__(self) -> None:
        if self.characters and len(set(self.characters)) < len(self.characters):
            raise ValueError("a character is listed twice in characters")

    def load(self, root: Path) -> Dataset:
        """Return the data, from the cache below ``root`` if they are there.

        Raises:
            ConfigError: in one line, when the library, a file, a split or a column is missing, or
                when the hub cannot be reached.
        """
        library = _library()
        root = Path(os.path.expanduser(root))
        place = root / os.path.expanduser(self.path)
        try:
            rows = self._opened(library, place)
            files = _files(place) if place.exists() else self._downloaded(rows)
            base = Path(os.path.commonpath([os.path.dirname(file) for file in files]))

            def decode(out: Writer) -> tuple[Sequence[str], Sequence[str]]:
                return self._decode(library, rows, out), [Path(self.path).stem or self.name]

            return caching.load(Source(base, files, decode), root, self.name, options.dump(self))
        except ReadError as error:
            raise ConfigError(f"hf: {error}") from error
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            raise ConfigError(f"hf: {where}{error.strerror or error}") from error

    def _opened(self, library: Any, place: Path) -> Mapping[str, Any]:
        """Return the splits by name, nothing of them read yet if they are local.

        Raises:
            ReadError: when the library cannot find or open them.
        """
        try:
            if place.is_file():
                kind = {".parquet": "parquet", ".arrow": "arrow"}.get(place.suffix.lower())
                if not kind:
                    raise ReadError(f"{place}: expected a file .parquet or .arrow, or a folder")
                files = {self.train: [str(place)]}
                found = library.load_dataset(kind, data_files=files, streaming=True)
            elif (place / "dataset_dict.json").is_file() or (place / "state.json").is_file():
                found = library.load_from_disk(str(place))
            elif place.exists():
                found = library.load_dataset(str(place), self.config, streaming=True)
            elif not HUB_NAME.fullmatch(self.path):
                raise ReadError(f"{place}: no such file or folder; the hub's names are OWNER/NAME")
            else:
                say("hf", f"no {place}; looking for {self.path!r} on the hub")
                found = library.load_dataset(self.path, self.config, revision=self.revision)
        except ReadError:
            raise
        except Exception as error:  # the library fails in many ways
            there = "" if place.exists() else f", and there is no {place}"
            raise ReadError(f"{self.path}: {why(error)}{there}") from error
        return found if isinstance(found, dict) else {self.train: found}

    def _downloaded(self, rows: Mapping[str, Any]) -> list[str]:
        wanted = [self._table(rows, split) for split in self._splits()]
        return [file["filename"] for table in wanted for file in table.rows.cache_files]

    def _splits(self) -> list[str]:
        return [self.train] if self.test is None else [self.train, self.test]

    def _table(self, rows: Mapping[str, Any], split: str) -> Table:
        if split not in rows:
            raise ReadError(
                f"{self.path}: no split {split!r}; there are {', '.join(rows)}"
                + ("; test: null holds out a share of train" if split == self.test else "")
            )
        return Table(f"{self.path}: {split}", rows[split].with_format(None))

    def _decode(self, library: Any, rows: Mapping[str, Any], out: Writer) -> Sequence[str]:
        """Add all examples; return the names of the classes."""
        tables = [self._table(rows, split) for split in self._splits()]
        labels = [table.column(self.label) for table in tables]
        names = getattr(tables[0].feature(self.label), "names", None)
        classes = names or sorted({name for found in labels for name in found}, key=by_number)
        clients = [table.column(self.client) for table in tables] if self.client else []
        out.clients = sorted({name for found in clients for name in found}, key=by_number)
        for n, table in enumerate(tables):
            whose = _numbers(clients[n], out.clients) if clients else None
            if self.test is None:
                members = np.zeros(len(labels[n]), np.int64) if whose is None else whose
                tested = held_out(members, self.test_share)
            else:
                tested = np.full(len(labels[n]), n == 1)
            start = 0
            for inputs in self._inputs(library, table, out):
                part = slice(start, start + len(inputs))
                numbers = _numbers(labels[n][part], classes)
                for split, here in (("train", ~tested[part]), ("test", tested[part])):
                    if here.any():
                        own = None if whose is None else whose[part][here]
                        out.add(split, inputs[here], numbers[here], clients=own)
                start = part.stop
        return classes

    def _inputs(self, library: Any, table: Table, out: Writer) -> Iterator[npt.NDArray[Any]]:
        """Yield the inputs of a table in chunks.

        Raises:
            ReadError: when the column holds neither images nor texts.
        """
        kind = table.feature(self.input)
        found = table.inputs(self.input, library.Image)
        if isinstance(kind, library.Image):
            files = (
                (name if value["bytes"] else value["path"] or name, value["bytes"])
                for name, value in found
            )
            for images in pictures.decoded(out, files, self.resolution, self.fit):
                yield images if self.rgb else grey(images)
            return
        if getattr(kind, "dtype", None) not in ("string", "large_string"):
            raise ReadError(
                f"{table.name}: column {self.input!r} holds {kind}; expected images or texts"
            )
        texts = [text for _, text in found]
        characters = self.characters or PRINTABLE
        for start in range(0, len(texts), ROWS):
            yield character_ids(texts[start : start + ROWS], characters, self.length)


def _numbers(names: Sequence[str], known: Sequence[str]) -> Ints:
    numbers = {name: n for n, name in enumerate(known)}
    unknown = set(names) - set(numbers)
    if unknown:
        raise ReadError(f"expected the classes {', '.join(known)}, found {min(unknown)!r}")
    return np.array([numbers[name] for name in names], dtype=np.int64)


def _files(place: Path) -> list[str]:
    """Return the files of a local data set that hold anything."""
    if place.is_file():
        return [str(place)]
    files = [file for file in files_below(place) if os.path.getsize(file)]
    if not files:
        raise ReadError(f"{place}: no files in this folder")
    return files
