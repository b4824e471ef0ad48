"""What a check found; every module of the kit may raise it."""

from __future__ import annotations


class Breach(Exception):
    """What a check found: what is wrong, and where. `Rule.check` makes a `RuleBroken` of it."""

    def __init__(self, what: str, where: str = "", mend: str = "") -> None:
        super().__init__(what)
        self.what, self.where, self.mend = what, where, mend
