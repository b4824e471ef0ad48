"""FedScale's device traces (Lai et al., FedScale, ICML 2022), read without running code in them.

Two pickled dictionaries, by device: ``client_device_capacity`` holds ``computation``, the
milliseconds that inference takes for one example, and ``communication``, a bandwidth in kilobits of
1,024 bits per second; ``client_behave_trace`` holds ``active`` and ``inactive``, the times in
seconds at which a device comes online and goes offline, repeated after ``finish_time``. As in
FedScale's client, training on an example takes three times as long as inference on it, and both
directions have the whole bandwidth.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedbench import ConfigError

from .clocks import Device
from .online import Online

TRAINING = 3.0
"""Training on an example, as a multiple of inference on it."""

KILOBIT = 1024 / 8
"""Bytes."""


class _PlainData(pickle.Unpickler):
    """Reads numbers, text, lists and dictionaries, and refuses everything that would run code."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it holds {module}.{name}, and only plain data is read")


def is_pickle(path: Path) -> bool:
    """Return whether a file begins as pickles do, and no text does."""
    with path.open("rb") as file:
        return file.read(1) == b"\x80"


def capacities(path: Path) -> list[Device]:
    """Return the devices of ``client_device_capacity``, by ascending key.

    Raises:
        ConfigError: naming the device, when the file is not in that form.
    """
    found = []
    for key, entry in sorted(_read(path).items()):
        speed, bandwidth = (_number(path, key, entry, n) for n in ("computation", "communication"))
        found.append(Device(1000 / (TRAINING * speed), KILOBIT * bandwidth, KILOBIT * bandwidth))
    return found


def availability(path: Path) -> list[Online]:
    """Return when the devices of ``client_behave_trace`` are online, by ascending key.

    A spell that ends before it begins is never; devices without any other are left out.

    Raises:
        ConfigError: naming the device, when the file is not in that form.
    """
    found = []
    for key, entry in sorted(_read(path).items()):
        period = _number(path, key, entry, "finish_time")
        try:
            pairs = zip(entry["active"], entry["inactive"], strict=False)
            spells = _merged([(float(a), min(float(b), period)) for a, b in pairs])
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(
                f"{path}: device {key!r} needs lists of seconds, active and inactive"
            ) from error
        if spells:
            found.append(Online(spells, period))
    if not found:
        raise ConfigError(f"{path}: no device is ever online")
    return found


def _merged(spells: list[tuple[float, float]]) -> tuple[tuple[float, float], ...]:
    """Return spells in order, those that overlap or touch as one."""
    merged: list[tuple[float, float]] = []
    for start, end in sorted((a, b) for a, b in spells if 0 <= a < b):
        if merged and start <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(end, merged[-1][1])
        else:
            merged.append((start, end))
    return tuple(merged)


def _read(path: Path) -> Mapping[int, Mapping[str, Any]]:
    try:
        with path.open("rb") as file:
            found: Any = _PlainData(file).load()
    except (OSError, pickle.UnpicklingError, EOFError, ValueError, IndexError) as error:
        raise ConfigError(f"{path} cannot be read as one of FedScale's traces: {error}") from error
    fits = isinstance(found, dict) and all(
        isinstance(key, int) and isinstance(entry, dict) for key, entry in found.items()
    )
    if not (fits and found):
        raise ConfigError(f"{path} is not a trace of FedScale: a dictionary of devices is expected")
    devices: dict[int, dict[str, Any]] = found
    return devices


def _number(path: Path, key: object, entry: Mapping[str, Any], name: str) -> float:
    value = entry.get(name)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 1e18:
        raise ConfigError(f"{path}: device {key!r}: {name} must be a number above 0, got {value!r}")
    return float(value)
