"""The ``requires`` of each bundled plugin names exactly the plugins whose values it reads."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from fedbench import ClientContext, Run, RunConfig
from fedbench.executors.inline import Inline, InlineWorkers
from fedbench.plugins.registry import Registry
from fedbench.plugins.rules import RUN_HOOKS
from fedbench.types import Payload, Received

CORE = ""
"""The reader or writer when no plugin is at work."""


@dataclass
class Ledger:
    """Record who wrote each value that plugins share, and who read a value of another plugin.

    A key is told apart by its place: scratch, client state, broadcast, uploads or server state.
    """

    at_work: list[str] = field(default_factory=lambda: [CORE])
    owners: dict[tuple[str, str], str] = field(default_factory=dict)
    reads: dict[str, set[str]] = field(default_factory=dict)

    def write(self, place: str, key: str) -> None:
        self.owners.setdefault((place, key), self.at_work[-1])

    def read(self, place: str, key: str) -> None:
        reader, owner = self.at_work[-1], self.owners.get((place, key))
        if key == "weights" and place in ("the broadcast", "the uploads"):
            return  # core's key: plugins take the weights of whichever plugin sends them
        if reader != CORE and owner not in (None, reader):
            self.reads.setdefault(reader, set()).add(str(owner))

    @contextmanager
    def working(self, plugin: str) -> Iterator[None]:
        self.at_work.append(plugin)
        yield
        self.at_work.pop()


class Noted(MutableMapping[str, Any]):
    """A client's scratch or state that records its reads and writes in a ledger."""

    def __init__(self, ledger: Ledger, place: str, inner: Any) -> None:
        self._ledger, self._place, self._inner = ledger, place, inner
        self.sealed = getattr(inner, "sealed", None)

    def __getitem__(self, key: str) -> Any:
        self._ledger.read(self._place, key)
        return self._inner[key]

    def __contains__(self, key: object) -> bool:
        self._ledger.read(self._place, str(key))
        return key in self._inner

    def __setitem__(self, key: str, value: Any) -> None:
        self._ledger.write(self._place, key)
        self._inner[key] = value

    def __delitem__(self, key: str) -> None:
        del self._inner[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._inner)

    def __len__(self) -> int:
        return len(self._inner)


def place_of(payload: Payload) -> str:
    """Return the place that a payload is; all clients' uploads are one place."""
    return payload._where.partition(" of ")[0]


def watched(impl: Any, hook: str, ledger: Ledger) -> Callable[..., Any]:
    """Return the implementation, with its plugin at work in the ledger while it runs."""
    function, plugin = impl.function, impl.plugin_name

    def by_core(items: Iterator[Any]) -> Iterator[Any]:
        """Yield what the core computes on demand, such as the clients' results."""
        while True:
            with ledger.working(CORE):
                item = next(items, ledger)
            if item is ledger:
                return
            yield item

    def by_plugin(items: Iterator[Any]) -> Iterator[Any]:
        """Yield what the plugin computes on demand."""
        while True:
            with ledger.working(plugin):
                item = next(items, ledger)
            if item is ledger:
                return
            yield item

    def note(result: Any) -> Any:
        keys = {"broadcast": result, "init_server": result}.get(hook) or getattr(
            result, "entries", ()
        )
        for key in keys:
            ledger.write("the broadcast" if hook == "broadcast" else "the server's state", key)
        return result

    def call(*arguments: Any) -> Any:
        given = [by_core(a) if isinstance(a, Iterator) else a for a in arguments]
        with ledger.working(plugin):
            result = function(*given)
            return by_plugin(result) if isinstance(result, Iterator) else note(result)

    def wrap(*arguments: Any) -> Generator[None, Any, Any]:
        steps = function(*arguments)
        with ledger.working(plugin):
            next(steps)
        inner = yield
        with ledger.working(plugin), pytest.raises(StopIteration) as end:
            steps.send(inner)
        return end.value.value

    return wrap if impl.wrapper else call


