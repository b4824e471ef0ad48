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
    """Fails in the turn of client 1 in round 2."""

    @hookimpl(wrapper=True)
    def client_update(self, ctx: ClientContext) -> Iterator[None]:
        if (ctx.round, ctx.client) == (2, 1):
            raise ClientFailedError(f"the kit broke {ctx.where}")
        return (yield)


def _executed(subject: Subject, *plugins: str) -> tuple[Run, list[list[int]]]:
    """Return a run on the executor, and a list that it fills with the ids yielded per round."""
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
        """Records the order in which results arrive."""

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
    """Return the ids of this process's children, on systems with ``/proc``."""
    tasks = Path("/proc/self/task")
    found = set()
    for task in tasks.iterdir() if tasks.is_dir() else ():
        found |= set((task / "children").read_text().split())
    return found - {str(os.getpid())}


def _state(run: Run) -> tuple[Any, Any]:
    return (run.state.weights, run.state.entries) if run.state else ({}, {})


@rule("executor")
def executor_result(subject: Subject) -> None:
    """A run gives the same bits as with clients one after the other, in the order of their ids.

    Mend: call `runtime.run_client(job, payload)` for each job, anywhere, and yield the results in
    ascending order of client id; likewise `runtime.run_chunk` in `test`, if you implement it.
    """
    run, ids = _executed(subject)
    try:
        run.run()
    except Exception as error:
        raise failed(error) from error
    for number, found in enumerate(ids, 1):
        if found != sorted(found):
            raise Breach(f"results arrive in the order {found}", f"round {number}")
    mine = Outcome(run.history, *map(fingerprint, _state(run)))
    differs = difference(subject.must(PLAIN), mine)
    if differs:
        raise Breach(f"clients one after the other give a different result: {differs}")


@rule("executor")
def executor_failure(subject: Subject) -> None:
    """A client's error ends the run and names the client.

    Mend: yield what `runtime.run_client` returns, even if it is a `ClientFailure`.
    """
    run, _ = _executed(subject, "kit_fault")
    try:
        run.run()
    except Exception as error:
        text = " ".join([str(error), *getattr(error, "__notes__", [])])
        if "round 2, client 1" not in text:
            raise Breach(f"the error does not name the client: {text}") from error
        return
    raise Breach("the run continued as if nothing had happened", "round 2, client 1")


@rule("executor")
def executor_cleans_up(subject: Subject) -> None:
    """No process is left after a run, even if the run was stopped early.

    Mend: stop every worker in `close()`, and wait until it has ended.
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
        raise Breach(f"processes are left after the run was stopped: {len(left)}")
