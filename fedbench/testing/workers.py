"""Rules for executors."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..context import ClientContext
from ..engine.run import Run
from ..hookspecs import hookimpl
from .breach import Breach
from .outcome import PLAIN, Outcome, Setting, difference, failed
from .rule import rule
from .subject import Subject, build
from .tiny import register
from .watch import ClientFailedError, fingerprint


@dataclass(frozen=True, eq=False)
class KitFault:
    """Fails in client 1's turn of round 2."""

    @hookimpl(wrapper=True)
    def client_update(self, ctx: ClientContext) -> Iterator[None]:
        if (ctx.round, ctx.client) == (2, 1):
            raise ClientFailedError(f"the kit broke {ctx.where}")
        return (yield)


def _executed(subject: Subject, *plugins: str) -> tuple[Run, list[list[int]]]:
    """Make a run in the executor, and a list that fills with the ids that it yields a round."""
    ids: list[list[int]] = []
    inner = subject.cls

    class Noting:
        def __init__(self, workers: Any) -> None:
            self._workers = workers
            if hasattr(workers, "test"):
                self.test = workers.test

        def run(self, payload: Mapping[str, Any], jobs: Sequence[Any]) -> Iterator[Any]:
            ids.append([])
            for result in self._workers.run(payload, jobs):
                ids[-1].append(result.client)
                yield result

        def close(self) -> None:
            self._workers.close()

    @dataclass(frozen=True, eq=False)
    class KitNoting:
        """Notes the order in which results come."""

        def open(self, runtime: Any) -> Noting:
            return Noting(build(inner, subject.options).open(runtime))

    noting = ("executor", KitNoting)
    registry = register(subject.registry, kit_noting=noting, kit_fault=("plugin", KitFault))
    plugins_of = subject.plugins
    subject.plugins = {**plugins_of, **{name: {} for name in plugins}}
    try:
        config = subject.config(registry, Setting("kit_noting"))
    finally:
        subject.plugins = plugins_of
    return Run(config, registry=registry), ids


def _children() -> set[str]:
    """Return the ids of this process's children, where the system tells them."""
    tasks = Path("/proc/self/task")
    found = set()
    for task in tasks.iterdir() if tasks.is_dir() else ():
        found |= set((task / "children").read_text().split())
    return found - {str(os.getpid())}


def _state(run: Run) -> tuple[Any, Any]:
    return (run.state.weights, run.state.entries) if run.state else ({}, {})


@rule("executor")
def executor_result(subject: Subject) -> None:
    """It gives the bits of clients that run one after the other, in the order of their ids.

    Mend: call `runtime.run_client(job, payload)` for each job, anywhere, and yield the results by
    ascending client id; likewise `runtime.run_chunk` in `test`, if there is one.
    """
    run, ids = _executed(subject)
    try:
        run.run()
    except Exception as error:
        raise failed(error) from error
    for number, found in enumerate(ids, 1):
        if found != sorted(found):
            raise Breach(f"results come in the order {found}", f"round {number}")
    mine = Outcome(run.history, *map(fingerprint, _state(run)))
    differs = difference(subject.must(PLAIN), mine)
    if differs:
        raise Breach(f"clients one after the other give another result: {differs}")


@rule("executor")
def executor_failure(subject: Subject) -> None:
    """A client's error ends the run, and says which client it was.

    Mend: yield what `runtime.run_client` returns, also when it is a `ClientFailure`.
    """
    run, _ = _executed(subject, "kit_fault")
    try:
        run.run()
    except Exception as error:
        text = " ".join([str(error), *getattr(error, "__notes__", [])])
        if "round 2, client 1" not in text:
            raise Breach(f"the error does not name the client: {text}") from error
        return
    raise Breach("the run went on as if nothing had happened", "round 2, client 1")


@rule("executor")
def executor_cleans_up(subject: Subject) -> None:
    """After a run, also one that was broken off, no process of it is left.

    Mend: stop every worker in `close()`, and wait for it.
    """
    before = _children()
    run, _ = _executed(subject)
    rounds: Any = run.rounds()
    try:
        next(rounds)
    except Exception as error:
        raise failed(error) from error
    rounds.close()
    left = _children() - before
    if left:
        raise Breach(f"{len(left)} processes are still there after the run was broken off")
