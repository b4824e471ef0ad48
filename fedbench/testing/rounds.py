"""Rules for methods and run plugins, checked by playing real rounds."""

from __future__ import annotations

import inspect
import math
from pathlib import Path

from ..errors import ConfigError
from ..random import Streams
from .breach import Breach
from .outcome import Outcome, Setting, difference, failed
from .rule import rule
from .subject import RUN, Subject, build
from .tiny import TinyData
from .watch import ClientFailedError


def _divides(subject: Subject) -> bool:
    return subject.gives("partition")


def _kits_clients(subject: Subject) -> bool:
    """Whether the kit can choose what the clients hold."""
    return not _divides(subject)


def _kits_selection(subject: Subject) -> bool:
    return not subject.gives("select_clients")


@rule(*RUN)
def smoke_round(subject: Subject) -> None:
    """Two rounds on tiny data finish without an error, with the default options.

    Mend: read the error; it names the plugin, the hook and the client if they are known.
    """
    outcome = subject.must()
    for result in outcome.rounds:
        for rule_name, metrics in result.scores.items():
            if not metrics:
                raise Breach("a round has no score", f"round {result.round}, {rule_name}")


def _same(subject: Subject, other: Setting, what: str) -> None:
    plain = subject.plain()
    found = difference(plain, subject.must(other, f" {what}"))
    if found:
        raise Breach(f"a run {what} differs from the plain one: {found}")


@rule(*RUN)
def same_twice(subject: Subject) -> None:
    """The same config gives the same bits when it is run again in the same process.

    Mend: draw random numbers from `ctx.rng(...)` or from the hook's argument `rng`, never from a
    global generator, a clock or the order of a set; keep nothing outside the states of the server
    and the clients.
    """
    _same(subject, Setting("inline", again=1), "once more")


@rule(*RUN)
def any_order(subject: Subject) -> None:
    """A run gives the same bits with clients in another order and the model wiped in between.

    Mend: let a client's turn depend only on the job, the payload and the client's own state; it
    must neither read what another client left behind nor remember the model.
    """
    _same(subject, Setting("kit_rough"), "with the clients in descending order")


@rule(*RUN)
def one_worker(subject: Subject) -> None:
    """A run gives the same bits when clients run in one worker process.

    Mend: send to the server only by `ctx.upload`, and to the clients only by `broadcast`; what a
    plugin writes into itself or its module stays in the worker.
    """
    _same(subject, Setting("pool", workers=1), "in a pool of 1 worker")


@rule(*RUN)
def two_workers(subject: Subject) -> None:
    """A run gives the same bits when clients run in two worker processes.

    Mend: as for `one-worker`; put what a client keeps for its next turn into `ctx.state`, because
    that turn may run in the other process.
    """
    _same(subject, Setting("pool", workers=2), "in a pool of 2 workers")


@rule(*RUN)
def resumed(subject: Subject) -> None:
    """A run that is interrupted after a round and then resumed gives the same bits.

    Mend: keep what lasts between rounds in `ServerUpdate(entries=...)` or `ctx.state`: the
    checkpoint holds those and the weights, and nothing else.
    """
    _same(
        subject,
        Setting("inline", stop="interrupted"),
        "that was interrupted after round 1 and resumed",
    )


def _waits_for_all(subject: Subject) -> bool:
    """Whether every turn ends in the round in which it starts."""
    return not subject.uses("schedule")


def _last_turn(plain: Outcome) -> int:
    """Return the number of the last turn of round 2, before which all others of it are done."""
    return len(plain.rounds[1].clients)


