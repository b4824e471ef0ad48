"""What a comparison would run, and what it would reuse, before anything is carried out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from ..config.cards import load_card
from ..config.model import RunConfig
from ..plugins.registry import Registry
from ..store.directory import RunDirectory
from .execute import Standing, standing
from .grid import Job
from .records import variant_of

WORDS: dict[Standing, str] = {
    "finished": "finished",
    "failed": "failed before (--retry tries again)",
    "left alone": "interrupted too often (--retry tries again)",
    "new": "to run",
    "changed": "to repeat",
    "retried": "to try again",
}
"""What becomes of a planned run -> how it is counted."""

KEPT: tuple[Standing, ...] = ("finished", "failed", "left alone")
"""What is not run."""


def left(
    planned: Sequence[Job], *, retry: bool, changes: Callable[[Job], Sequence[str]]
) -> list[Job]:
    """Return the runs that would be begun, resumed or repeated; arguments as for `outlook`."""
    return [job for job in planned if standing(job, retry=retry, changes=changes) not in KEPT]


def outlook(
    registry: Registry,
    planned: Sequence[Job],
    *,
    retry: bool,
    changes: Callable[[Job], Sequence[str]],
) -> Iterator[str]:
    """Yield data and cards, how many runs of each method are finished and left, and of all.

    Args:
        registry: what is installed.
        planned: the runs.
        retry: whether runs that failed, or were interrupted too often, would be tried again.
        changes: returns why a kept run would have another result today.
    """
    found = [(job, standing(job, retry=retry, changes=changes)) for job in planned]
    for data, card in dict.fromkeys(_protocol(job.config) for job in planned):
        yield f"data {data}, {_described(registry, card, data)}"
    methods: dict[str, Counter[Standing]] = {}
    for job, state in found:
        methods.setdefault(variant_of(registry, job.config), Counter())[state] += 1
    for method, counts in methods.items():
        yield f"{method}: {_text(counts)}"
    rounds = sum(_left(job, state) for job, state in found)
    total = _text(Counter(state for _, state in found))
    yield f"{len(planned)} in all: {total}; {rounds:,} rounds to go"


def _protocol(config: RunConfig) -> tuple[str, str | None]:
    """Return the names of a run's data and card."""
    return config.data["name"], config.origin.get("card")


def _described(registry: Registry, card: str | None, data: str) -> str:
    """Return the card, and what data it is for if that is not ``data``."""
    if card is None:
        return "no card"
    known = ("card", card) in registry.entries
    made_for = load_card(registry, card).data if known else data
    return f"card {card}" if made_for == data else f"card {card}, which is for {made_for}"


def _text(counts: Counter[Standing]) -> str:
    return ", ".join(f"{counts[state]} {word}" for state, word in WORDS.items() if counts[state])


def _left(job: Job, state: Standing) -> int:
    """Return how many rounds of a run are left, not counting those since its last checkpoint."""
    if state in KEPT:
        return 0
    begun = 0 if state == "changed" else RunDirectory(job.path).count_rounds()
    return job.config.rounds - begun
