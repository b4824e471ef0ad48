"""The interface for watching a run: every hook call, phase and client's turn.

To time a run or to check what its plugins do, subclass `Watch` and pass an instance to
`fedbench.engine.run.Run`; nothing is patched. Without a watch, plugins are called directly.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from .failures import ClientFailure
    from .types import ClientJob, ClientResult, Value

T = TypeVar("T")

_NO_PHASE = nullcontext()


@dataclass(frozen=True)
class Call:
    """One call of one plugin's implementation of a hook.

    Args:
        hook: the hook's name.
        plugin: the plugin's name.
        arguments: the arguments that the implementation takes, by name.
    """

    hook: str
    plugin: str
    arguments: Mapping[str, Any]


class Watch:
    """Observes a run without changing it. This one does nothing; subclasses override methods.

    Worker processes on this machine are forked with the run's watch: what it records in a client's
    turn stays in that process unless `turn` adds it to the result and `arrive` removes it again. A
    node of a cluster builds its own runtime and has no watch.
    """

    def call(self, call: Call, run: Callable[[], Any]) -> Any:
        """Make a hook call with ``run()``; return what the caller gets."""
        return run()

    def generate(self, call: Call, steps: Generator[Any, Any, Any]) -> Generator[Any, Any, Any]:
        """Make a hook call whose implementation yields: a wrapper, or an iterator of values."""
        return (yield from steps)

    def phase(self, name: str) -> AbstractContextManager[None]:
        """Return a context manager for a step of a round; phases and calls nest."""
        return _NO_PHASE

    def keep(self, where: str, key: str, value: Value) -> None:
        """See what a hook assigns to ``ctx.state[key]``, before it is copied.

        Args:
            where: whose turn it is: ``round 3, client 7``.
            key: the key.
            value: as the hook gave it.
        """

    def turn(
        self, job: ClientJob, run: Callable[[], ClientResult | ClientFailure]
    ) -> ClientResult | ClientFailure:
        """Run a client's turn with ``run()``, in its worker's process; return what travels."""
        return run()

    def arrive(self, answer: ClientResult | ClientFailure) -> ClientResult | ClientFailure:
        """Return a turn's answer without what `turn` added to it; called on the server."""
        return answer


UNWATCHED = Watch()
"""The watch of a run that nobody watches."""


def each(watch: Watch, name: str, values: Iterable[T]) -> Iterator[T]:
    """Yield ``values``; the wait for each one is a phase called ``name``."""
    iterator = iter(values)
    while True:
        with watch.phase(name):
            try:
                value = next(iterator)
            except StopIteration:
                return
        yield value


class Watched:
    """Stands in for a plugin: it has the same hooks, each observed by a watch.

    Args:
        name: the plugin's name.
        plugin: the plugin.
        hooks: the names of its methods to stand in for.
        watch: what observes their calls.
    """

    def __init__(self, name: str, plugin: object, hooks: Iterable[str], watch: Watch) -> None:
        vars(self).update({hook: _seen(watch, name, hook, getattr(plugin, hook)) for hook in hooks})


def _seen(watch: Watch, plugin: str, hook: str, method: Callable[..., Any]) -> Callable[..., Any]:
    """Return ``method`` observed by ``watch``.

    The result has the method's argument names and marker, and is a generator function if the method
    is one, because pluggy looks at all three.
    """
    names = tuple(inspect.signature(method).parameters)

    def seen(*arguments: Any) -> Any:
        call = Call(hook, plugin, dict(zip(names, arguments, strict=True)))
        return watch.call(call, lambda: method(*arguments))

    def generated(*arguments: Any) -> Generator[Any, Any, Any]:
        call = Call(hook, plugin, dict(zip(names, arguments, strict=True)))
        return (yield from watch.generate(call, method(*arguments)))

    return wraps(method)(generated if inspect.isgeneratorfunction(method) else seen)