@pytest.fixture
def reads(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> Callable[[RunConfig], dict[str, set[str]]]:
    """Run a config and return, for each plugin, the plugins whose values it read."""
    ledger = Ledger()
    begin, upload = ClientContext.__init__, ClientContext.upload
    contains = Payload.__contains__

    def opened(self: Inline, runtime: Any) -> InlineWorkers:
        for hook in RUN_HOOKS:
            for impl in getattr(runtime.plugins.hook, hook).get_hookimpls():
                impl.function = watched(impl, hook, ledger)
        return InlineWorkers(runtime)

    def begun(self: ClientContext, **given: Any) -> None:
        begin(self, **given)
        self.scratch = Noted(ledger, "scratch", {})
        self._state = Noted(ledger, "client state", self.state)

    def sent(self: ClientContext, key: str, *given: Any, **named: Any) -> None:
        ledger.write("the uploads", key)
        upload(self, key, *given, **named)

    def noted(look: Callable[..., Any]) -> Callable[..., Any]:
        def looked(self: Payload, key: str) -> Any:
            ledger.read(place_of(self), key)
            return look(self, key)

        return looked

    def contained(self: Payload, key: object) -> bool:
        ledger.read(place_of(self), str(key))
        return contains(self, key)

    monkeypatch.setattr(Inline, "open", opened)
    monkeypatch.setattr(ClientContext, "__init__", begun)
    monkeypatch.setattr(ClientContext, "upload", sent)
    for kind in (Payload, Received):
        monkeypatch.setattr(kind, "__getitem__", noted(kind.__getitem__))
    monkeypatch.setattr(Payload, "__contains__", contained)

    def found(config: RunConfig) -> dict[str, set[str]]:
        ledger.owners.clear()
        ledger.reads.clear()
        Run(config, registry=registry).run()
        assert ledger.at_work == [CORE]
        return dict(ledger.reads)

    return found


def required(registry: Registry, name: str) -> set[str]:
    return set(getattr(registry.get("plugin", name).value, "requires", ()))


@pytest.mark.every_method
def test_a_method_s_parts_require_what_they_read_and_nothing_else(
    method: str,
    registry: Registry,
    tiny_config: Callable[..., RunConfig],
    reads: Callable[[RunConfig], dict[str, set[str]]],
) -> None:
    found = reads(tiny_config(registry, method))
    parts = registry.get("recipe", method).value.plugins
    needs = {name: required(registry, name) for name in parts}
    if method == "fedhpro-published":
        needs["hpcl"] -= {"class_batches"}  # read for the margin only, which is off here
    if "dp" in needs:
        needs["dp"] -= {"uniform"}  # its epsilon is that of this sampling; no value is read
    assert {name: found.get(name, set()) for name in parts} == needs


@pytest.mark.parametrize("margin", ["off", "epoch", "batch"])
def test_hpcl_reads_class_batches_for_the_margin_per_round_only(
    margin: str,
    registry: Registry,
    tiny_config: Callable[..., RunConfig],
    reads: Callable[[RunConfig], dict[str, set[str]]],
) -> None:
    found = reads(tiny_config(registry, "fedhpro", extra={"hpcl": {"margin": margin}}))
    assert found["hpcl"] == {"hyper_prototypes"}


def test_the_plugins_of_no_method_require_nothing(registry: Registry) -> None:
    recipes = [registry.get("recipe", name).value for name in registry.names("recipe")]
    used = {name for recipe in recipes for name in recipe.plugins}
    for name in set(registry.names("plugin")) - used:
        assert required(registry, name) == set(), name


def test_faults_read_what_others_send_and_work_without_any_of_them(
    registry: Registry,
    tiny_config: Callable[..., RunConfig],
    reads: Callable[[RunConfig], dict[str, set[str]]],
) -> None:
    given = {"failures": {"policy": "skip"}, "rounds": 3}
    stale = {"faults": {"stale": 1.0}}
    found = reads(tiny_config(registry, "fedproto", extra=stale, **given))
    assert found["faults"] == {"fedproto"}
    found = reads(tiny_config(registry, "fedproto-aaai", extra=stale, **given))
    assert found["faults"] == {"fedproto"}
    assert required(registry, "faults") == set()
