"""Nothing grows with the rounds: no tensor stays behind, no file stays open, in no process."""

from __future__ import annotations

import copy
import gc
import os
import sys
import weakref
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from fedbench import ClientContext, hookimpl
from fedbench.engine.run import Run
from fedbench.plugins.registry import Registry

pytestmark = pytest.mark.long

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc, forks")
POOL = {"name": "pool", "workers": 2}


def alive() -> dict[int, torch.Tensor]:
    gc.collect()
    found = [o for o in gc.get_objects() if issubclass(type(o), torch.Tensor)]
    return {id(tensor): tensor for tensor in found}


class Held:
    """How many tensors live here that did not before, and the bytes of their storages."""

    def __init__(self) -> None:
        self._before = alive()  # kept, so that what other tests left neither goes nor counts

    def __call__(self) -> tuple[int, int]:
        new = [tensor for key, tensor in alive().items() if key not in self._before]
        storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in new}
        return len(new), sum(storages.values())


def open_files(workers: list[int]) -> list[int]:
    """How many files this process and each of its workers have open."""
    return [len(os.listdir(f"/proc/{pid}/fd")) for pid in (os.getpid(), *workers)]


def after_rounds(run: Run, look: Callable[[], Any]) -> list[Any]:
    return [look() for _ in run.rounds()]


def test_clients_at_work_hold_an_answer_and_what_they_received(
    registry: Registry, tiny_config: Callable[..., Any]
) -> None:
    run = Run(tiny_config(registry, "fedasync", rounds=12), registry=registry)
    held, seen = Held(), []
    for _ in run.rounds():
        assert run.state is not None
        flight = run.state.flight
        seen.append((held()[0], len(flight.turns), len(flight.sent)))
    models = len(run.runtime.initial)
    assert {turns for _, turns, _ in seen} == {3}  # of four clients, one has just answered
    assert all(1 <= sent <= 3 for *_, sent in seen)
    assert len({tensors - models * sent for tensors, _, sent in seen[2:]}) == 1, seen


@pytest.mark.parametrize(
    "method", ["fedavg", "fedhpro", "fedproto-aaai", "fpl", "moon", "scaffold"]
)
def test_no_tensor_stays_behind(
    method: str, registry: Registry, tiny_config: Callable[..., Any], tmp_path: Path
) -> None:
    run = Run(tiny_config(registry, method, rounds=8), tmp_path / "run", registry=registry)
    seen = after_rounds(run, Held())
    count, size = seen[3]  # every client has had its turn, and the first evaluation is over
    assert all(c == count for c, _ in seen[4:]), seen
    # FPL finds another number of clusters now and then.
    assert all(abs(s - size) <= 0.02 * size for _, s in seen[4:]), seen


@linux
@pytest.mark.parametrize("method", ["fedavg", "moon"])
def test_no_tensor_and_no_file_stays_behind_in_a_pool(
    method: str,
    registry: Registry,
    tiny_config: Callable[..., Any],
    tmp_path: Path,
    pids: list[int],
) -> None:
    config = tiny_config(registry, method, rounds=8, executor=POOL)
    run = Run(config, tmp_path / "run", registry=registry, checkpoint_rounds=1)
    held = Held()
    seen = after_rounds(run, lambda: (held(), open_files(pids)))
    assert len(seen[0][1]) == 3  # this process and two workers
    assert all(later == seen[3] for later in seen[4:]), seen


@dataclass(frozen=True, eq=False)
class Hoarder:
    """Keeps what each client's model was."""

    kept: list[Any] = field(default_factory=list, init=False)

    @hookimpl(wrapper=True)
    def client_update(self, ctx: ClientContext) -> Any:
        trained = yield
        self.kept.append([w.clone() for w in ctx.model.parameters()])
        return trained


def test_what_a_plugin_hoards_is_seen(
    registry: Registry, add: Callable[..., None], tiny_config: Callable[..., Any]
) -> None:
    add(hoarder=Hoarder)
    run = Run(tiny_config(registry, rounds=5, extra={"hoarder": {}}), registry=registry)
    (fewer, less), (more, greater) = after_rounds(run, Held())[3:]
    assert more > fewer
    assert greater > 1.02 * less


TURNS: list[weakref.ref[ClientContext]] = []


@dataclass(frozen=True, eq=False)
class Remembering:
    """Remembers the contexts of turns and scores, weakly; trains once more in each of them."""

    @hookimpl(wrapper=True)
    def client_update(self, ctx: ClientContext) -> Generator[None, object, object]:
        TURNS.append(weakref.ref(ctx))
        ctx.train(copy.deepcopy(ctx.model), epochs=1)
        return (yield)

    @hookimpl
    def personalize(self, ctx: ClientContext) -> None:
        TURNS.append(weakref.ref(ctx))
        ctx.train(epochs=1, stream="remembering")


def test_what_a_turn_holds_is_freed_at_its_end_without_the_garbage_collector(
    add: Callable[..., None], run_tiny: Callable[..., Run]
) -> None:
    """A cycle of references would keep a turn's models and states until some later collection."""
    add(remembering=Remembering)
    TURNS.clear()
    gc.disable()
    try:
        run = run_tiny("scaffold", rounds=2, extra={"remembering": {}})
        left = [ref() for ref in TURNS if ref() is not None]
    finally:
        gc.enable()
    assert len(TURNS) >= 4 * len(run.runtime.parts)
    assert not left
