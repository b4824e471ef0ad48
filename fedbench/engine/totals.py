"""What the rounds of a run amount to: their digest, failures and bytes."""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from itertools import accumulate

from ..store.contents import VirtualTime
from ..store.files import json_ready
from ..types import RoundResult, SplitScores, Turn


def metrics_sha256(rounds: Sequence[RoundResult]) -> str:
    """Return the SHA-256 of all rounds, without their times and the failures' reasons."""
    lines = "\n".join(canonical_round(one) for one in rounds)
    return hashlib.sha256(lines.encode()).hexdigest()


def canonical_round(result: RoundResult) -> str:
    """Return a round as the JSON that is hashed: without its time and the failures' reasons."""
    data = json_ready(result)
    del data["seconds"], data["personal_seconds"], data["personal_bytes"]
    # A round without them keeps the form of earlier versions.
    for key in ("client_scores", "validation", "extra_scores", "pictures"):
        if not getattr(result, key) or getattr(result, key) == SplitScores():
            del data[key]
    if result.time is None:
        del data["time"], data["turns"]
    if result.failures:
        data["failures"] = [[f.client, f.attempt, f.kind, f.lost] for f in result.failures]
    else:  # the form of version 0.1
        del data["failures"]
    return json.dumps(data, sort_keys=True)


def count_failures(rounds: Sequence[RoundResult]) -> dict[str, int]:
    """Return the number of failures of each kind, and ``lost``, the turns without a result.

    Under ``retry`` every failed attempt counts. Empty when nothing failed.
    """
    found = [failure for one in rounds for failure in one.failures]
    counts = Counter(failure.kind for failure in found)
    lost = sum(failure.lost for failure in found)
    return {**dict(sorted(counts.items())), "lost": lost} if found else {}


def virtual_time(rounds: Sequence[RoundResult]) -> VirtualTime | None:
    """Return what a run took under a clock; ``None`` without one."""
    seconds = rounds[-1].time
    if seconds is None:
        return None
    staleness = Counter(
        one.round - turn.round for one in rounds for turn in one.turns if turn.outcome == "used"
    )
    turns = [turn for one in rounds for turn in one.turns]
    busy = math.fsum(turn.end - turn.start for turn in turns)
    most = at_work_together(turns)
    return VirtualTime(
        seconds=seconds,
        turns=dict(sorted(Counter(turn.outcome for turn in turns).items())),
        utilisation=busy / (most * seconds) if most and seconds else 0.0,
        staleness=dict(sorted(staleness.items())),
    )


def at_work_together(turns: Collection[Turn]) -> int:
    """Return how many of some turns took place at the same time at most."""
    events = [(turn.start, 1) for turn in turns if turn.end > turn.start]
    events += [(turn.end, -1) for turn in turns if turn.end > turn.start]
    return max(accumulate(change for _, change in sorted(events)), default=0)


def per_round(rounds: Sequence[Mapping[str, int]]) -> dict[str, float]:
    """Return the mean over rounds of numbers by key; a round without a key counts as 0."""
    total: Counter[str] = Counter()
    for one in rounds:
        total.update(one)
    return {key: n / len(rounds) for key, n in total.items()}
