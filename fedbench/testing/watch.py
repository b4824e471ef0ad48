"""Looking on while a run goes: an executor that notes what plugins are given, return and keep.

It gets the run's plugins like any executor, and puts itself around every hook implementation.
Nothing of it changes a result.
"""

from __future__ import annotations

import hashlib
import inspect
import sys
import weakref
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..context import ClientContext, ServerContext
from ..executors.inline import InlineWorkers
from ..failures import ClientFailure
from ..plugins.rules import RUN_HOOKS
from ..types import Batch, ClientJob, ClientResult, Output, PerClass, Value, nbytes, tensors

ORDINARY = (bool, int, float, str, bytes, type(None))


def fingerprint(value: Any, depth: int = 6) -> Any:
    """Return something that changes when the content of ``value`` does.

    Tensors, arrays, containers and dataclass instances by content, all else by identity.
    """
    if isinstance(value, ORDINARY):
        return value if value == value else "nan"
    if isinstance(value, Tensor):
        plain = value.detach().cpu().contiguous().reshape(-1)
        raw = plain.view(torch.uint8).numpy().tobytes() if plain.numel() else b""
        return (str(value.dtype), tuple(value.shape), hashlib.blake2b(raw).digest())
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
    """What was seen in one run. Places are texts such as ``round 1, client 2``."""

    writes: list[tuple[str, str]] = field(default_factory=list)
    """(what was written into, where)."""
    kept: list[tuple[str, str]] = field(default_factory=list)
    """(what of a plugin or its module changed during the run, whose)."""
    uploads: list[tuple[str, str, str]] = field(default_factory=list)
    """(what is wrong with an upload, where, how to mend it)."""
    terms: dict[tuple[str, str], bool] = field(default_factory=dict)
    """(plugin, loss term) -> whether it ever depended on the model."""
    bytes_up: list[dict[str, int]] = field(default_factory=list)
    """What clients sent, by key, for each round."""
    references: list[tuple[Callable[[], Any], str, str]] = field(default_factory=list)
    """(weak reference, what it is to, where it was made)."""

    def alive(self) -> list[tuple[str, str]]:
        """Return what of the clients' turns is still in memory, as (what, where)."""
        return [(what, where) for ref, what, where in self.references if ref() is not None]


def watching(trace: Trace, rough: bool) -> type:
    """Return an executor that runs clients in this process and fills ``trace``.

    Args:
        trace: what to fill.
        rough: let the clients work in descending order, and wipe the model after each turn.
    """

    @dataclass(frozen=True, eq=False)
    class Watching:
        """Runs clients in this process and looks on."""

        def open(self, runtime: Any) -> Watchers:
            """Return the workers of a run."""
            return Watchers(runtime, trace, rough)

    return Watching


class Watchers:
    """The workers of the executor that `watching` returns."""

    def __init__(self, runtime: Any, trace: Trace, rough: bool) -> None:
        self._runtime, self._trace, self._rough = runtime, trace, rough
        self._kinds: dict[str, str] = {}
        self._before = self._plugins()
        probe(runtime.plugins, trace)

    def run(
        self, payload: Mapping[str, Value], jobs: Sequence[ClientJob]
    ) -> Iterator[ClientResult | ClientFailure]:
        """Yield the results in client-id order."""
        sent: Counter[str] = Counter()
        self._trace.bytes_up.append({})
        ready = []
        for job in sorted(jobs, key=lambda j: -j.client if self._rough else j.client):
            result = self._runtime.run_client(job, payload)
            where = f"round {job.round}, client {job.client}"
            uploads = result.uploads if isinstance(result, ClientResult) else {}
            for key, value in uploads.items():
                sent[key] += nbytes(value)
                self._look_at(key, value, where)
            self._trace.bytes_up[-1] = dict(sent)
            if not self._rough:
                yield result
                continue
            for tensor in self._runtime.model.state_dict().values():
                tensor.zero_()
            ready.append(result)
        yield from reversed(ready)

    def close(self) -> None:
        """Note what changed in the plugins."""
        model = weakref.ref(self._runtime.model)
        self._trace.references.append((model, "the run's model", ""))
        after = self._plugins()
        for place, (owner, found) in after.items():
            if self._before.get(place, (owner, None))[1] != found:
                self._trace.kept.append((place, owner))

    def _plugins(self) -> dict[str, tuple[str, Any]]:
        """Return the fingerprint of every place where a plugin could hide something."""
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
                if not key.startswith("__"):
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
                wrong(f"labels {labels.tolist()} are no classes", f"use classes 0..{classes - 1}")
            if value.counts.numel() and int(value.counts.min()) < 1:
                wrong("a row has no example behind it", "leave rows of classes without data out")
        kind = _kind(value)
        known = self._kinds.setdefault(key, kind)
        if kind != known:
            wrong(f"it is {kind}, and {known} before", "send one type under one key")


