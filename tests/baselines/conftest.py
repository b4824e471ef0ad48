"""A reader of what Weights & Biases writes offline; its package has none in Python."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest


def records(file: Path, kind: str) -> Iterator[Any]:
    """Yield the records of one kind: ``run``, ``history``, ``exit``.

    After 7 bytes the file has the form of LevelDB's logs: blocks of 32 KiB hold pieces, each with a
    checksum (4 bytes), a length (2) and a type (1): whole, first, middle or last of a record.
    """
    from wandb.proto.wandb_internal_pb2 import Record

    data, place, parts = file.read_bytes(), 7, b""
    while place + 7 <= len(data):
        left = 32768 - place % 32768
        if left < 7:  # too little for a piece
            place += left
            continue
        length, form = struct.unpack_from("<4xHB", data, place)
        if place + 7 + length > len(data):  # it is being written
            return
        parts += data[place + 7 : place + 7 + length]
        place += 7 + length
        if form in (1, 4):
            record = Record.FromString(parts)
            parts = b""
            if record.WhichOneof("record_type") == kind:
                yield getattr(record, kind)


@pytest.fixture
def wandb_records() -> Callable[[Path, str], list[Any]]:
    """Return what reads the records of one kind of the only W&B run in a run directory.

    W&B's own process may write the last records a little after the run has ended.
    """

    def read(directory: Path, kind: str) -> list[Any]:
        (file,) = (directory / "wandb").glob("offline-run-*/*.wandb")
        until = time.monotonic() + 20
        while not any(records(file, "exit")) and time.monotonic() < until:
            time.sleep(0.05)
        return list(records(file, kind))

    return read
