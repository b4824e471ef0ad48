"""What the server keeps is not copied for nothing, and what a plugin has spoilt is not kept."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from fedbench import ClientResult, Run, ServerState, hookimpl
from fedbench.executors.pool import Pool, PoolWorkers
from fedbench.plugins.registry import Registry
from fedbench.runtime import Runtime
from fedbench.types import ClientJob, nbytes
from fedbench.values import Value


@pytest.mark.parametrize("write", [False, True])
def test_an_error_leaves_a_checkpoint_unless_the_state_was_written_to(
    write: bool,
    registry: Registry,
    tiny_config: Callable[..., Any],
    add: Callable[..., None],
    tmp_path: Path,
) -> None:
    @dataclass(frozen=True, eq=False)
    class Fails:
        @hookimpl
        def broadcast(self, state: ServerState) -> dict[str, Any]:
            if state.round == 2:
                if write:
                    state.weights["classifier.bias"].add_(1)
                raise ArithmeticError("no third round")
            return {}

    add(fails=Fails)
    config = tiny_config(registry, rounds=3, extra={"fails": {}})

    with pytest.raises(ArithmeticError) as caught:
        Run(config, tmp_path / "run", registry=registry).run()

    said = "a plugin has written into the server's weights"
    assert (tmp_path / "run/checkpoint").exists() is not write
    assert any(said in note for note in getattr(caught.value, "__notes__", [])) is write


def test_the_weights_that_the_server_keeps_are_those_that_it_sends(
    registry: Registry, tiny_config: Callable[..., Any], add: Callable[..., None]
) -> None:
    own: list[bool] = []

    @dataclass(frozen=True, eq=False)
    class Looks:
        @hookimpl(wrapper=True)
        def aggregate(
            self, state: ServerState, results: Iterator[ClientResult]
        ) -> Generator[None, Any, Any]:
            found = yield
            own.extend(value is state.weights[name] for name, value in sent[-1].items())
            return found

        @hookimpl
        def receive_uploads(self, results: Iterator[ClientResult]) -> Iterator[ClientResult]:
            for result in results:
                sent.append(result.sent.weights())
                yield result

    sent: list[Mapping[str, torch.Tensor]] = []
    add(looks=Looks)

    Run(tiny_config(registry, extra={"looks": {}}), registry=registry).run()

    assert own
    assert all(own)


def test_weights_that_were_scored_are_not_put_into_shared_memory_again(
    registry: Registry, tiny_config: Callable[..., Any]
) -> None:
    runtime = Runtime(tiny_config(registry), registry, Path())
    workers = Pool(2).open(runtime)
    assert isinstance(workers, PoolWorkers)
    put: list[tuple[list[str], int]] = []
    memory = workers._shared.payload
    real = memory.put

    def noted(values: Mapping[str, Value], channels_last: bool = False) -> list[Any]:
        put.append((sorted(values), sum(map(nbytes, values.values()))))
        return real(values, channels_last)

    memory.put = noted  # type: ignore[method-assign]
    weights = dict(runtime.initial)
    other = {name: value + 1 for name, value in weights.items()}
    jobs = [ClientJob(1, client, {}) for client in (0, 1, 2)]
    chunks = runtime.chunks(1, 0)
    try:
        scored = [*workers.test(weights, chunks)]
        first = [*workers.run({"weights": dict(weights), "more": torch.ones(3)}, jobs)]
        again = [*workers.run({"weights": weights, "more": torch.ones(3)}, jobs)]
        [*workers.run({"weights": other}, jobs)]
        assert all(
            torch.equal(a.logits, b.logits)
            for a, b in zip(scored, workers.test(weights, chunks), strict=True)
        )
    finally:
        workers.close()

    size = nbytes(weights)
    assert put == [
        (["weights"], size),
        (["more"], 12),
        (["more", "weights"], size + 12),  # another tensor, so all is put anew
        (["weights"], size),
        (["weights"], size),
    ]
    assert [r.digests for r in first] == [r.digests for r in again]


@pytest.mark.parametrize("kept", [False, True])
def test_digests_are_computed_only_for_a_run_that_is_kept(
    kept: bool,
    registry: Registry,
    tiny_config: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    counted = 0

    def checksum(tensor: torch.Tensor) -> str:
        nonlocal counted
        counted += 1
        return 16 * "0"

    run = Run(tiny_config(registry), tmp_path / "run" if kept else None, registry=registry)
    monkeypatch.setattr("fedbench.values.checksum", checksum)
    run.run()

    assert (counted > 0) is kept
