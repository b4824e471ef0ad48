"""A clock from a trace of real or made-up devices: their speed, bandwidth and availability."""

from __future__ import annotations

import csv
import math
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import cycle
from pathlib import Path
from typing import Annotated, ClassVar

import torch
from pydantic import Field

from fedbench import ConfigError, ServerContext, hookimpl
from fedbench.random import Streams
from fedbench.turns import Effort

from . import fedscale
from .clocks import Clock, Device
from .online import LEFT_OUT, Online

BUNDLED = Path(__file__).parent / "traces" / "devices.csv"
COLUMNS = ("speed", "down", "up")


@dataclass(frozen=True, eq=False)
class Trace(Clock):
    """Give each client a device of a CSV file, drawn by seed, perhaps one that others have too.

    Columns: ``speed`` in examples per second, ``down`` and ``up`` in megabytes per second, and
    perhaps ``online``, spells in seconds of a period such as ``0-28800 72000-86400``; a device
    without spells is always online. A device works and travels only while it is online: a client
    that is asked while it is offline, or goes offline in its turn, answers later.

    FedScale's ``client_device_capacity`` and ``client_behave_trace`` are read as they are; there,
    ``availability`` is the second of them, and periods are those of the devices.
    """

    files: ClassVar[tuple[str, ...]] = ("file", "availability")

    file: Annotated[
        str, Field(description="the file; empty for a small made-up trace that is bundled")
    ] = ""
    availability: Annotated[
        str, Field(description="FedScale's client_behave_trace, instead of spells in the file")
    ] = ""
    period: Annotated[
        float, Field(gt=0, description="seconds after which availability repeats, a day or a week")
    ] = 86400.0
    offline: Annotated[
        bool, Field(description="whether clients that are offline can be selected")
    ] = True

    @hookimpl
    def run_start(self, ctx: ServerContext) -> None:
        devices.cache_clear()  # the file may have changed since another run of this process
        devices(self.file, self.period, self.availability)

    def device(self, streams: Streams, client: int) -> Device:
        """Return the client's device."""
        return self._drawn(streams, client)[0]

    def _drawn(self, streams: Streams, client: int) -> tuple[Device, Online | None]:
        known = devices(self.file, self.period, self.availability)
        rng = streams.torch("clock/device", client=client)
        return known[int(torch.randint(len(known), (), generator=rng))]

    def elapsed(self, streams: Streams, effort: Effort, factor: float = 1.0) -> float:
        """Return how long a turn takes, with the time for which the device is offline."""
        device, online = self._drawn(streams, effort.client)
        seconds = (self.latency + device.seconds(effort)) * factor
        return online.until(effort.start, seconds) if online else seconds

    @hookimpl(wrapper=True)
    def select_clients(self, ctx: ServerContext) -> Generator[None, Sequence[int], Sequence[int]]:
        chosen = yield
        if self.offline:
            return chosen
        drawn = {client: self._drawn(ctx.streams, client)[1] for client in chosen}
        waits = {c: online.wait(ctx.now) if online else 0.0 for c, online in drawn.items()}
        if any(waits.values()):
            ctx.scratch[LEFT_OUT] = True
        return [c for c in chosen if not waits[c]] or [min(chosen, key=lambda c: (waits[c], c))]


@lru_cache(8)
def devices(
    file: str, period: float, availability: str = ""
) -> tuple[tuple[Device, Online | None], ...]:
    """Return the devices of a trace, with when they are online.

    Raises:
        ConfigError: naming the line or device, when a file cannot be read or a value is missing.
    """
    path = Path(file).expanduser() if file else BUNDLED
    try:
        found = _fedscale(path) if fedscale.is_pickle(path) else _rows(path, period)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"trace.file: {path} cannot be read: {error}") from error
    if not availability:
        return tuple(found)
    spells = fedscale.availability(Path(availability).expanduser())
    return tuple(
        (device, online) for (device, _), online in zip(found, cycle(spells), strict=False)
    )


def _fedscale(path: Path) -> list[tuple[Device, Online | None]]:
    return [(device, None) for device in fedscale.capacities(path)]


def _rows(path: Path, period: float) -> list[tuple[Device, Online | None]]:
    with path.open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    if missing := [name for name in COLUMNS if not rows or name not in rows[0]]:
        raise ConfigError(f"{path}: no column {missing[0]!r}; a trace has {', '.join(COLUMNS)}")
    return [_device(f"{path}:{line}", row, period) for line, row in enumerate(rows, 2)]


def _device(
    where: str, row: Mapping[str, str | None], period: float
) -> tuple[Device, Online | None]:
    numbers = [_positive(where, name, row[name]) for name in COLUMNS]
    spells = tuple(_spells(where, row.get("online") or "", period))
    device = Device(numbers[0], 1e6 * numbers[1], 1e6 * numbers[2])
    return device, Online(spells, period) if spells else None


def _positive(where: str, name: str, text: str | None) -> float:
    try:
        number = float(text or "")
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise ConfigError(f"{where}: {name} must be a number above 0, got {text!r}")
    return number


def _spells(where: str, text: str, period: float) -> Iterator[tuple[float, float]]:
    last = 0.0
    for spell in text.split():
        start, _, end = spell.partition("-")
        try:
            found = float(start), float(end)
        except ValueError:
            found = math.nan, math.nan
        if not last <= found[0] < found[1] <= period:
            raise ConfigError(
                f"{where}: online has the spell {spell!r}; write FROM-UNTIL in seconds, in "
                f"ascending order, from 0 to the period, {period:g}"
            )
        last = found[1]
        yield found
