"""Rules for what a plugin does besides a turn's training: trainers, results, scoring."""

from __future__ import annotations

from dataclasses import replace

from .breach import Breach
from .outcome import Outcome, Setting, difference
from .rule import rule
from .subject import Subject


def _trains(subject: Subject) -> bool:
    return subject.gives("train")


def _personalizes(subject: Subject) -> bool:
    return subject.uses("personalize")


def _is_untimed(subject: Subject) -> bool:
    """Whether what a turn trains on besides takes no virtual time."""
    return not (subject.uses("duration") or subject.uses("schedule"))


def _receives(subject: Subject) -> bool:
    return subject.uses("receive_uploads")


@rule("plugin", applies=_trains)
def trainer(subject: Subject) -> None:
    """A trainer takes its batches from `work.batches` and its gradients from `work.backward`.

    Mend: write `for batch in work.batches(batch_size, epochs): work.backward(batch)` and then
    change `work.parameters` in place; `ctx.batches` and `ctx.loss` know nothing of the pass.
    """
    for plugin, (steps, gradients) in subject.plain().trace.passes.items():
        where = f"plugin {plugin!r}, hook 'train'"
        if not steps:
            raise Breach("no batch was taken from work.batches", where)
        if not gradients:
            raise Breach("work.backward was never called", where)


@rule("method", "plugin", applies=_is_untimed)
def further_pass(subject: Subject) -> None:
    """A further pass in a turn, on another model and not recorded, changes no bit of the run.

    Mend: keep nothing of `local_loss` but what is assigned to `ctx.scratch`, and assign new values
    (`[*old, new]`) instead of changing old ones in place; what is in the scratch after a pass that
    is not recorded is what was there before it.
    """
    found = difference(subject.plain(), subject.must(Setting("inline", second=True)))
    if found:
        raise Breach(f"a run with a further pass in each turn differs from the plain one: {found}")


@rule("method", "plugin", applies=_receives)
def results_in_order(subject: Subject) -> None:
    """`receive_uploads` hands results on in the order in which they arrive.

    Mend: write `for result in results: yield result.with_uploads(...)`; what needs all results
    belongs in `server_update`.
    """
    for plugin, clients in subject.plain().trace.handed_on:
        if clients != sorted(clients):
            where = f"plugin {plugin!r}, hook 'receive_uploads'"
            raise Breach(f"the results of clients {clients} come in this order", where)


@rule("method", "plugin", applies=_personalizes)
def scoring(subject: Subject) -> None:
    """`personalize` changes nothing but `ctx.model`: later rounds do not depend on what is scored.

    Mend: keep nothing in the plugin; what a client keeps is assigned in its turn.
    """
    rare = _unscored(subject.must(Setting("inline", every=2), " scored in round 2 only"))
    found = difference(_unscored(subject.plain()), rare)
    if found:
        raise Breach(f"a run that is scored in round 2 only differs from the plain one: {found}")


def _unscored(outcome: Outcome) -> Outcome:
    rounds = [replace(result, scores={}) for result in outcome.rounds]
    return Outcome(rounds, outcome.weights, outcome.entries)