@rule(*RUN, applies=_waits_for_all)
def failing_client(subject: Subject) -> None:
    """A failing client ends the run with its error, and the resumed run gives the same bits.

    Mend: do not catch errors that `yield` raises in a client_update wrapper, and keep nothing of a
    round outside the states: the round is played again from its start.
    """
    plain = subject.plain()
    outcome = subject.must(
        Setting("inline", stop="failed", fails=_last_turn(plain)), " with a failing client"
    )
    error = outcome.failure
    if not isinstance(error, ClientFailedError):
        raise Breach(f"the client's error was lost; the run ended with {error!r}") from error
    found = difference(plain, outcome)
    if found:
        raise Breach(f"a run resumed after a client failed differs from the plain one: {found}")


@rule(*RUN)
def skipped_client(subject: Subject) -> None:
    """With `failures.policy: skip`, a round continues without a client that failed.

    Mend: don't expect a report or an upload from every selected client: use those that the hook
    receives.
    """
    why = " that continues without a failing client"
    plain = subject.plain()
    if len(plain.rounds[-1].clients) == 1:
        return  # without its only client no round can continue
    last = _last_turn(plain)
    _finite(subject, Setting("inline", policy="skip", fails=last), why)


@rule(*RUN, applies=_kits_selection)
def some_clients(subject: Subject) -> None:
    """Rounds with only one participating client work, or are refused with a ConfigError.

    Mend: don't expect every client, class or domain in a round: use what the reports hold, and
    keep the old values of the rest or leave them out. What needs several clients says how many.
    """
    _works_or_refuses(subject, Setting("inline", one=True), " with one client per round")


@rule(*RUN, applies=_kits_clients)
def one_client(subject: Subject) -> None:
    """A federation of a single client works, or is refused with a ConfigError.

    Mend: guard what compares clients with each other, for example a division by the number of
    clients minus one. What needs several clients says how many.
    """
    _works_or_refuses(subject, Setting("inline", partition="one_client"), " with a single client")


@rule(*RUN, applies=_kits_clients)
def one_class(subject: Subject) -> None:
    """Two clients that hold one class each, a class that no client holds, and data with a single
    class: each works or is refused with a ConfigError.

    Mend: use `PerClass`, which has rows only for the classes that are present; guard what compares
    classes with each other.
    """
    held = Setting("inline", partition="one_class")
    _works_or_refuses(subject, held, " with one class per client")
    _works_or_refuses(subject, Setting("inline", data=(("classes", 1),)), " on data of one class")


@rule(*RUN, applies=_kits_clients)
def last_batch_of_one(subject: Subject) -> None:
    """Batches of a single example work, both as a client's last batch and as its only one.

    Mend: guard statistics over a batch, such as a standard deviation, and pairs within a batch.
    """
    _finite(subject, Setting("inline", partition="odd"), " with batches of one example")


def _works_or_refuses(subject: Subject, setting: Setting, why: str) -> None:
    if not isinstance(subject.run(setting).error, ConfigError):
        _finite(subject, setting, why)


def _finite(subject: Subject, setting: Setting, why: str) -> None:
    subject.plain()
    outcome = subject.must(setting, why)
    for result in outcome.rounds:
        for name, value in result.metrics.items():
            if not math.isfinite(value):
                raise Breach(f"the number {name!r} is {value}{why}", f"round {result.round}")


@rule(*RUN)
def finite_losses(subject: Subject) -> None:
    """All loss terms and metrics of a round are finite, and every loss term trains the model.

    Mend: guard divisions, logarithms and norms against zero; don't `detach` the whole term or
    compute it under `no_grad`.
    """
    _finite(subject, Setting(), "")
    for (plugin, term), trains in subject.plain().trace.terms.items():
        if not trains:
            where = f"plugin {plugin!r}, hook 'local_loss'"
            raise Breach(f"no gradient of the loss term {term!r} reaches the model", where)


