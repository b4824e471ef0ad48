"""FedScale's traces in their own form: what they say, and that reading them runs no code."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
from fedbench_baselines import fedscale
from fedbench_baselines.online import Online
from fedbench_baselines.trace import devices

from fedbench.errors import ConfigError
from fedbench.turns import Effort

# Two entries as the published files have them.
CAPACITY = {
    2: {"computation": 162.0, "communication": 5648.109619499134},
    1: {"computation": 10.0, "communication": 800},
}
BEHAVIOUR = {
    3834: {
        "duration": 211625,
        "inactive": [65881, 133574, 208292],
        "finish_time": 518400,
        "active": [12788, 100044, 188992],
        "model": "CPH1801",
    },
}


def put(path: Path, value: Any) -> str:
    path.write_bytes(pickle.dumps(value))
    return str(path)


def test_a_turn_takes_as_long_as_in_fedscales_client(tmp_path: Path) -> None:
    (first, always), (second, _) = devices(put(tmp_path / "capacity", CAPACITY), 86400.0)
    assert always is None
    # 20 steps of 32 examples, an update of 1,000 kilobits each way
    size = 1000 * 1024 // 8
    effort = Effort(client=0, round=1, start=0.0, examples=20 * 32, bytes_down=size, bytes_up=size)
    assert first.seconds(effort) == pytest.approx(3.0 * 20 * 32 * 10.0 / 1000 + 2000 / 800)
    expected = 3.0 * 20 * 32 * 162.0 / 1000 + 2000 / 5648.109619499134
    assert second.seconds(effort) == pytest.approx(expected)


def test_availability_repeats_in_the_devices_own_period(tmp_path: Path) -> None:
    files = put(tmp_path / "capacity", CAPACITY), put(tmp_path / "behaviour", BEHAVIOUR)
    found = devices(files[0], 86400.0, files[1])
    online = Online(((12788, 65881), (100044, 133574), (188992, 208292)), 518400)
    assert [spells for _, spells in found] == [online, online]
    assert online.wait(0) == 12788
    assert online.wait(518400 + 20000) == 0


def test_spells_that_overlap_are_one_and_impossible_ones_are_none() -> None:
    found = fedscale._merged([(50, 60), (10, 20), (15, 30), (30, 40), (70, 65)])
    assert found == ((10, 40), (50, 60))


class Harmful:
    def __reduce__(self) -> Any:
        return os.system, ("exit 1",)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            {1: Harmful()},
            r"cannot be read as one of FedScale's traces: it holds \w+.system",
        ),
        ([1, 2], r"capacity is not a trace of FedScale: a dictionary of devices is expected$"),
        ({}, r"a dictionary of devices is expected$"),
        ({"x": {}, 1: {}}, r"a dictionary of devices is expected$"),
        ({7: {"computation": 1}}, r"device 7: communication must be a number above 0, got None$"),
        ({7: {"computation": 0, "communication": 1}}, r"device 7: computation must be .* got 0$"),
    ],
)
def test_what_is_not_such_a_trace_is_refused(value: Any, message: str, tmp_path: Path) -> None:
    file = put(tmp_path / "capacity", value)
    with pytest.raises(ConfigError, match=message):
        devices(file, 86400.0)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({1: {"finish_time": 5, "active": [1]}}, r"device 1 needs lists of seconds"),
        ({1: {"finish_time": 5, "active": [3], "inactive": [2]}}, r"no device is ever online$"),
        ({1: {"active": [3], "inactive": [2]}}, r"device 1: finish_time must be a number above 0"),
    ],
)
def test_an_availability_without_times_is_refused(value: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        devices("", 86400.0, put(tmp_path / "behaviour", value))


def test_a_file_that_breaks_off_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "capacity"
    file.write_bytes(pickle.dumps(CAPACITY)[:-20])
    with pytest.raises(ConfigError, match=r"cannot be read as one of FedScale's traces"):
        devices(str(file), 86400.0)
