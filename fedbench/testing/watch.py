"""Watch the kit's runs: what plugins receive, return and keep. Also make a client fail.

Nothing here changes a result, except for the failure.
"""

from __future__ import annotations

import hashlib
import sys
import weakref
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

import numpy as np
from torch import Tensor

from ..context import ClientContext, ServerContext
from ..executors.inline import InlineWorkers
from ..failures import ClientFailure
from ..types import Batch, ClientJob, ClientResult, Output, PerClass, Value, nbytes, tensors
from ..values import raw_bytes
from ..watching import Call, Watch

ORDINARY = (bool, int, float, str, bytes, type(None))


def fingerprint(value: Any, depth: int = 6) -> Any:
    """Return something that changes when the content of ``value`` does.

    Tensors, arrays, containers and dataclass instances are compared by content, all else by
    identity.
    """
    if isinstance(value, ORDINARY):
        return value if value == value else "nan"
    if isinstance(value, Tensor):
        content = hashlib.blake2b(raw_bytes(value).data).digest()
        return (str(value.dtype), tuple(value.shape), content)
    if isinstance(value, np.ndarray):
        return (str(value.dtype), value.shape, hashlib.blake2b(value.tobytes()).digest())
    if depth:
        if isinstance(value, Mapping):
            return {str(k): fingerprint(v, depth - 1) for k, v in value.items()}
        if isinstance(value, (list, tuple)):
            return [fingerprint(v, depth - 1) for v in value]
        if isinstance(value, (set, frozenset)):
            return sorted(map(str, value))
        if is_dataclass(value) and not isinstance(value, type):
            return {f.name: fingerprint(getattr(value, f.name), depth - 1) for f in fields(value)}
    return id(value)


@dataclass
class Trace:
    """What was seen in one run. "Where" is a text such as ``round 1, client 2``."""

    writes: list[tuple[str, str]] = field(default_factory=list)
    """(name of what was written into, where)."""
    kept: list[tuple[str, str]] = field(default_factory=list)
    """(what changed in a plugin or its module during the run, the plugin)."""
    uploads: list[tuple[str, str, str]] = field(default_factory=list)
    """(what is wrong with an upload, where, how to fix it)."""
    states: list[tuple[str, str]] = field(default_factory=list)
    """(key of the client's state whose value is not what was assigned, where)."""
    terms: dict[tuple[str, str], bool] = field(default_factory=dict)
    """(plugin, loss term) -> whether it ever depended on the model."""
    bytes_up: list[dict[str, int]] = field(default_factory=list)
    """Bytes that clients sent, by key, for each round."""
    passes: dict[str, list[int]] = field(default_factory=dict)
    """Trainer -> how many steps and how many gradients its passes had in all."""
    handed_on: list[tuple[str, list[int]]] = field(default_factory=list)
    """(plugin, the clients of the results that its ``receive_uploads`` handed on, in order)."""
    references: list[tuple[Callable[[], Any], str, str]] = field(default_factory=list)
    """(weak reference, what it refers to, where it was created)."""

    def alive(self) -> list[tuple[str, str]]:
        """Return the objects of clients' turns that are still in memory, as (what, where)."""
        return [(what, where) for ref, what, where in self.references if ref() is not None]


def watching(trace: Trace) -> type:
    """Return an executor that runs clients in this process and fills ``trace``.

    It records what clients send and what plugins keep; `Probe` records what hooks receive.
    """

    @dataclass(frozen=True, eq=False)
    class Watching:
        """Runs clients in this process and watches them."""

        def open(self, runtime: Any) -> Watchers:
            """Return the workers of a run."""
            return Watchers(runtime, trace)

    return Watching