@rule(*RUN)
def typed_uploads(subject: Subject) -> None:
    """Each upload key has one type, finite values and valid classes, and its bytes are counted.

    Mend: upload a tensor, a `PerClass` (int64 labels and counts, a row for each class that is
    present) or tensors by name, with `ctx.upload`.
    """
    outcome = subject.plain()
    for what, where, mend in outcome.trace.uploads:
        raise Breach(what, where, mend)
    counted = zip(outcome.rounds, outcome.trace.bytes_up, strict=True)
    for result, sent in counted if _waits_for_all(subject) else ():
        if dict(result.bytes_up) != sent:
            raise Breach(
                f"clients sent {sent} bytes and {dict(result.bytes_up)} were counted",
                f"round {result.round}",
            )


@rule(*RUN)
def no_hidden_state(subject: Subject) -> None:
    """A run changes neither the plugin objects nor their classes and modules.

    Mend: let the plugin hold options only; put what lasts into `ServerUpdate(entries=...)` or
    `ctx.state`, and what is shared within one turn into `ctx.scratch`.
    """
    for what, owner in subject.plain().trace.kept:
        raise Breach(f"{what} changed during a run", owner)


@rule(*RUN)
def no_live_references(subject: Subject) -> None:
    """Nothing of a client's turn outlives it: no context, batch, model or autograd graph.

    Mend: upload with `ctx.upload`, which sends a detached copy; keep tensors in `ctx.state` or
    `ctx.scratch`, not in the plugin, its module or a cache.
    """
    for _, what, where in subject.plain().trace.references:
        raise Breach(f"{what} is still alive after the run", where)


@rule(*RUN)
def inputs_untouched(subject: Subject) -> None:
    """A hook does not write into its arguments, except the model, `ctx.state` and `ctx.scratch`.

    Mend: compute new tensors (`x = x * 2`, not `x *= 2`; or `clone()` first) and return what
    changes; a wrapper may set `ctx.payload` to another payload.
    """
    for what, where in subject.plain().trace.writes:
        raise Breach(f"it writes into {what!r}", where)


@rule(*RUN)
def kept_as_assigned(subject: Subject) -> None:
    """A client keeps what was assigned to `ctx.state`; nothing writes into it later.

    Mend: compute a new tensor and assign it: `ctx.state[key] = ctx.state[key] + 1`, not
    `ctx.state[key].add_(1)`; do not load a value that was read from the state into a model with
    `load_state_dict(..., assign=True)`, because training would then change it.
    """
    for key, where in subject.plain().trace.states:
        raise Breach(f"the value kept under {key!r} is not the one that was assigned", where)


@rule("partition", "plugin", applies=_divides)
def partition(subject: Subject) -> None:
    """Every client gets examples, no two clients share one, and all randomness comes from `rng`.

    Mend: build one array with the owner of each example, and split it by owner; draw from `rng`.
    """
    data = TinyData(examples=300).load(Path())
    plugin = build(subject.cls, subject.options)
    wanted = inspect.signature(plugin.partition).parameters
    drawn = []
    for _ in range(2):
        given = {"data": data, "rng": Streams(0).numpy("partition")}
        try:
            found = plugin.partition(**{name: given[name] for name in wanted})
        except Exception as error:
            raise failed(error) from error
        drawn.append([[int(i) for i in part] for part in found])
    if not all(drawn[0]) or not drawn[0]:
        raise Breach(f"of {len(drawn[0])} clients, {drawn[0].count([])} have no example")
    owner: dict[int, int] = {}
    for client, part in enumerate(drawn[0]):
        for index in part:
            if owner.setdefault(index, client) != client or part.count(index) > 1:
                raise Breach(f"example {index} goes to clients {owner[index]} and {client}")
    if drawn[0] != drawn[1]:
        raise Breach("the same random stream gives two different partitions")


@rule("partition", "plugin", applies=_divides)
def too_little_data(subject: Subject) -> None:
    """With fewer examples than clients, a partition works or says in one line what would work.

    Mend: raise a `ConfigError` that names the option and a value that would work.
    """
    error = subject.run(Setting(data=(("examples", 3),))).error
    if error is not None and not (isinstance(error, ConfigError) and "\n" not in str(error)):
        raise failed(error, " on six examples") from error
