"""The error with which a check reports what it found; every module of the kit may raise it."""

from __future__ import annotations


class Breach(Exception):
    """What is wrong, where, and how to mend it; `Rule.check` turns it into a `RuleBroken`."""

    def __init__(self, what: str, where: str = "", mend: str = "") -> None:
        super().__init__(what)
        self.what, self.where, self.mend = what, where, mend
