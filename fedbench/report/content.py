"""What a summary table says, as text: every renderer prints the same cells.

Marks are left to the renderers: `Entry.best` is bold or starred, `Entry.unsure` carries the sign
for "not significantly different from the reference".
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any

from .. import text
from ..study.analysis import MEAN, Analysis, Cell, Group
from ..study.records import Record
from ..study.statistics import Summary

PAIRED = (
    "paired: within one seed all variants share partition, initial weights, client sampling and "
    "batch order"
)
NONE = "-"
TESTS = {"t": "paired t-test", "wilcoxon": "Wilcoxon signed-rank test"}


@dataclass(frozen=True)
class Entry:
    """One number of the table: ``mean`` and ``std`` over seeds as text.

    Args:
        mean: the mean, `NONE` without a finished run.
        std: the standard deviation, empty for a single run.
        best: whether it is the best of its column.
        unsure: whether the difference to the reference is tested and not significant.
        second: whether it is the second best of its column.
    """

    mean: str
    std: str = ""
    best: bool = False
    unsure: bool = False
    second: bool = False


EMPTY = Entry(NONE)
"""The cell of a variant without a finished run."""


@dataclass(frozen=True)
class Row:
    """One variant.

    Args:
        variant: its name.
        seeds: finished runs, ``5`` or ``3 of 5``.
        entries: one a column of the group.
        versus: difference, interval, p, effect, wins/ties/losses, as `VERSUS`.
        trouble: what is not finished, ``2 failed``; else empty.
    """

    variant: str
    seeds: str
    entries: tuple[Entry, ...]
    versus: tuple[str, ...]
    trouble: str


@dataclass(frozen=True)
class Table:
    """The summary of one setting.

    Args:
        label: the setting.
        columns: the headings of `Row.entries`.
        versus: the headings of `Row.versus`; empty without a reference or a second variant.
        reference: the reference variant or ``None``.
        rows: one a variant.
        unit: ``%`` or the metric's name.
        notes: what a reader has to know, a sentence each.
    """

    label: str
    columns: tuple[str, ...]
    versus: tuple[str, ...]
    reference: str | None
    rows: tuple[Row, ...]
    unit: str
    notes: tuple[str, ...]


@dataclass(frozen=True)
class TextTable:
    """A table whose first column is text and whose others are numbers.

    Args:
        name: for labels: ``target``, ``curves``, ``search``.
        title: what it is about.
        head: its headings.
        rows: its cells.
        notes: what a reader has to know, a sentence each.
    """

    name: str
    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]


def counted(group: Group) -> str:
    """Return what the group's numbers are counted in."""
    return "%" if group.unit == "percent" else group.metric


def number(value: float, group: Group, sign: str = "") -> str:
    """Return a value of the reported metric in its unit."""
    return text.score(value, group.unit, sign)


def listed(names: Sequence[str]) -> str:
    """Return ``a, b and c``."""
    return " and ".join((*([", ".join(names[:-1])] if len(names) > 1 else []), names[-1]))


def slug(text: str) -> str:
    """Return ``text`` for a part of a file's name or a label, which then leads nowhere else.

    What has to change gets a digest, so that different texts stay different.
    """
    safe = re.sub(r"[^A-Za-z0-9_-]+", "_", text)
    digest = sha256(text.encode(errors="surrogatepass")).hexdigest()
    return safe if safe == text else f"{safe}-{digest[:6]}"


def sentence(text: str) -> str:
    """Return ``text`` with a capital first letter."""
    return text[:1].upper() + text[1:]


def minus(text: str) -> str:
    """Return numbers in ``text`` with a real minus sign, as wide as a plus sign."""
    return re.sub(r"(?<![\w=])-(?=\d)", "\u2212", text)


def p_value(p: float | None) -> str:
    """Return p with three decimals, ``< 0.001`` below that."""
    if p is None:
        return NONE
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def column_title(group: Group, column: str) -> str:
    """Return a column's heading."""
    return "mean over domains" if column == MEAN and len(group.columns) > 1 else column


def plural(seeds: int) -> str:
    """Return ``1 seed``, ``2 seeds``."""
    return f"{seeds} seed{'' if seeds == 1 else 's'}"


def seeds(group: Group) -> list[int]:
    """Return the seeds of the group's runs."""
    return sorted({record.seed for record in group.records})


