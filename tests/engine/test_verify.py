"""A repeated run has the same bits, or the first differing round, client and tensor are named."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from fedbench import ClientContext, ConfigError, Run, ServerUpdate, hookimpl
from fedbench.engine.verify import Kept, Verdict
from fedbench.plugins.registry import Registry
from fedbench.store import digests
from fedbench.types import PerClass
from fedbench.values import checksums

COUNTER: Iterator[int] = count()


@dataclass(frozen=True, eq=False)
class Drifts:
    """Reads a counter that outlives the run, in one client or on the server, from ``since`` on."""

    where: str = "client"
    since: int = 2

    @hookimpl(wrapper=True)
    def client_update(self, ctx: ClientContext) -> Any:
        trained = yield
        if self.where == "client" and (ctx.round >= self.since) and ctx.client >= 2:
            with torch.no_grad():
                ctx.model.classifier.bias[0] += next(COUNTER) + 1  # type: ignore[operator, index]
        if self.where == "metric" and ctx.round >= self.since:
            ctx.metric("drift", next(COUNTER))
        return trained

    @hookimpl
    def server_update(self, ctx: Any) -> ServerUpdate:
        if self.where == "server" and ctx.round >= self.since:
            return ServerUpdate(entries={"drift": torch.tensor(float(next(COUNTER)))})
        return ServerUpdate()


@pytest.fixture
def kept(run_tiny: Callable[..., Run], tmp_path: Path) -> Path:
    """Return the folder of a finished run of three rounds."""
    run_tiny("fedproto", tmp_path / "kept", rounds=3)
    return tmp_path / "kept"


def verified(registry: Registry, path: Path, **given: Any) -> Verdict:
    return Kept(registry, path, given.pop("executor", None)).verify(**given)


def test_the_bits_agree(kept: Path, registry: Registry) -> None:
    before = {p.name: p.read_bytes() for p in kept.iterdir()}
    assert verified(registry, kept) == Verdict(3, None)
    assert {p.name: p.read_bytes() for p in kept.iterdir()} == before


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the pool forks")
def test_another_executor_agrees_too(kept: Path, registry: Registry) -> None:
    assert verified(registry, kept, executor={"name": "pool", "workers": 2}) == Verdict(3, None)


def test_some_rounds(kept: Path, registry: Registry) -> None:
    assert verified(registry, kept, first=2, last=2) == Verdict(2, None)
    with pytest.raises(ConfigError, match="has rounds 1 to 3, not 2-4"):
        verified(registry, kept, first=2, last=4)
    with pytest.raises(ConfigError, match="has rounds 1 to 3, not 0-1"):
        verified(registry, kept, first=0, last=1)


@pytest.mark.parametrize(
    ("where", "text"),
    [
        ("client", "round 2: client 2, upload weights/classifier.bias: "),
        ("server", "round 2: server drift: "),
        ("metric", "round 2: metrics.drift: "),
    ],
)
def test_the_first_difference_is_named(
    add: Callable[..., None],
    run_tiny: Callable[..., Run],
    registry: Registry,
    tmp_path: Path,
    where: str,
    text: str,
) -> None:
    add(drifts=Drifts, averaging=registry.get("plugin", "exchange").value)
    # The last wrapper is the innermost: the drift comes before what `averaging` uploads.
    extra = {"averaging": {}, "drifts": {"where": where}}
    run_tiny(directory=tmp_path / "r", rounds=3, extra=extra, without=["exchange"])
    verdict = verified(registry, tmp_path / "r")
    assert verdict.rounds == 2
    assert verdict.difference is not None
    assert verdict.difference.startswith(text)
    assert verified(registry, tmp_path / "r", last=1) == Verdict(1, None)


def test_changed_weights_are_noticed_without_a_second_run(kept: Path, registry: Registry) -> None:
    weights = load_file(kept / "model.safetensors")
    weights["classifier.bias"][0] += 1
    save_file(weights, kept / "model.safetensors")
    verdict = verified(registry, kept)
    assert verdict.rounds == 0
    assert verdict.difference is not None
    assert verdict.difference.startswith("model.safetensors holds weights ")


@pytest.mark.parametrize("damage", ["gone", "torn"])
def test_a_model_that_cant_be_read(kept: Path, registry: Registry, damage: str) -> None:
    if damage == "gone":
        (kept / "model.safetensors").unlink()
    else:
        (kept / "model.safetensors").write_bytes(b"x" * 40)
    verdict = verified(registry, kept)
    assert str(verdict.difference).startswith("model.safetensors cannot be read: ")


def edit(path: Path, key: str, value: Any) -> None:
    data = json.loads(path.read_text())
    data[key] = value if key != "accuracy" else {**data[key], **value}
    path.write_text(json.dumps(data))


def test_a_better_accuracy_in_the_result_is_noticed(kept: Path, registry: Registry) -> None:
    edit(kept / "result.json", "accuracy", {"mean": 0.99})
    assert str(verified(registry, kept).difference).startswith("result.json, accuracy: {")


def test_a_changed_config_is_noticed(kept: Path, registry: Registry) -> None:
    text = (kept / "config.yaml").read_text()
    (kept / "config.yaml").write_text(text.replace("lr: 0.05", "lr: 0.06"))
    expected = "config.yaml is not the config that produced result.json"
    assert verified(registry, kept) == Verdict(0, expected)


def test_a_changed_score_in_the_rounds_is_named(kept: Path, registry: Registry) -> None:
    lines = (kept / "rounds.jsonl").read_text().splitlines()
    second = json.loads(lines[1])
    second["scores"]["classifier"]["accuracy"]["worst"] = 0.123
    (kept / "rounds.jsonl").write_text("\n".join([lines[0], json.dumps(second), lines[2], ""]))
    difference = str(verified(registry, kept).difference)
    assert difference.startswith("round 2: scores.classifier.accuracy.worst: 0.123 then, ")


def test_a_run_of_an_earlier_version_is_verified_by_its_numbers(
    kept: Path, registry: Registry
) -> None:
    (kept / "digests.jsonl").unlink()
    assert verified(registry, kept) == Verdict(3, None, ("no digests are kept for 3 rounds",))
    edit(kept / "result.json", "metrics_sha256", "0" * 64)
    assert "result.json, metrics_sha256: 000" in str(verified(registry, kept).difference)


def test_an_unfinished_run_is_verified_as_far_as_it_got(
    registry: Registry, tiny_config: Callable[..., Any], tmp_path: Path
) -> None:
    config = tiny_config(registry, rounds=5)
    for result in Run(config, tmp_path / "r", registry=registry).rounds():
        if result.round == 2:
            break
    assert verified(registry, tmp_path / "r") == Verdict(2, None)


def test_without_a_round_there_is_nothing_to_verify(
    registry: Registry, tiny_config: Callable[..., Any], tmp_path: Path
) -> None:
    Run(tiny_config(registry), tmp_path / "r", registry=registry)
    with pytest.raises(ConfigError, match="holds no finished round to verify"):
        Kept(registry, tmp_path / "r")
    with pytest.raises(ConfigError, match=r"holds no run \(no config.yaml\)"):
        Kept(registry, tmp_path / "missing")


def test_different_versions_are_reported(kept: Path, registry: Registry) -> None:
    assert Kept(registry, kept).changed_environment() == []
    path = kept / "environment.json"
    data = json.loads(path.read_text())
    now = data["versions"]["torch"]
    edit(path, "versions", {**data["versions"], "torch": "1.0"})
    assert Kept(registry, kept).changed_environment() == [f"torch: 1.0 then, {now} now"]


def test_checksums_made_in_another_way_are_not_compared(kept: Path, registry: Registry) -> None:
    file = kept / "digests.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert lines
    for line in lines:
        line["clients"] = {client: "0" * len(found) for client, found in line["clients"].items()}
        del line["checksum"]  # as the first versions wrote it
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert digests.read(kept) == {}
    assert verified(registry, kept).difference is None


def test_a_resumed_run_has_each_rounds_digests_once(
    registry: Registry, tiny_config: Callable[..., Any], tmp_path: Path
) -> None:
    path = tmp_path / "r"
    run = Run(tiny_config(registry, rounds=4), path, registry=registry)
    rounds = run.rounds()
    next(rounds)
    next(rounds)
    rounds.close()
    with (path / "digests.jsonl").open("a") as file:  # as a killed process leaves it
        file.write('{"round": 3, "names": [], "clients": {}, "server": {}}\n{"round": 4, "na')
    Run.resume(path, registry=registry).run()
    lines = (path / "digests.jsonl").read_text().splitlines()
    assert [json.loads(line)["round"] for line in lines] == [1, 2, 3, 4]
    assert verified(registry, path) == Verdict(4, None)


def test_a_line_gives_back_what_clients_sent() -> None:
    rows = PerClass(torch.tensor([0]), torch.ones(1, 2), torch.tensor([3]))
    first = checksums({"weights": {"a": torch.ones(2), "b": torch.zeros(1)}, "x": torch.ones(1)})
    assert list(first) == ["weights/a", "weights/b", "x"]
    other = checksums({"p": rows})
    assert list(other) == ["p/labels", "p/values", "p/counts"]
    given = {3: first, 1: first, 2: other}
    line = json.loads(json.dumps(digests.line(4, given, {"weights/a": "00000000"})))
    assert digests.clients_of(line) == given
    assert isinstance(line["clients"]["3"], str)


SHORT = '{"round":1,"names":["a"],"clients":{"0":""},"server":{},"checksum":"xxh3"}'


@pytest.mark.parametrize("text", ["{", "[]", '{"round": 1}', SHORT])
def test_a_damaged_line_is_one_clear_line(kept: Path, registry: Registry, text: str) -> None:
    (kept / "digests.jsonl").write_text(text + "\n")
    with pytest.raises(ConfigError, match=r"digests.jsonl:1: damaged: "):
        Kept(registry, kept)


def test_without_the_flag_nothing_is_kept(kept: Path) -> None:
    assert not (kept / "checkpoints").exists()
