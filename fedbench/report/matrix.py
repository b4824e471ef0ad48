"""All settings in one table, variants x settings, as papers print them; and as a heat map."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from ..study import statistics
from ..study.analysis import MEAN, Analysis, Group
from ..text import Unit
from . import specs
from .content import EMPTY, NONE, Entry, entry, sentence, slug, unmarked
from .figure import Figure, Panel
from .specs import tip

PLAIN = "plain"
"""The column of the setting in which nothing is changed."""


@dataclass(frozen=True)
class Matrix:
    """A number of every variant in every setting.

    Args:
        name: of the extra test set, or ``settings``.
        title: what the number is.
        columns: the settings, in short, and the mean rank where there is one.
        rows: variant -> one entry a column.
        values: variant -> setting -> the mean, a fraction for percentages.
        notes: what a reader has to know, a sentence each.
    """

    name: str
    title: str
    columns: tuple[str, ...]
    rows: Mapping[str, tuple[Entry, ...]]
    values: Mapping[str, Mapping[str, float]]
    notes: tuple[str, ...]

    @property
    def slug(self) -> str:
        """The name for files and labels: one from somebody else's run must lead nowhere."""
        return slug(self.name)

    @property
    def unsure(self) -> bool:
        """Whether an entry carries the mark for a difference that is not significant."""
        return any(entry.unsure for entries in self.rows.values() for entry in entries)

    @property
    def best(self) -> bool:
        """Whether an entry is marked as the best of its column."""
        return any(entry.best for entries in self.rows.values() for entry in entries)


def matrices(analysis: Analysis) -> list[Matrix]:
    """Return the table of the reported metric, then one for each extra test set.

    Empty for a single setting, which has a table of its own.
    """
    if len(analysis.groups) < 2:
        return []
    extra = dict.fromkeys(
        name
        for group in analysis.groups
        for record in group.records
        for name in (record.result and record.result.extra) or ()
    )
    return [_reported(analysis), *(_extra(analysis, name) for name in extra)]


def _reported(analysis: Analysis) -> Matrix:
    groups, ranks = analysis.groups, analysis.ranks
    labels = short_labels(groups)
    rows, values = {}, {}
    for variant in variants_of(groups):
        entries = [_entry(group, variant) for group in groups]
        if ranks:
            rank = ranks.ranks.get(variant)
            text = NONE if rank is None else f"{rank:.2f}"
            entries.append(Entry(text, best=rank == min(ranks.ranks.values())))
        rows[variant] = tuple(entries)
        cells = (group.cells.get(variant) for group in groups)
        values[variant] = {
            label: cell[MEAN].summary.mean  # type: ignore[union-attr]
            for label, cell in zip(labels, cells, strict=True)
            if cell and cell[MEAN].summary
        }
    columns = (*labels, *(["mean rank"] if ranks else []))
    notes = [_what(groups), "mean ± standard deviation over seeds"]
    if any(group.best(MEAN) for group in groups):
        notes.append("bold: best of its column; underlined: second best")
    if ranks:
        notes.append(f"mean rank over the settings, 1 is best. {ranks.note}")
    return Matrix("settings", "All settings", columns, rows, values, tuple(notes))


def _entry(group: Group, variant: str) -> Entry:
    if variant not in group.cells:
        return EMPTY
    return replace(entry(group, variant, MEAN), second=variant in group.best(MEAN, 1))


def _extra(analysis: Analysis, name: str) -> Matrix:
    """Return the metric on an extra test set; nothing is best there, as it may be an attack's."""
    every = zip(analysis.groups, short_labels(analysis.groups), strict=True)
    shown = [(group, label) for group, label in every if any(_on(group, name))]
    rows: dict[str, tuple[Entry, ...]] = {}
    values: dict[str, dict[str, float]] = {}
    for variant in variants_of([group for group, _ in shown]):
        entries = []
        for group, label in shown:
            found = [value for who, value in _on(group, name) if who == variant]
            if not found:
                entries.append(EMPTY)
                continue
            over = statistics.summary(found)
            values.setdefault(variant, {})[label] = over.mean
            entries.append(unmarked(over, group))
        rows[variant] = tuple(entries)
    title = f"{sentence(shown[0][0].metric)} on {name}"
    what = _what([group for group, _ in shown])
    notes = (
        f"{what}, on the extra test set {name}, which enters no mean",
        "mean ± standard deviation over seeds",
    )
    return Matrix(name, title, tuple(label for _, label in shown), rows, values, notes)


def _on(group: Group, name: str) -> Iterator[tuple[str, float]]:
    """Yield (variant, value on the extra test set) of the group's finished runs."""
    for record in group.records:
        if record.result and record.result.extra and name in record.result.extra:
            yield record.variant, record.result.extra[name]


def variants_of(groups: Sequence[Group]) -> list[str]:
    """Return the variants of all settings in order of appearance."""
    return list(dict.fromkeys(variant for group in groups for variant in group.variants))


def _what(groups: Sequence[Group]) -> str:
    """Return which metrics by which rules the numbers are."""
    found = dict.fromkeys(
        f"{group.metric}{' in percent' if group.unit == 'percent' else ''}, {group.rule}"
        for group in groups
    )
    return "; ".join(found)


def short_labels(groups: Sequence[Group]) -> list[str]:
    """Return the settings' labels without what all have in common, `PLAIN` for nothing else."""
    split = [group.label.split(", ") for group in groups]
    shared = set(split[0]).intersection(*split)
    rest = [", ".join(part for part in parts if part not in shared) for parts in split]
    return [label or PLAIN for label in rest]


def heat_maps(analysis: Analysis) -> list[Figure]:
    """Return each of the `matrices` as a heat map; none if their numbers have several units."""
    units = {group.unit for group in analysis.groups}
    if len(units) > 1:
        return []
    (unit,) = units
    return [_heat_map(matrix, unit) for matrix in matrices(analysis) if any(matrix.values.values())]


def _heat_map(matrix: Matrix, unit: Unit) -> Figure:
    rows = [
        {"v": variant, "c": label, "m": value}
        for variant, found in matrix.values.items()
        for label, value in found.items()
    ]
    means = [value for found in matrix.values.values() for value in found.values()]
    labels = dict.fromkeys(label for found in matrix.values.values() for label in found)
    data = f"matrix-{matrix.slug}"
    spec = specs.heat(
        data,
        rows,
        {"field": "v", "sort": list(matrix.rows), "title": None},
        [*labels],
        [tip("v", "variant"), tip("c", "setting"), tip("m", "mean", specs.FORMS[unit])],
        domain=(min(means), max(means)),
        text=specs.CELLS[unit],
        height=specs.height_of(len(matrix.values)),
        x_title="setting",
    )
    caption = sentence(f"{matrix.notes[0]}, mean over seeds; darker is lower.")
    name = f"heat-{matrix.slug}"
    return Figure(name, "all", matrix.title, caption, [Panel("", spec, True)], {data: rows})
