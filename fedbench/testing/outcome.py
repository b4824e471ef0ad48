"""Ways to run a subject, the outcome of a run, and how two outcomes differ."""

from __future__ import annotations

import json
import os
import random
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from ..engine.totals import canonical_round
from ..errors import ConfigError, FedbenchError
from ..types import RoundResult
from .breach import Breach
from .watch import Trace


@dataclass
class Outcome:
    """How a run ended."""

    rounds: list[RoundResult] = field(default_factory=list)
    weights: dict[str, Any] = field(default_factory=dict)
    entries: dict[str, Any] = field(default_factory=dict)
    error: BaseException | None = None
    trace: Trace = field(default_factory=Trace)
    failure: BaseException | None = None
    """The error that ended a run in which the kit made a client fail, before it was resumed."""


@dataclass(frozen=True)
class Setting:
    """One way to run a subject.

    Args:
        executor: the executor's name; with ``kit_watch``, hook calls are watched too.
        data: options of the kit's data.
        partition: how the kit divides it.
        one: one client per round.
        fails: which turn of round 2 the kit makes fail, from 1; 0 for none.
        stop: ``""``, ``"interrupted"`` after round 1, or ``"failed"`` in that turn; a stopped run
            is then resumed.
        policy: what happens when a client fails, as in the config's ``failures``.
        again: the number of the repetition, so that a repeated run is not taken from the cache.
        rounds: how many.
        second: whether each turn begins with a further pass, which is not recorded.
        every: which rounds are scored, as ``evaluate_every``.
    """

    executor: str = "kit_watch"
    workers: int = 0
    data: tuple[tuple[str, Any], ...] = ()
    partition: str = "plain"
    one: bool = False
    fails: int = 0
    stop: str = ""
    policy: str = "fail"
    again: int = 0
    rounds: int = 2
    second: bool = False
    every: int = 1


PLAIN = Setting()


def failed(error: BaseException, why: str = "") -> Breach:
    """Return the breach of a run that ended with ``error``."""
    notes = ", ".join(getattr(error, "__notes__", []))
    kind = "" if isinstance(error, FedbenchError) else f"{type(error).__name__}: "
    mend = ""
    if isinstance(error, ConfigError) and "required" in str(error):
        mend = "give the kit the option: testing.rules(kind, name, options={...})"
    return Breach(f"the run{why} ended with an error: {kind}{error}", notes, mend)


def difference(one: Outcome, other: Outcome) -> str:
    """Return where two runs first differ, in words; ``""`` when they are bit-identical."""
    for a, b in zip(one.rounds, other.rounds, strict=False):
        if canonical_round(a) != canonical_round(b):
            mine, its = (dict(_flat(json.loads(canonical_round(r)))) for r in (a, b))
            for key in sorted(set(mine) | set(its)):
                if mine.get(key) != its.get(key):
                    return f"round {a.round}: {key} is {mine.get(key)} and {its.get(key)}"
    if len(one.rounds) != len(other.rounds):
        return f"{len(one.rounds)} and {len(other.rounds)} rounds"
    for what, left, right in (
        ("weight", one.weights, other.weights),
        ("server entry", one.entries, other.entries),
    ):
        for key in sorted(set(left) | set(right)):
            if left.get(key) != right.get(key):
                return f"{what} {key!r} differs after the last round"
    return ""


def _flat(data: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(data, dict):
        for key, value in data.items():
            yield from _flat(value, f"{path}.{key}" if path else key)
    else:
        yield path, data


def in_a_fork(part: Callable[[], object]) -> bool:
    """Do something in a fork of this process; return whether it ended without an error.

    Also false where processes cannot be forked.
    """
    if not hasattr(os, "fork"):
        return False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # on threads, which have nothing to do
        child = os.fork()
    if child:
        return os.waitpid(child, 0)[1] == 0
    status = 1
    try:
        part()
        status = 0
    finally:
        os._exit(status)


@contextmanager
def shuffled(number: int) -> Iterator[None]:
    """Seed every global generator with ``number`` for a block, and restore them after it.

    A plugin that draws from one of them then gets different numbers in every run.
    """
    before = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[]):
            random.seed(number)
            np.random.seed(number)
            torch.manual_seed(number)
            yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
