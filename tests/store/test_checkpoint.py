"""An interrupted run goes on to the same bits; a damaged checkpoint is refused in one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock

from fedbench import ConfigError, Run
from fedbench.plugins.registry import Registry
from fedbench.store.client_states import ClientStates
from fedbench.store.directory import unfinished

DIGESTS = ("weights_sha256", "metrics_sha256")


class Interrupted(KeyboardInterrupt):
    """Raised from inside a round, as Ctrl-C would."""


def interrupt(run: Run, after_clients: int) -> None:
    """Run until so many clients are done, then stop as Ctrl-C does."""
    count = 0

    def progress(*_: int) -> None:
        nonlocal count
        count += 1
        if count == after_clients:
            raise Interrupted

    run.progress = progress
    with pytest.raises(Interrupted):
        run.run()


@pytest.fixture
def cut(registry: Registry, tiny_config: Callable[..., Any], tmp_path: Path) -> Path:
    """A run of five rounds with four clients, stopped in the middle of the third."""
    run = Run(tiny_config(registry, rounds=5), tmp_path / "cut", registry=registry)
    interrupt(run, 10)
    return tmp_path / "cut"


@pytest.mark.every_method(slow=True, but=["centralised"])  # it has one client
@pytest.mark.parametrize("clients", [1, 6, 19])
def test_resumed_run_ends_with_the_same_bits(
    method: str, clients: int, registry: Registry, tiny_config: Callable[..., Any], tmp_path: Path
) -> None:
    config = tiny_config(registry, method, rounds=5, extra={"uniform": {"fraction": 0.75}})
    turns: list[tuple[int, int, int]] = []
    whole = Run(config, registry=registry, progress=lambda *turn: turns.append(turn)).run()
    interrupted = Run(config, tmp_path / "run", registry=registry)
    cut = min(clients, len(turns) - 1)
    interrupt(interrupted, cut)
    resumed = Run.resume(tmp_path / "run", registry=registry)
    assert len(resumed.history) == turns[cut - 1][0] - 1
    result = resumed.run()
    assert [result[key] for key in DIGESTS] == [whole[key] for key in DIGESTS]
    assert result["accuracy"] == whole["accuracy"]
    written = json.loads((tmp_path / "run" / "result.json").read_text())
    assert written["weights_sha256"] == whole["weights_sha256"]


def test_only_the_newest_checkpoint_stays_and_none_after_the_end(
    registry: Registry, tiny_config: Callable[..., Any], tmp_path: Path
) -> None:
    config = tiny_config(registry, rounds=3)
    run = Run(config, tmp_path / "r", registry=registry, checkpoint_seconds=0)
    names = []
    for _ in run.rounds():
        names.append(sorted(p.name for p in (tmp_path / "r" / "checkpoint").iterdir()))
    assert names[0] == ["checkpoint.json", "state-1.safetensors"]
    assert names[1] == ["checkpoint.json", "state-2.safetensors"]
    assert not (tmp_path / "r" / "checkpoint").exists()


def test_a_run_without_a_checkpoint_starts_anew(cut: Path, registry: Registry) -> None:
    (cut / "checkpoint" / "checkpoint.json").unlink()
    resumed = Run.resume(cut, registry=registry)
    assert resumed.history == []
    assert len(resumed.run()["weights_sha256"]) == 64
    assert len((cut / "rounds.jsonl").read_text().splitlines()) == 5


def test_a_finished_run_is_not_resumed(
    registry: Registry, tiny_config: Callable[..., Any], tmp_path: Path
) -> None:
    Run(tiny_config(registry), tmp_path / "r", registry=registry).run()
    with pytest.raises(ConfigError, match=r"is finished; `fedbench show"):
        Run.resume(tmp_path / "r", registry=registry)


def test_a_directory_without_a_run(tmp_path: Path, registry: Registry) -> None:
    with pytest.raises(ConfigError, match=r"holds no run \(no config.yaml\)"):
        Run.resume(tmp_path, registry=registry)


def _edit(path: Path, **changes: Any) -> None:
    data = json.loads(path.read_text())
    path.write_text(json.dumps({**data, **changes}))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda c: (c / "checkpoint.json").write_text("{"), "damaged"),
        (lambda c: (c / "checkpoint.json").write_text("[]"), "damaged"),
        (lambda c: (c / "checkpoint.json").write_text("{}"), "damaged"),
        (lambda c: _edit(c / "checkpoint.json", format=99), "format 99"),
        (lambda c: _edit(c / "checkpoint.json", config_hash="0"), "made with a config other than"),
        (
            lambda c: _edit(c / "checkpoint.json", versions={"torch": "1.0"}),
            "made with torch 1.0, but ",
        ),
        (
            lambda c: _edit(c / "checkpoint.json", file="../../x"),
            "checkpoint.json: damaged: file: string should match",
        ),
        (lambda c: _edit(c / "checkpoint.json", clients={"0": "0.1.safetensors"}), "no such file"),
        (lambda c: (c / "state-2.safetensors").unlink(), "no such file"),
        (lambda c: (c / "state-2.safetensors").write_bytes(b"x" * 50), "damaged"),
    ],
)
def test_a_damaged_checkpoint_is_one_clear_line(
    damage: Callable[[Path], Any], message: str, cut: Path, registry: Registry
) -> None:
    damage(cut / "checkpoint")
    with pytest.raises(ConfigError, match=message) as caught:
        Run.resume(cut, registry=registry)
    assert "\n" not in str(caught.value)


def test_rounds_that_are_missing_are_noticed(cut: Path, registry: Registry) -> None:
    (cut / "rounds.jsonl").write_text("")
    with pytest.raises(ConfigError, match="has 0 rounds, the checkpoint 2"):
        Run.resume(cut, registry=registry)


def test_half_a_line_after_the_checkpoint_is_cut_off(cut: Path, registry: Registry) -> None:
    with (cut / "rounds.jsonl").open("a") as file:
        file.write('{"round": 3, "cli')
    run = Run.resume(cut, registry=registry)
    run.run()
    lines = (cut / "rounds.jsonl").read_text().splitlines()
    assert [json.loads(line)["round"] for line in lines] == [1, 2, 3, 4, 5]


def test_two_processes_do_not_run_in_one_directory(cut: Path, registry: Registry) -> None:
    message = "another process is running in it"
    with FileLock(cut / ".lock"), pytest.raises(ConfigError, match=message):
        Run.resume(cut, registry=registry).run()


def test_unfinished_knows_its_own_config(
    cut: Path, registry: Registry, tiny_config: Callable[..., Any]
) -> None:
    assert unfinished(cut, tiny_config(registry, rounds=5).hash)
    assert not unfinished(cut, tiny_config(registry, rounds=6).hash)
    assert not unfinished(cut / "missing", "x")


def state(value: float) -> dict[str, Any]:
    return {"w": torch.full((4,), value), "m": {"a|b": torch.tensor([value])}}


@pytest.mark.parametrize("limit", [0, 5000, 10**6], ids=["disk", "mixed", "memory"])
def test_client_states_count_once_their_round_is_committed(limit: int, tmp_path: Path) -> None:
    states = ClientStates(tmp_path / "clients", limit=limit)
    for client in range(3):
        states.stage(client, state(client), 1)
    assert len(states) == 0
    states.commit(1)
    states.stage(1, state(9), 2)
    assert float(states[1]["w"][0]) == 1  # type: ignore[index]
    states.commit(1)  # round 2 was interrupted
    assert float(states[1]["w"][0]) == 1  # type: ignore[index]
    states.stage(1, state(7), 2)
    states.commit(2)
    assert [float(states[c]["m"]["a|b"]) for c in states] == [0, 7, 2]  # type: ignore[index]
    files = list((tmp_path / "clients").iterdir()) if limit < 10**6 else []
    assert len(files) == {0: 3, 5000: 2, 10**6: 0}[limit]


def test_files_of_the_last_checkpoint_stay_until_the_next(tmp_path: Path) -> None:
    states = ClientStates(tmp_path, limit=0)
    states.stage(0, state(1), 1)
    states.commit(1)
    _, files = states.snapshot()
    states.forget_old()
    states.stage(0, state(2), 2)
    states.commit(2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["0.1.safetensors", "0.2.safetensors"]
    again = ClientStates(tmp_path, limit=0)
    again.restore({}, files)
    assert float(again[0]["w"][0]) == 1  # type: ignore[index]
    assert [p.name for p in tmp_path.iterdir()] == ["0.1.safetensors"]


def test_states_without_a_folder_leave_nothing_behind() -> None:
    states = ClientStates(limit=0)
    states.stage(0, state(1), 1)
    states.commit(1)
    folder = states._path("x").parent
    assert folder.is_dir()
    states.close()
    assert not folder.exists()