class Watchers(InlineWorkers):
    """The workers of the executor that `watching` returns."""

    def __init__(self, runtime: Any, trace: Trace) -> None:
        super().__init__(runtime)
        self._trace = trace
        self._kinds: dict[str, str] = {}
        self._before = self._plugins()

    def run(
        self, payload: Mapping[str, Value], jobs: Sequence[ClientJob]
    ) -> Iterator[ClientResult | ClientFailure]:
        """Yield the results in client-id order; look at those of clients' turns."""
        if jobs[0].scored is not None:
            yield from super().run(payload, jobs)
            return
        sent: Counter[str] = Counter()
        self._trace.bytes_up.append({})
        round = jobs[0].round
        for result in super().run(payload, jobs):
            where = f"round {round}, client {result.client}"
            uploads = result.uploads if isinstance(result, ClientResult) else {}
            for key, value in uploads.items():
                sent[key] += nbytes(value)
                self._look_at(key, value, where)
            self._trace.bytes_up[-1] = dict(sent)
            yield result

    def close(self) -> None:
        """Record what changed in the plugins."""
        model = weakref.ref(self._runtime.model)
        self._trace.references.append((model, "the run's model", ""))
        after = self._plugins()
        for place, (owner, found) in after.items():
            if self._before.get(place, (owner, None))[1] != found:
                self._trace.kept.append((place, owner))

    def _plugins(self) -> dict[str, tuple[str, Any]]:
        """Return a fingerprint of every place where a plugin could hide something."""
        found: dict[str, tuple[str, Any]] = {}
        for name, instance in self._runtime.plugins.plugins:
            whose = f"plugin {name!r}"
            for key, value in vars(instance).items():
                found[f"attribute {key!r} of the object {name!r}"] = whose, fingerprint(value)
            for cls in type(instance).__mro__[:-1]:
                for key, value in vars(cls).items():
                    if not key.startswith("__"):
                        found[f"class attribute {cls.__name__}.{key}"] = whose, fingerprint(value)
            module = type(instance).__module__
            for key, value in vars(sys.modules.get(module, object)).items():
                # Python sets a package's own modules when they are imported.
                own = value is sys.modules.get(f"{module}.{key}", sys)
                if not key.startswith("__") and not own:
                    found[f"global {key!r} of module {module}"] = whose, fingerprint(value)
        return found

    def _look_at(self, key: str, value: Value, where: str) -> None:
        def wrong(what: str, mend: str) -> None:
            self._trace.uploads.append((what, f"upload {key!r}, {where}", mend))

        for _, tensor in tensors(value):
            if tensor.requires_grad or tensor.device.type != "cpu":
                wrong("it is not sealed", "upload with ctx.upload")
        if isinstance(value, PerClass):
            classes = len(self._runtime.data.classes)
            labels = value.labels
            if labels.numel() and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
                wrong(f"labels {labels.tolist()} are not classes", f"use 0 to {classes - 1}")
            if value.counts.numel() and int(value.counts.min()) < 1:
                wrong("a row has a count below 1", "leave out the rows of classes without examples")
        kind = _kind(value)
        known = self._kinds.setdefault(key, kind)
        if kind != known:
            wrong(f"it is {kind} and was {known} before", "send one type under one key")


def _kind(value: Value) -> str:
    """Return a value's type and element types in words."""
    kinds = sorted({str(t.dtype).removeprefix("torch.") for _, t in tensors(value)})
    name = type(value).__name__ if isinstance(value, (Tensor, PerClass)) else "mapping"
    return f"a {name} of {', '.join(kinds)}"


@dataclass(frozen=True, eq=False)
class Rough:
    """Runs clients in this process, in descending order, and wipes the model after each turn."""

    def open(self, runtime: Any) -> RoughWorkers:
        """Return the workers of a run."""
        return RoughWorkers(runtime)


class RoughWorkers(InlineWorkers):
    """See `Rough`."""

    def run(
        self, payload: Mapping[str, Value], jobs: Sequence[ClientJob]
    ) -> Iterator[ClientResult | ClientFailure]:
        """Yield the results in client-id order, after all of them were computed."""
        results = []
        for job in sorted(jobs, key=lambda job: -job.client):
            results.append(self._runtime.run_client(job, payload))
            for tensor in self._runtime.model.state_dict().values():
                tensor.zero_()
        yield from reversed(results)


class ClientFailedError(Exception):
    """The error that the kit raises in a client's turn."""


class Failing(Watch):
    """Raises an error in the trainer in one turn of round 2, once.

    Args:
        number: which turn of that round, from 1.
    """

    def __init__(self, number: int) -> None:
        self._number, self._turns = number, 0
        self._job: ClientJob | None = None

    def turn(
        self, job: ClientJob, run: Callable[[], ClientResult | ClientFailure]
    ) -> ClientResult | ClientFailure:
        """Count the turns of round 2, including those of its repetition, and run the turn."""
        counts = job.round == 2 and job.scored is None
        self._turns += counts
        self._job = job if counts and self._turns == self._number else None
        return run()

    def call(self, call: Call, run: Callable[[], Any]) -> Any:
        """Raise the error instead of training in that turn."""
        if self._job and call.hook == "train":
            where = f"round {self._job.round}, client {self._job.client}"
            raise ClientFailedError(f"the kit broke {where}")
        return run()


