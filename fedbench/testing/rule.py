"""Rules, and the error that a broken rule raises."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

from .breach import Breach
from .subject import Subject

Check: TypeAlias = Callable[[Subject], None]
C = TypeVar("C", bound=Check)


class RuleBroken(AssertionError):
    """A plugin breaks a rule.

    Attributes:
        rule: the rule's name.
        subject: kind and name of what was checked, ``plugin 'fedprox'``.
        what: what was found.
        where: plugin, hook, round, client or key, as far as known.
        mend: how to fix it.
    """

    def __init__(self, rule: Rule, what: str, where: str, mend: str) -> None:
        self.rule, self.subject = rule.name, rule.subject.label
        self.what, self.where, self.mend = what, where, mend
        place = f"\n  where: {where}" if where else ""
        super().__init__(
            f"{self.subject} breaks the rule {rule.name!r}: {rule.statement}\n"
            f"  found: {what}{place}\n  mend: {mend}"
        )


@dataclass(frozen=True, eq=False)
class Spec:
    """A rule before it is applied to anything.

    Args:
        name: a short name, used as test id.
        kinds: what it applies to.
        statement: one sentence.
        mend: how to fix what breaks it, unless the check says something more specific.
        test: the check.
        applies: whether it applies to a given subject of these kinds.
    """

    name: str
    kinds: tuple[str, ...]
    statement: str
    mend: str
    test: Check
    applies: Callable[[Subject], bool]


SPECS: list[Spec] = []
"""Every rule, in the order of the documentation."""


def rule(
    *kinds: str, applies: Callable[[Subject], bool] = lambda subject: True
) -> Callable[[C], C]:
    """Register a check as a rule; its docstring is the statement and, after ``Mend:``, the fix.

    Args:
        kinds: what it applies to.
        applies: whether it applies to a given subject of these kinds.
    """

    def register(check: C) -> C:
        text = " ".join((inspect.getdoc(check) or "").split())
        statement, _, mend = text.partition(" Mend: ")
        assert mend, f"{check.__name__} needs a docstring with a part 'Mend:'"
        name = check.__name__.replace("_", "-")
        SPECS.append(Spec(name, kinds, statement, mend, check, applies))
        return check

    return register


@dataclass(frozen=True, eq=False)
class Rule:
    """One rule for one plugin; ``str(rule)`` is its name."""

    subject: Subject
    _spec: Spec

    @property
    def name(self) -> str:
        """The rule's name, as in the table of the documentation."""
        return self._spec.name

    @property
    def statement(self) -> str:
        """What the rule demands, in one sentence."""
        return self._spec.statement

    def __str__(self) -> str:
        return self.name

    def check(self) -> None:
        """Check the rule.

        Raises:
            RuleBroken: when it is broken; says what is wrong, where, and how to fix it.
            unittest.SkipTest: when it can't be checked because an optional package or the files
                of a data set are missing; says which. pytest and unittest report it as skipped.
        """
        try:
            self._spec.test(self.subject)
        except Breach as found:
            mend = found.mend or self._spec.mend
            raise RuleBroken(self, found.what, found.where, mend) from found.__cause__
