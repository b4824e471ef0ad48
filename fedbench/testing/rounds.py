"""Rules for methods and run plugins, checked on real rounds."""

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
    """Two rounds on tiny data run to their end with the default options.

    Mend: read the error; it names the plugin, the hook and the client where they are known.
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
        raise Breach(f"a run {what} is another than the plain one: {found}")


@rule(*RUN)
def same_twice(subject: Subject) -> None:
    """The same config gives the same bits when it is run again in the same process.

    Mend: draw random numbers from `ctx.rng(...)` or the `rng` that the hook is given, never from a
    global generator, a clock or the order of a set; keep nothing outside the server's and the
    clients' states.
    """
    _same(subject, Setting("inline", again=1), "once more")


@rule(*RUN)
def any_order(subject: Subject) -> None:
    """The same bits come out when clients work in another order and the model is wiped in between.

    Mend: a client's turn may depend on the job, the payload and the client's own state only; let
    it neither read what another client left behind nor remember the model.
    """
    _same(subject, Setting("kit_rough"), "with the clients in descending order")


@rule(*RUN)
def one_worker(subject: Subject) -> None:
    """The same bits come out when clients run in a worker process.

    Mend: nothing but uploads gets from a client to the server, and nothing but the broadcast back;
    what a plugin writes into itself or its module stays in the worker.
    """
    _same(subject, Setting("pool", workers=1), "in a pool of 1 worker")


@rule(*RUN)
def two_workers(subject: Subject) -> None:
    """The same bits come out when clients run in two worker processes.

    Mend: as for `one-worker`; what a client keeps for its next turn belongs into `ctx.state`,
    since that turn may come in the other process.
    """
    _same(subject, Setting("pool", workers=2), "in a pool of 2 workers")


@rule(*RUN)
def resumed(subject: Subject) -> None:
    """A run that is interrupted after a round and resumed ends with the same bits.

    Mend: keep what lasts between rounds in `ServerUpdate(entries=...)` or `ctx.state`: the
    checkpoint holds those and the weights, and nothing else.
    """
    _same(
        subject,
        Setting("inline", stop="interrupted"),
        "that was interrupted after round 1 and resumed",
    )


def _last_turn(plain: Outcome) -> int:
    """Return the number of the last turn of round 2: all others of the round are done before it."""
    return len(plain.rounds[1].clients)


@rule(*RUN)
def failing_client(subject: Subject) -> None:
    """A client that fails ends the run with its error, and the resumed run ends with the same bits.

    Mend: let errors through that `yield` raises in a client_update wrapper, and keep nothing of a
    round outside the states: it is played again from its start.
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
        raise Breach(f"resumed after a client failed, the run is another: {found}")


@rule(*RUN)
def skipped_client(subject: Subject) -> None:
    """Under `failures.policy: skip` the round goes on without a client that failed.

    Mend: don't count on a report or an upload of every client that was selected: take those that
    the hook is given.
    """
    why = " that goes on without a failing client"
    last = _last_turn(subject.plain())
    _finite(subject, Setting("inline", policy="skip", fails=last), why)


@rule(*RUN, applies=_kits_selection)
def some_clients(subject: Subject) -> None:
    """Rounds in which only one client takes part work.

    Mend: don't count on every client, class or domain in a round: take what the reports hold, and
    keep or leave out the rest.
    """
    _finite(subject, Setting("inline", one=True), " with one client a round")


@rule(*RUN, applies=_kits_clients)
def one_client(subject: Subject) -> None:
    """A federation of a single client works.

    Mend: guard what compares clients with each other, for example a division by their number less
    one.
    """
    _finite(subject, Setting("inline", partition="one_client"), " with a single client")


@rule(*RUN, applies=_kits_clients)
def one_class(subject: Subject) -> None:
    """Clients with one class and a class that nobody holds work; data of a single class work, too,
    or are refused by a ConfigError.

    Mend: use `PerClass`, which has rows only for the classes that are there; guard what compares
    classes with each other.
    """
    _finite(subject, Setting("inline", partition="one_class"), " with one class a client")
    single = Setting("inline", data=(("classes", 1),))
    if not isinstance(subject.run(single).error, ConfigError):
        _finite(subject, single, " on data of one class")


@rule(*RUN, applies=_kits_clients)
def last_batch_of_one(subject: Subject) -> None:
    """Batches of a single example work: as a client's last one, and as its only one.

    Mend: guard statistics over a batch, such as a standard deviation, and pairs within it.
    """
    _finite(subject, Setting("inline", partition="odd"), " with batches of one example")


def _finite(subject: Subject, setting: Setting, why: str) -> None:
    subject.plain()
    outcome = subject.must(setting, why)
    for result in outcome.rounds:
        for name, value in result.metrics.items():
            if not math.isfinite(value):
                raise Breach(f"the number {name!r} is {value}{why}", f"round {result.round}")


@rule(*RUN)
def finite_losses(subject: Subject) -> None:
    """Every loss term and number of a round is finite, and every loss term trains the model.

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
    """What travels has one type under one key, finite values, valid classes, and counted bytes.

    Mend: upload a tensor, a `PerClass` (int64 labels and counts, a row for each class that is
    there) or tensors by name, with `ctx.upload`.
    """
    outcome = subject.plain()
    for what, where, mend in outcome.trace.uploads:
        raise Breach(what, where, mend)
    for result, sent in zip(outcome.rounds, outcome.trace.bytes_up, strict=True):
        if dict(result.bytes_up) != sent:
            raise Breach(
                f"clients sent {sent} bytes and {dict(result.bytes_up)} were counted",
                f"round {result.round}",
            )


@rule(*RUN)
def no_hidden_state(subject: Subject) -> None:
    """Plugin objects, their classes and their modules are after a run what they were before it.

    Mend: hold options only; what lasts belongs into `ServerUpdate(entries=...)` or `ctx.state`,
    what one turn shares into `ctx.scratch`.
    """
    for what, owner in subject.plain().trace.kept:
        raise Breach(f"{what} changed during a run", owner)


@rule(*RUN)
def no_live_references(subject: Subject) -> None:
    """Nothing of a client's turn is alive after it: no context, batch, model or graph.

    Mend: upload with `ctx.upload`, which sends a detached copy; keep tensors in `ctx.state` or
    `ctx.scratch`, not in the plugin, its module or a cache.
    """
    for _, what, where in subject.plain().trace.references:
        raise Breach(f"{what} is still alive after the run", where)


@rule(*RUN)
def inputs_untouched(subject: Subject) -> None:
    """A hook does not write into what it is given, but for the model, the state and the scratch.

    Mend: compute new tensors (`x = x * 2`, not `x *= 2`; `clone()` first), and return what changes;
    a wrapper may set `ctx.payload` to another payload.
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
    """Every client gets examples, no example goes to two clients, and the random stream decides.

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
        raise Breach("one random stream gives two partitions")


@rule("partition", "plugin", applies=_divides)
def too_little_data(subject: Subject) -> None:
    """With fewer examples than clients, a partition works or says in one line what would.

    Mend: raise `ConfigError` that names the option and a value that would work.
    """
    error = subject.run(Setting(data=(("examples", 3),))).error
    if error is not None and not (isinstance(error, ConfigError) and "\n" not in str(error)):
        raise failed(error, " on six examples") from error
