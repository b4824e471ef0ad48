"""What clients and the server know in common: the streams, the clients' number, the cohort."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from fedbench import ClientContext, ClientResult, Examples, Payload, ServerContext, Value, hookimpl
from fedbench.engine.run import Run
from fedbench.random import Streams

SEEN: dict[str, Any] = {}


def draw(streams: Streams) -> float:
    return float(torch.rand((), generator=streams.torch("spy/shared")))


@dataclass(frozen=True, eq=False)
class Spy:
    """Record what each hook draws from the shared streams, and the cohort."""

    @hookimpl
    def client_data(
        self, data: Examples, client: int, num_clients: int, streams: Streams
    ) -> Examples:
        SEEN[f"data {client}"] = num_clients, draw(streams)
        return data

    @hookimpl
    def send_uploads(self, ctx: ClientContext, uploads: Payload) -> Mapping[str, Value]:
        SEEN[f"turn {ctx.client}"] = ctx.num_clients, draw(ctx.streams)
        return uploads

    @hookimpl
    def receive_uploads(
        self, ctx: ServerContext, results: Iterator[ClientResult]
    ) -> Iterator[ClientResult]:
        SEEN["server"] = ctx.num_clients, draw(ctx.streams)
        SEEN.setdefault("cohorts", []).append(ctx.cohort)
        return results


@pytest.fixture
def seen(add: Callable[..., None], run_tiny: Callable[..., Run]) -> dict[str, Any]:
    SEEN.clear()
    add(spy=Spy)
    extra = {"spy": {}, "uniform": {"fraction": 0.5}}
    SEEN["history"] = run_tiny(rounds=3, extra=extra).history
    return SEEN


def test_clients_and_the_server_draw_the_same(seen: dict[str, Any]) -> None:
    found = {value for key, value in seen.items() if key not in ("cohorts", "history")}
    assert len(found) == 1
    assert found.pop()[0] == 4


def test_the_server_knows_the_cohort(seen: dict[str, Any]) -> None:
    assert seen["cohorts"] == [tuple(one.clients) for one in seen["history"]]
    assert {len(cohort) for cohort in seen["cohorts"]} == {2}