def table(analysis: Analysis, group: Group) -> Table:
    """Return the summary of one setting."""
    others = [v for v in group.variants if v != group.reference]
    compared = group.reference is not None and bool(others)
    versus = _versus_titles(group) if compared else ()
    return Table(
        label=group.label,
        columns=tuple("mean" if c == MEAN else c for c in group.columns),
        versus=versus,
        reference=group.reference,
        rows=tuple(_row(group, variant, bool(versus)) for variant in group.variants),
        unit=counted(group),
        notes=tuple(_notes(analysis, group, compared)),
    )


def _versus_titles(group: Group) -> tuple[str, ...]:
    what = "points" if group.unit == "percent" else group.metric
    return (f"difference ({what})", "95 % interval", "p (Holm)", "effect d_z", "wins/ties/losses")


def _row(group: Group, variant: str, versus: bool) -> Row:
    cells = group.cells[variant]
    runs = {r.seed for r in group.records if r.variant == variant}
    done = len(cells[MEAN].values)
    return Row(
        variant=variant,
        seeds=str(done) if done == len(runs) else f"{done} of {len(runs)}",
        entries=tuple(entry(group, variant, column) for column in group.columns),
        versus=_versus(group, variant, cells[MEAN]) if versus else (),
        trouble=trouble(group.missing(variant)),
    )


def entry(group: Group, variant: str, column: str) -> Entry:
    """Return a variant's number in a column."""
    cell = group.cells[variant][column]
    if cell.summary is None:
        return EMPTY
    unsure = cell.adjusted_p is not None and not cell.significant
    best = variant in group.best(column)
    return replace(unmarked(cell.summary, group), best=best, unsure=unsure)


def unmarked(over: Summary, group: Group) -> Entry:
    """Return a mean and its deviation, without marks."""
    std = "" if over.std is None else number(over.std, group)
    return Entry(number(over.mean, group), std)


def _versus(group: Group, variant: str, cell: Cell) -> tuple[str, ...]:
    if variant == group.reference:
        return ("reference", "", "", "", "")
    wins = "/".join(map(str, group.wins[variant])) if variant in group.wins else NONE
    paired = cell.paired
    if paired is None or paired.difference is None:
        return (NONE, NONE, NONE, NONE, wins)
    interval = NONE
    if paired.low is not None and paired.high is not None:
        interval = f"[{number(paired.low, group, '+')}, {number(paired.high, group, '+')}]"
    effect = NONE if paired.effect is None else f"{paired.effect:+.2f}"
    return (number(paired.difference, group, "+"), interval, p_value(cell.adjusted_p), effect, wins)


def trouble(records: Sequence[Record]) -> str:
    """Return how many of ``records`` failed, were interrupted or are not finished, in words."""
    parts = []
    for status in ("failed", "interrupted", "unfinished"):
        found = sum(r.status == status for r in records)
        if found:
            parts.append(f"{found} {status}")
    return ", ".join(parts)


def _notes(analysis: Analysis, group: Group, compared: bool) -> list[str]:
    unit = " in percent" if group.unit == "percent" else ""
    better = "" if group.higher_is_better else "; lower is better"
    notes = [
        f"{group.metric}{unit}, {group.rule}{better}; mean ± standard deviation over seeds",
        PAIRED,
    ]
    if compared:
        notes.append(
            f"difference to {group.reference} in the mean: {TESTS[analysis.test]}, p corrected by "
            "Holm over the variants; d_z is the mean difference over the standard deviation of the "
            f"differences; wins, ties and losses count {_units_of_wins(group)}"
        )
    if group.stop_at is not None:
        notes.append(
            f"WARNING: a run ends with the first scored round that reaches {reached_text(group)} "
            "(stop_at): accuracies are those of different numbers of rounds, selected on the "
            f"{group.scored}, and are not compared; what reaching it cost is. Lines of charts end "
            "where the first run of a variant ends"
        )
    notes += _whose(group)
    notes += [*_pair_notes(group), *group.published, *_conclusions(group)]
    broken = unpaired_seeds(group)
    if broken:
        notes.append(f"WARNING: not paired in {'; '.join(broken)}")
    notes += [
        f"WARNING: {variant} is {text.unrepeatable(names)}"
        for variant, names in {r.variant: r.config.in_memory for r in group.records}.items()
        if names
    ]
    notes += [f"WARNING: the runs differ in {what}" for what in group.differences]
    return notes


def _units_of_wins(group: Group) -> str:
    return "seeds" if group.setting["accuracy"]["population"] == "clients" else "seeds x domains"


