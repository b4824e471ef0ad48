"""A spy for the tests of methods in real rounds: what each turn began and ended with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from torch import Tensor

from fedbench import Run, ServerUpdate, hookimpl

Named = dict[str, Tensor]


def copied(weights: Any) -> Named:
    return {name: w.detach().clone() for name, w in weights.items()}


@dataclass(frozen=True, eq=False)
class Spy:
    """Record weights; it comes last, so its wrapper is the innermost one of a turn."""

    seen: ClassVar[Any] = None

    @hookimpl(wrapper=True)
    def client_update(self, ctx):
        place = ctx.round, ctx.client
        self.seen.before[place] = copied(ctx.model.state_dict())
        trained = yield
        self.seen.after[place] = copied(ctx.model.state_dict())
        self.seen.sizes[ctx.client] = len(ctx.data)
        return trained

    @hookimpl(wrapper=True)
    def train(self, ctx, work):
        start = copied(work.model.state_dict())
        done = yield
        self.seen.passes.append((ctx.round, ctx.client, start, work))
        return done

    @hookimpl
    def personalize(self, ctx):
        self.seen.models[ctx.round, ctx.client] = copied(ctx.model.state_dict())

    @hookimpl
    def server_update(self, ctx, state, reports):
        self.seen.globals[ctx.round] = copied(state.weights)
        self.seen.reports[ctx.round] = list(reports)
        return ServerUpdate()


@pytest.fixture
def spied(add, run_tiny) -> Callable[..., Any]:
    """Run a method under the spy; return what it saw, with the finished run as ``run``.

    ``before`` and ``after`` are (round, client) -> weights around a turn's training, ``models``
    those of the scored model; ``passes`` are (round, client, weights at the start, work),
    ``globals`` round -> weights, ``reports`` round -> reports, ``sizes`` client -> examples.
    """
    add(spy=Spy)

    def play(method: str, extra: Any = None, **given: Any) -> Any:
        names = ("before", "after", "models", "globals", "reports", "sizes")
        seen = Spy.seen = SimpleNamespace(passes=[], **{name: {} for name in names})
        seen.run: Run = run_tiny(method, extra={**(extra or {}), "spy": {}}, **given)
        return seen

    return play
