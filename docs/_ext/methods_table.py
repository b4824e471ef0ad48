"""Write the README's table of methods: ``python docs/_ext/methods_table.py``, or ``make methods``.

Everything but the last four columns comes from what the packages register, so a test compares it
with the README. Those four are measured in short runs, which takes minutes; with ``--new``, only
methods that the table lacks are measured.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from reference import table

from fedbench import Run, discover, options, resolve
from fedbench.engine.profiling import Kept
from fedbench.plugins.registry import Entry, Registry
from fedbench.values import nbytes

README = Path(__file__).parents[2] / "README.md"
MARKS = "<!-- made by `make methods` -->\n", "<!-- end of the methods -->\n"
BASE = "fedavg"
HEAD = ("family", "METHOD", "paper", "idea", "options and defaults")
MEASURED = ("up", "down", "client keeps", "server keeps")
FEW = 4
"""Of a method with more options than these, only the plugins are named."""

Row = Sequence[str]


def rows(registry: Registry) -> list[Row]:
    """Return the cells of `HEAD` for each method, by family."""
    return [
        (
            "" if number else family,
            f"`{entry.name}`",
            entry.value.source,
            entry.about,
            _options(registry, entry),
        )
        for family, methods in registry.families().items()
        for number, entry in enumerate(methods)
    ]


def _options(registry: Registry, entry: Entry) -> str:
    """Return a method's options and defaults, without those that FedAvg has and it leaves alone."""
    base = registry.get("recipe", BASE).value.plugins
    shown: dict[str, list[str]] = {}
    for plugin, given in entry.value.plugins.items():
        for option in options.describe(registry.get("plugin", plugin).value):
            if plugin not in base or option.name in given:
                value = given.get(option.name, option.default.strip('"'))
                shown.setdefault(plugin, []).append(f"`{plugin}.{option.name}` {value}")
    if sum(map(len, shown.values())) > FEW:
        return ", ".join(f"`{plugin}.*`" for plugin in shown)
    return ", ".join(text for several in shown.values() for text in several) or "-"


MODELS = {"fedbn": {"model": "resnet10"}}
"""Methods that the default model is not for: it has no batch norm."""


def measured(registry: Registry, methods: Sequence[str]) -> dict[str, Row]:
    """Return the cells of `MEASURED` by method, from three rounds of each on a few digits.

    All are multiples of what FedAvg sends, which is one model per client and direction.
    """
    found: dict[str, Row] = {}
    for name in dict.fromkeys((BASE, *methods)):
        print(name, file=sys.stderr)
        flags = {"data": "digits", "rounds": 3, "executor": "inline", **MODELS.get(name, {})}
        config = resolve(registry, name, flags=flags, sets=["domains.examples=40"])
        kept = Kept()
        run = Run(config, registry=registry, watch=kept)
        *_, last = run.rounds()
        assert run.state is not None
        model = nbytes(run.state.weights)
        of_server = sum(map(nbytes, run.state.entries.values()))
        up, down = (sum(b.values()) // len(last.clients) for b in (last.bytes_up, last.bytes_down))
        found[name] = [_times(size / model) for size in (up, down, kept.largest, of_server)]
    return found


def _times(share: float) -> str:
    return "-" if share == 0 else f"{share:.2f}" if share >= 0.005 else "< 0.01"


def written(registry: Registry, numbers: Mapping[str, Row]) -> str:
    """Return the whole table as Markdown."""
    return table(
        (*HEAD, *MEASURED), [(*row, *numbers[row[1].strip("`")]) for row in rows(registry)]
    )


def committed(text: str) -> list[Row]:
    """Return the rows of the table in the README's text, without its head."""
    lines = _between(text).strip().splitlines()[2:]
    return [[c.strip() for c in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def _between(text: str) -> str:
    return text.partition(MARKS[0])[2].partition(MARKS[1])[0]


if __name__ == "__main__":
    os.environ["FEDBENCH_PLUGINS"] = ""  # only what comes with fedbench
    installed = discover()
    text = README.read_text(encoding="utf-8")
    numbers: dict[str, Row] = {}
    if "--new" in sys.argv:
        numbers = {row[1].strip("`"): row[len(HEAD) :] for row in committed(text)}
    missing = [name for name in installed.names("recipe") if name not in numbers]
    numbers |= measured(installed, missing) if missing else {}
    README.write_text(text.replace(_between(text), written(installed, numbers)), encoding="utf-8")
