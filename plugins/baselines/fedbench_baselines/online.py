"""When a device is online: the times at which it can work and travel, repeated in every period."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import count

LEFT_OUT = "clients.left_out"
"""Key of the server's scratch in a round from which clients that are offline were left out."""


@dataclass(frozen=True)
class Online:
    """When a device is online, again in every period.

    Args:
        spells: (from, until) in seconds, ascending, disjoint, at least one, within the period.
        period: seconds.
    """

    spells: tuple[tuple[float, float], ...]
    period: float

    def wait(self, now: float) -> float:
        """Return how many seconds from ``now`` the device is online; 0 if it is."""
        time = now % self.period
        for start, end in self.spells:
            if time < end:
                return max(0.0, start - time)
        return self.spells[0][0] + self.period - time

    def until(self, now: float, seconds: float) -> float:
        """Return how long it takes from ``now`` until the device was online for ``seconds``."""
        each = math.fsum(end - start for start, end in self.spells)
        whole = max(0, math.ceil(seconds / each) - 1)
        time, left = now % self.period, seconds - whole * each
        for number in count(whole):
            for spell in self.spells:
                start, end = (number * self.period + at for at in spell)
                start = max(start, time + whole * self.period)
                if end > start and left <= end - start:
                    return start + left - time
                left -= max(0.0, end - start)
        raise AssertionError("a device is online in every period")