def _whose(group: Group) -> list[str]:
    """Return a note on whose models were scored, if some were the clients' own."""
    found: dict[str, list[str]] = {"personal": [], "global": []}
    for record in group.records:
        if record.result and record.variant not in found[record.result.accuracy.model]:
            found[record.result.accuracy.model].append(record.variant)
    if not found["personal"]:
        return []
    rest = f", the global model of {listed(found['global'])}" if found["global"] else ""
    return [f"scored are the clients' own models of {listed(found['personal'])}{rest}"]


def _pair_notes(group: Group) -> list[str]:
    """Return the notes of the pairs' means, each once, with the variants that it is about."""
    pairs = {v: c[MEAN].paired for v, c in group.cells.items() if c[MEAN].paired}
    about: dict[str, list[str]] = {}
    for variant, paired in pairs.items():
        for note in filter(None, paired.note.split("; ") if paired else ()):
            about.setdefault(note, []).append(variant)
    return [
        note if len(variants) == len(pairs) else f"{', '.join(variants)}: {note}"
        for note, variants in about.items()
    ]


def _conclusions(group: Group) -> list[str]:
    """Return what plugins said about whole runs, each sentence once for a variant."""
    said = (
        f"{record.variant}: {line}"
        for record in group.records
        if record.result
        for line in record.result.conclusions
    )
    return list(dict.fromkeys(said))


def has_best(content: Table) -> bool:
    """Whether any entry is marked as the best of its column; none is where runs end early."""
    return any(entry.best for row in content.rows for entry in row.entries)


def has_unsure(content: Table) -> bool:
    """Whether any entry carries the mark for a difference that is not significant."""
    return any(entry.unsure for row in content.rows for entry in row.entries)


def headline(group: Group) -> str:
    """Return the result in one or two sentences."""
    if group.stop_at is not None:
        return _fewest_rounds(group)
    best = group.best(MEAN)
    if not best:
        return "No run is finished yet."
    summary = group.cells[best[0]][MEAN].summary
    assert summary is not None
    value = number(summary.mean, group) + (" %" if group.unit == "percent" else "")
    over = "Best mean over domains" if len(group.columns) > 1 else "Best"
    text = f"{over}: {listed(best)}, {value} over {plural(summary.n)}."
    cells = {v: c[MEAN] for v, c in group.cells.items() if c[MEAN].adjusted_p is not None}
    if not cells:
        return text
    clear = [v for v, c in cells.items() if c.significant]
    unclear = [v for v in cells if v not in clear]
    parts = [f"significant for {listed(clear)}"] if clear else []
    parts += [f"not significant for {listed(unclear)}"] if unclear else []
    return f"{text} The difference to {group.reference} is {', '.join(parts)}."


def reached_text(group: Group, value: float | None = None) -> str:
    """Return a value to reach in its metric's unit: ``93.40 % accuracy``; default ``stop_at``."""
    sign = " %" if group.unit == "percent" else ""
    return (
        f"{text.score(group.stop_at if value is None else value, group.unit)}{sign} {group.metric}"
    )


def _fewest_rounds(group: Group) -> str:
    """Return which variants need the fewest rounds to the target, where that is known."""
    reaching = group.curves.reaching
    assert reaching is not None
    what = reached_text(group, reaching.target)
    medians = {v: costs["rounds"] for v, costs in reaching.medians.items()}
    exact = {v: one.value for v, one in medians.items() if one.exact}
    if not exact:
        return f"No variant is known to reach {what} in half of its runs."
    least = min(exact.values())
    names = listed([v for v, value in exact.items() if value == least])
    return f"Fewest rounds to {what}: {names}, median {least:g}."


def unpaired_seeds(group: Group) -> list[str]:
    """Return what variants of one seed do not share although they should, as far as files tell."""
    broken = []
    for seed in seeds(group):
        runs = [r for r in group.records if r.seed == seed]
        partitions = [r.partition for r in runs if r.partition]
        if any(one != partitions[0] for one in partitions):
            broken.append(f"seed {seed}: different partitions")
        sampled: dict[int, Sequence[int]] = {}
        same = True
        for run in runs:
            # Under a clock, a schedule decides who takes part.
            for one in (one for one in run.rounds if one.time is None):
                same &= sampled.setdefault(one.round, one.clients) == one.clients
        if not same:
            broken.append(f"seed {seed}: different clients in a round")
    return broken


def flatten(data: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested mappings as one with dotted keys; an empty mapping stays as ``{}``."""
    flat: dict[str, Any] = {}
    for key, value in data.items():
        if isinstance(value, Mapping) and value:
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = dict(value) if isinstance(value, Mapping) else value
    return flat