def _kind(value: Value) -> str:
    """Return type and element types in words."""
    kinds = sorted({str(t.dtype).removeprefix("torch.") for _, t in tensors(value)})
    name = type(value).__name__ if isinstance(value, (Tensor, PerClass)) else "mapping"
    return f"a {name} of {', '.join(kinds)}"


class ClientFailedError(Exception):
    """What the kit raises in a client's turn."""


def failing() -> type:
    """Return an executor in which the last client of round 2 fails, once."""
    targets: list[int] = []

    @dataclass(frozen=True, eq=False)
    class Failing:
        """Runs clients in this process; one fails."""

        def open(self, runtime: Any) -> FailingWorkers:
            """Return the workers of a run."""
            if not targets:
                for impl in runtime.plugins.hook.client_update.get_hookimpls():
                    if not impl.wrapper:
                        impl.function = function_of(impl)
            return FailingWorkers(runtime, targets)

    def function_of(impl: Any) -> Callable[..., Any]:
        train, place = impl.function, impl.argnames.index("ctx")

        def fails(*arguments: Any) -> Any:
            ctx = arguments[place]
            if ctx.round == 2 and ctx.client == targets[0]:
                raise ClientFailedError(f"the kit broke {ctx.where}")
            return train(*arguments)

        return fails

    return Failing


class FailingWorkers(InlineWorkers):
    """Clients one after the other; notes who is the last of round 2."""

    def __init__(self, runtime: Any, targets: list[int]) -> None:
        super().__init__(runtime)
        self._targets = targets

    def run(
        self, payload: Mapping[str, Value], jobs: Sequence[ClientJob]
    ) -> Iterator[ClientResult | ClientFailure]:
        """Yield the results in client-id order."""
        if jobs[0].round == 2:
            self._targets.append(max(job.client for job in jobs))
        yield from super().run(payload, jobs)


def probe(plugins: Any, trace: Trace) -> None:
    """Put a look at arguments and results around every hook implementation of a run."""
    for hook in RUN_HOOKS:
        for impl in getattr(plugins.hook, hook).get_hookimpls():
            impl.function = _watched(impl.function, impl.argnames, impl.plugin_name, hook, trace)


def _watched(
    function: Callable[..., Any], names: Sequence[str], plugin: str, hook: str, trace: Trace
) -> Callable[..., Any]:
    def before(arguments: Sequence[Any]) -> tuple[str, dict[str, Any], Any]:
        given = dict(zip(names, arguments, strict=True))
        place = _place(given)
        where = f"plugin {plugin!r}, hook {hook!r}{place}"
        for value in given.values():
            if isinstance(value, (ClientContext, Batch, Output)):
                what = {ClientContext: "the client's context", Batch: "a batch"}.get(
                    type(value), "the model's output, with its graph"
                )
                trace.references.append((weakref.ref(value), what, where))
        received = next((v.payload for v in given.values() if isinstance(v, ClientContext)), None)
        return where, _contents(given, received), received

    def after(
        where: str, seen: Mapping[str, Any], received: Any, arguments: Sequence[Any], result: Any
    ) -> None:
        # What was received before the call: `ctx.payload` may name another payload now.
        now = _contents(dict(zip(names, arguments, strict=True)), received)
        place = where.partition(", hook")[2].partition(",")[2]
        for name, content in now.items():
            # The innermost call is the first to see it, and the one to blame.
            known = any(what == name and at.endswith(place) for what, at in trace.writes)
            if content != seen[name] and not known:
                trace.writes.append((name, where))
        if hook == "local_loss" and isinstance(result, Mapping):
            for term, value in result.items():
                live = isinstance(value, Tensor) and value.requires_grad
                trace.terms[plugin, term] = trace.terms.get((plugin, term), False) or live
                if isinstance(value, Tensor):
                    trace.references.append((weakref.ref(value), f"loss term {term!r}", where))

    def call(*arguments: Any) -> Any:
        where, seen, received = before(arguments)
        result = function(*arguments)
        after(where, seen, received, arguments, result)
        return result

    def wrap(*arguments: Any) -> Generator[None, Any, Any]:
        where, seen, received = before(arguments)
        result = yield from function(*arguments)
        after(where, seen, received, arguments, result)
        return result

    return wrap if inspect.isgeneratorfunction(function) else call


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
    """Return the fingerprints of what a hook was given and may not write into."""
    found = {}
    for name, value in given.items():
        if isinstance(value, ClientContext):
            found["ctx.payload"] = fingerprint(received)
            found["ctx.data"] = fingerprint(value.data)
        elif not isinstance(value, (ServerContext, Iterator)):
            found[name] = fingerprint(value)
    return found
