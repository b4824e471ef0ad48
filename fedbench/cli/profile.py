"""``fedbench profile``: how the time of a round is spent."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import click

from ..text import echo
from .base import Command
from .flags import config_flags, data_root_flag, resolve_config


@click.command(cls=Command)
@click.argument("target", metavar="METHOD|FILE.yaml")
@partial(config_flags, rounds="4")
@data_root_flag
@click.option(
    "--json", "as_json", is_flag=True, help="Print the times of every round, in seconds, as JSON."
)
def profile(target: str, data_root: Path | None, as_json: bool, **given: Any) -> None:
    """Measure how the time of a METHOD's rounds is spent.

    \b
    fedbench profile fedhpro --data digits
    fedbench profile fedavg --rounds 10 --executor inline

    Nothing is kept on disk. The table excludes the first round if there are others, because it
    includes work that is done only once. For clients on other machines (executor ray), only the
    waiting time is known.
    """
    from ..engine import profiling

    if given["rounds"] is None:  # a default, below --set
        given["sets"] = ("rounds=4", *given["sets"])
    registry, config = resolve_config(target, **given)
    found = []
    for one in profiling.profile(config, registry, data_root=data_root):
        if not as_json:
            echo(f"round {one.round}: {one.seconds:.2f} s", err=True)
        found.append(one)
    if as_json:
        echo(json.dumps([asdict(one) for one in found], indent=2), lines=True)
        return
    steady = found[1:] or found
    what = "round 1" if len(found) == 1 else f"mean of rounds 2 to {len(found)}"
    _print(f"per round, wall clock, {what}", [one.server for one in steady])
    turns = sum(one.turns for one in steady) / len(steady)
    _print(f"its {turns:g} client turns, summed over clients", [one.clients for one in steady])


def _print(title: str, rounds: Sequence[Mapping[str, float]]) -> None:
    """Print a table of the steps, longest first, and their sum."""
    from ..interface.progress import console, grid

    names = dict.fromkeys(name for one in rounds for name in one)
    means = {n: statistics.fmean(one.get(n, 0.0) for one in rounds) for n in names}
    total = sum(means.values())
    table = grid(title, "seconds", "%")
    for name in sorted(means, key=lambda n: -means[n]):
        share = 100 * means[name] / total if total else 0.0
        table.add_row(name, f"{means[name]:.4f}", f"{share:.1f}")
    table.add_row("sum", f"{total:.4f}", "100.0")
    console().print(table)