class Probe(Watch):
    """Records what hooks write into, what keeps a client's turn alive, and which terms train."""

    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        self._assigned: dict[str, Any] = {}

    def keep(self, where: str, key: str, value: Value) -> None:
        """Remember the content of what is assigned in this turn."""
        self._assigned[key] = fingerprint(value)

    def turn(
        self, job: ClientJob, run: Callable[[], ClientResult | ClientFailure]
    ) -> ClientResult | ClientFailure:
        """Run the turn, and compare what the client keeps with what was last assigned."""
        self._assigned = {key: fingerprint(value) for key, value in job.state.items()}
        answer = run()
        if isinstance(answer, ClientResult):
            for key, value in answer.state.items():
                if fingerprint(value) != self._assigned.get(key):
                    self._trace.states.append((key, f"round {job.round}, client {job.client}"))
        return answer

    def call(self, call: Call, run: Callable[[], Any]) -> Any:
        """Look at a hook's arguments and its result."""
        seen = self._before(call)
        result = self._train(call, run) if call.hook == "train" else run()
        self._after(call, seen, result)
        if call.hook == "receive_uploads" and isinstance(result, Iterator):
            return self._handed_on(call, result)
        return result

    def _train(self, call: Call, run: Callable[[], Any]) -> Any:
        """Run a trainer, and count the steps and the gradients of its pass."""
        ctx = call.arguments.get("ctx")
        work = ctx.training if ctx else call.arguments.get("work")
        if work is None:
            return run()
        counts = self._trace.passes.setdefault(call.plugin, [0, 0])
        inner = work.backward

        def backward(batch: Batch) -> None:
            counts[1] += 1
            inner(batch)

        vars(work)["backward"] = backward
        try:
            return run()
        finally:
            del vars(work)["backward"]
            counts[0] += work.steps

    def _handed_on(self, call: Call, results: Iterator[Any]) -> Iterator[Any]:
        """Yield the results, and note whose they are."""
        clients: list[int] = []
        self._trace.handed_on.append((call.plugin, clients))
        for result in results:
            clients.append(result.client)
            yield result

    def generate(self, call: Call, steps: Generator[Any, Any, Any]) -> Generator[Any, Any, Any]:
        """Look at the arguments before the first step and after the last one."""
        seen = self._before(call)
        if call.hook == "receive_uploads":
            steps = self._handed_on(call, steps)  # type: ignore[assignment]
        result = yield from steps
        self._after(call, seen, result)
        return result

    def _before(self, call: Call) -> tuple[dict[str, Any], Any]:
        """Return fingerprints of the arguments, and what the client received.

        It is looked up before the call, after which `ctx.payload` may be another payload.
        """
        given = call.arguments.values()
        for value in given:
            if isinstance(value, (ClientContext, Batch, Output)):
                what = {ClientContext: "the client's context", Batch: "a batch"}.get(
                    type(value), "the model's output, with its graph"
                )
                self._trace.references.append((weakref.ref(value), what, _where(call)))
        received = next((v.payload for v in given if isinstance(v, ClientContext)), None)
        return _contents(call.arguments, received), received

    def _after(self, call: Call, seen: tuple[dict[str, Any], Any], result: Any) -> None:
        before, received = seen
        trace, where = self._trace, _where(call)
        for name, content in _contents(call.arguments, received).items():
            # The innermost call sees the change first, and is the one that made it.
            known = any(
                what == name and at.endswith(_place(call.arguments)) for what, at in trace.writes
            )
            if content != before[name] and not known:
                trace.writes.append((name, where))
        if call.hook == "local_loss" and isinstance(result, Mapping):
            for term, value in result.items():
                key = call.plugin, term
                live = isinstance(value, Tensor) and value.requires_grad
                trace.terms[key] = trace.terms.get(key, False) or live
                if isinstance(value, Tensor):
                    trace.references.append((weakref.ref(value), f"loss term {term!r}", where))


def _where(call: Call) -> str:
    return f"plugin {call.plugin!r}, hook {call.hook!r}{_place(call.arguments)}"


def _place(given: Mapping[str, Any]) -> str:
    ctx = given.get("ctx")
    if isinstance(ctx, ClientContext):
        return f", {ctx.where}"
    if isinstance(ctx, ServerContext):
        return f", round {ctx.round}"
    if "client" in given:
        return f", client {given['client']}"
    return f", after round {given['state'].round}" if "state" in given else ""


def _contents(given: Mapping[str, Any], received: Any) -> dict[str, Any]:
    """Return the fingerprints of the arguments that a hook must not write into."""
    found = {}
    for name, value in given.items():
        if isinstance(value, ClientContext):
            found["ctx.payload"] = fingerprint(received)
            found["ctx.data"] = fingerprint(value.data)
        elif not isinstance(value, (ServerContext, Iterator)):
            found[name] = fingerprint(value)
    return found
