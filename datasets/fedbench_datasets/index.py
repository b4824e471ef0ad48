"""A CSV index of images: one row for each, with a path, a label, a split and perhaps a domain."""

from __future__ import annotations

import csv
import io
import os
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path

from fedbench.errors import did_you_mean

from .caching import ReadError, plain_file, why
from .folders import is_system
from .listing import Entry
from .names import split_of

REQUIRED = ("path", "label", "split")
KNOWN = (*REQUIRED, "domain")
DELIMITERS = ",;\t|"


def read_index(index: Path) -> tuple[list[Entry], list[str]]:
    """Read an index; return its rows, and where rows are that name a system's file.

    Columns ``path`` (absolute, or relative to the index), ``label``, ``split`` and, if there are
    several domains, ``domain``; others are ignored. UTF-8, separated by commas, semicolons, tabs
    or bars. Spaces around values do not count.

    Raises:
        ReadError: naming the row, when a value is missing or the table is damaged.
    """
    rows = _rows(index, _text(index))
    header = _header(index, next(rows, ("", []))[1])
    entries: list[Entry] = []
    system: list[str] = []
    for where, values in rows:
        row = _row(where, header, values)
        if any(is_system(part) for part in row["path"].replace("\\", "/").split("/")):
            system.append(f"{where}: {row['path']}")
            continue
        path = _located(index.parent, row["path"], where)
        domain = row.get("domain", index.stem)
        entries.append(Entry(path, row["label"], row["split"], domain, where))
    if not entries:
        raise ReadError(f"{index}: no rows below the header")
    return entries, system


def _row(where: str, header: Sequence[str], values: Sequence[str]) -> dict[str, str]:
    """Return a row's values by column, with ``train``, ``test`` or ``val`` as split.

    Raises:
        ReadError: when one is missing or can't be meant.
    """
    if any(values[len(header) :]):
        raise ReadError(
            f"{where}: {len(values)} values for {len(header)} columns; a value that holds the "
            "separator must be quoted"
        )
    row = dict(zip(header, [*values, *[""] * len(header)], strict=False))
    split = split_of(row["split"])
    if split is None or not row["path"] or not row["label"]:
        raise ReadError(
            f"{where}: expected a path, a label, and train, test or val as split, found "
            f"{', '.join(repr(row[name]) for name in REQUIRED)}"
        )
    if not row.get("domain", "one for all"):
        raise ReadError(f"{where}: no domain; name one in every row, or leave the column out")
    for name in set(KNOWN) & set(header):
        if any(unicodedata.category(c) == "Cc" for c in row[name]):
            raise ReadError(
                f"{where}: the {name} {row[name][:40]!r} holds a line break or control character; "
                "is a quote missing?"
            )
    return {**row, "split": split}


def _text(index: Path) -> str:
    plain_file(index)
    data = index.read_bytes()
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise ReadError(f"{index}: UTF-16 text; save it as UTF-8")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ReadError(f"{index}: damaged: not UTF-8 text at byte {error.start}") from error


def _rows(index: Path, text: str) -> Iterator[tuple[str, list[str]]]:
    """Yield where each row begins, as ``FILE:LINE``, and its values; leave empty rows out."""
    first = text.lstrip("\r\n").splitlines()[:1] or [""]
    known = {d: set(_names(first[0].split(d))) for d in DELIMITERS}
    delimiter = max(DELIMITERS, key=lambda d: len(known[d] & set(KNOWN)))
    rows = csv.reader(
        io.StringIO(text, newline=""), delimiter=delimiter, strict=True, skipinitialspace=True
    )
    line = 1
    try:
        for row in rows:
            values = [value.strip() for value in row]
            if any(values):
                yield f"{index}:{line}", values
            line = rows.line_num + 1
    except csv.Error as error:
        raise ReadError(
            f"{index}:{line}: damaged row ({why(error)}); is a quote missing?"
        ) from error


def _names(header: Sequence[str]) -> list[str]:
    return [name.strip().strip('"').strip().lower() for name in header]


def _header(index: Path, values: Sequence[str]) -> list[str]:
    header = _names(values)
    for column in REQUIRED:
        if column not in header:
            near = did_you_mean(column, filter(None, header))
            raise ReadError(f"{index}: no column {column!r}{near}")
    for column in KNOWN:
        if header.count(column) > 1:
            raise ReadError(f"{index}: {header.count(column)} columns are named {column!r}")
    return header


def _located(base: Path, written: str, where: str) -> str:
    """Return the path of a row's file.

    Raises:
        ReadError: when it is not a file that can be read.
    """
    path = base / os.path.expanduser(written)
    if "\\" in written and not os.path.exists(path):  # written on Windows
        path = base / written.replace("\\", "/")
    try:
        plain_file(path)
    except ReadError as error:
        raise ReadError(f"{where}: {error}") from None
    return str(path)
