"""A verification that starts from a kept checkpoint agrees to the bit, and finds damage."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from fedbench import ConfigError, Run
from fedbench.engine.verify import Kept, Verdict
from fedbench.plugins.registry import Registry
from fedbench.store.client_states import ClientStates

STATEFUL = ("fedhpro", "fedproto-aaai", "moon")


@pytest.fixture
def checkpointed(tiny_config: Callable[..., Any], registry: Registry, tmp_path: Path) -> Any:
    """Return a function that finishes a run of four rounds and keeps all its checkpoints."""

    def finished(method: str = "moon") -> Path:
        path = tmp_path / method
        given = {"registry": registry, "checkpoint_rounds": 1, "keep_checkpoints": True}
        Run(tiny_config(registry, method, rounds=4), path, **given).run()
        return path

    return finished


def played(registry: Registry, path: Path, **given: Any) -> tuple[Verdict, list[int]]:
    """Return the verdict and the rounds that were played for it."""
    rounds: list[int] = []
    verdict = Kept(registry, path).verify(after_round=lambda r: rounds.append(r.round), **given)
    return verdict, rounds


def files(path: Path) -> dict[str, bytes]:
    return {str(p.relative_to(path)): p.read_bytes() for p in path.rglob("*") if p.is_file()}


@pytest.mark.parametrize("limit", [16_000_000, 0], ids=["in memory", "in files"])
@pytest.mark.parametrize("method", STATEFUL)
def test_from_a_kept_checkpoint(
    checkpointed: Callable[..., Path],
    registry: Registry,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    limit: int,
) -> None:
    monkeypatch.setattr(ClientStates.__init__, "__defaults__", (None, limit))
    path = checkpointed(method)
    assert not (path / "checkpoint").exists()
    in_files = bool([*path.glob("checkpoints/*/clients/*")])
    assert in_files == (limit == 0 and method != "fedhpro")
    before = files(path)
    assert played(registry, path, first=3, last=3) == (Verdict(3, None, start=2), [3])
    assert played(registry, path, first=3) == (Verdict(4, None, start=2), [3, 4])
    assert played(registry, path) == (Verdict(4, None), [1, 2, 3, 4])
    shutil.rmtree(path / "checkpoints" / "round-000002")
    assert played(registry, path, first=3, last=3) == (Verdict(3, None, start=1), [2, 3])
    shutil.rmtree(path / "checkpoints")
    assert played(registry, path, first=3, last=3) == (Verdict(3, None), [1, 2, 3])
    now = files(path)
    assert now == {name: before[name] for name in now}


def repacked(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    """Change the tensors of a kept checkpoint and name them with their new SHA-256."""
    pointer = json.loads((folder / "checkpoint.json").read_text())
    file = folder / pointer["file"]
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file)
    pointer["sha256"] = hashlib.sha256(file.read_bytes()).hexdigest()
    (folder / "checkpoint.json").write_text(json.dumps(pointer))


def test_a_tampered_kept_checkpoint_is_found(
    checkpointed: Callable[..., Path], registry: Registry
) -> None:
    path = checkpointed("moon")
    folder = path / "checkpoints" / "round-000002"

    def bias(tensors: dict[str, torch.Tensor]) -> None:
        tensors["weights/classifier.bias"] += 1

    repacked(folder, bias)
    verdict, rounds = played(registry, path, first=3)
    assert rounds == []
    assert verdict.difference is not None
    assert verdict.difference.startswith(
        "the checkpoint of round 2: server weights/classifier.bias: "
    )
    assert Kept(registry, path).verify(first=2).difference is None


def test_a_tampered_client_state_is_found(
    checkpointed: Callable[..., Path], registry: Registry
) -> None:
    path = checkpointed("moon")

    def clients(tensors: dict[str, torch.Tensor]) -> None:
        for name, tensor in tensors.items():
            if name.startswith("client/") and tensor.is_floating_point():
                tensor += torch.rand(tensor.shape, generator=torch.Generator().manual_seed(1))

    repacked(path / "checkpoints" / "round-000002", clients)
    verdict, rounds = played(registry, path, first=3)
    assert rounds == [3]
    assert verdict.difference is not None
    assert verdict.difference.startswith("round 3: client 0, upload weights/")


@pytest.mark.parametrize(
    ("name", "data", "text"),
    [
        ("checkpoint.json", b"{", r"checkpoint\.json"),
        ("state-2.safetensors", b"none", "its SHA-256 differs from the recorded one"),
        ("state-2.safetensors", None, "no such file"),
    ],
)
def test_a_damaged_kept_checkpoint_is_one_line(
    checkpointed: Callable[..., Path],
    registry: Registry,
    name: str,
    data: bytes | None,
    text: str,
) -> None:
    path = checkpointed("fedavg")
    file = path / "checkpoints" / "round-000002" / name
    file.unlink()
    if data is not None:
        file.write_bytes(data)
    with pytest.raises(ConfigError, match=text) as caught:
        Kept(registry, path).verify(first=3)
    assert "round-000002" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_checkpoint_in_the_wrong_folder_is_refused(
    checkpointed: Callable[..., Path], registry: Registry
) -> None:
    folder = checkpointed("fedavg") / "checkpoints"
    shutil.rmtree(folder / "round-000002")
    (folder / "round-000001").rename(folder / "round-000002")
    with pytest.raises(ConfigError, match="damaged: round 1, not 2"):
        Kept(registry, folder.parent).verify(first=3)


def test_a_resumed_run_keeps_its_earlier_checkpoints_only(
    tiny_config: Callable[..., Any], registry: Registry, tmp_path: Path
) -> None:
    path = tmp_path / "cut"
    given: Any = {"registry": registry, "checkpoint_rounds": 1, "keep_checkpoints": True}
    rounds = Run(tiny_config(registry, "moon", rounds=4), path, **given).rounds()
    for _ in range(3):
        next(rounds)
    rounds.close()
    folder = path / "checkpoints"
    assert sorted(p.name for p in folder.iterdir()) == [f"round-{n:06d}" for n in (1, 2, 3)]
    # An unfinished run can be verified from what it kept.
    assert played(registry, path, first=3) == (Verdict(3, None, start=2), [3])
    # As if it had been killed after round 2's checkpoint, and in the middle of writing another.
    shutil.rmtree(path / "checkpoint")
    shutil.copytree(folder / "round-000002", path / "checkpoint")
    (folder / "round-000001" / "checkpoint.json").unlink()
    run = Run.resume(path, registry=registry)
    assert [p.name for p in folder.iterdir()] == ["round-000002"]
    run.run()
    assert [p.name for p in folder.iterdir()] == ["round-000002"]
    assert played(registry, path, first=4) == (Verdict(4, None, start=2), [3, 4])
