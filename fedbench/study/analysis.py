"""The analysis of finished runs: means, intervals, paired tests, ranks.

Comparisons are paired: within one seed, all variants of a setting share partition, initial weights,
client sampling and batch order, so differences are taken seed by seed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from ..config.cards import load_card
from ..config.changes import describe_changes
from ..config.model import Accuracy
from ..config.stopping import check_value
from ..engine.evaluation import accuracy_text
from ..errors import ConfigError, did_you_mean
from ..options import build
from ..plugins.facts import MetricFacts, facts
from ..plugins.registry import Registry
from ..store import fingerprint
from ..text import Unit, score
from . import statistics
from .records import Record, aligned, by_setting, setting_labels, without_shared
from .statistics import Paired, Ranks, Summary
from .targets import Curves, curves

MEAN = "mean"
"""The column of the unweighted mean over domains."""

Test = Literal["t", "wilcoxon"]


@dataclass(frozen=True)
class Cell:
    """One variant on one domain, or on the mean over domains.

    Args:
        values: seed -> accuracy by the setting's rule, a fraction.
        summary: their mean, standard deviation and interval; ``None`` without a finished run.
        paired: the paired difference to the reference; ``None`` for the reference itself.
        adjusted_p: p after Holm's correction over the column's variants; ``None`` if there is no p.
    """

    values: Mapping[int, float]
    summary: Summary | None
    paired: Paired | None
    adjusted_p: float | None

    @property
    def significant(self) -> bool:
        """Whether the difference to the reference is significant at 5 % after correction."""
        return self.adjusted_p is not None and self.adjusted_p < 0.05


@dataclass(frozen=True)
class Group:
    """The analysis of one setting.

    Args:
        label: the data set, and whatever else distinguishes the setting from the others.
        setting: the setting itself.
        rule: the accuracy rule in words.
        higher_is_better: whether a higher value of the reported metric is better.
        units: the unit of each metric of the setting.
        columns: `MEAN` first, then the domains; `MEAN` alone for a single domain.
        reference: the variant whose accuracy the others' are compared with; ``None`` if it has no
            finished run here, and where runs end at an accuracy (``stop_at``).
        cells: variant -> column -> `Cell`.
        wins: variant -> (wins, ties, losses) against the reference over seeds x domains, or over
            seeds without domains.
        records: every run, including unfinished and failed ones.
        curves: the learning curves in numbers: what a target costs, area, best round, forgetting.
        published: the published values of the setting's card next to the measured ones, one per
            line, with their source and what differs from the card.
        differences: what differs between the runs besides their configs, one line each.
    """

    label: str
    setting: Mapping[str, Any]
    rule: str
    higher_is_better: bool
    units: Mapping[str, Unit]
    columns: tuple[str, ...]
    reference: str | None
    cells: Mapping[str, Mapping[str, Cell]]
    wins: Mapping[str, tuple[int, int, int]]
    records: Sequence[Record]
    curves: Curves
    published: tuple[str, ...] = ()
    differences: tuple[str, ...] = ()

    @property
    def metric(self) -> str:
        """The name of the reported metric."""
        return str(self.setting["accuracy"]["metric"])

    @property
    def stop_at(self) -> float | None:
        """The value that ends the runs; their accuracies are then those of different rounds."""
        found: float | None = self.setting["stop_at"]
        return found

    @property
    def unit(self) -> Unit:
        """The unit of the reported metric."""
        return self.units[self.metric]

    @property
    def scored(self) -> str:
        """What the reported metric is measured on: ``test data``, ``test data of clients``."""
        rule = self.setting["accuracy"]
        over = " of clients" if rule["population"] == "clients" else ""
        return f"{rule['split']} data{over}"

    @property
    def variants(self) -> tuple[str, ...]:
        """The variants in order of appearance."""
        return tuple(self.cells)

    @property
    def ranks(self) -> Ranks | None:
        """The mean ranks over the seeds of the variants that have a result under every seed.

        ``None`` for fewer than two of them, and where runs end at an accuracy.
        """
        if self.stop_at is not None:
            return None
        values = {variant: cells[MEAN].values for variant, cells in self.cells.items()}
        return _ranks(values, self.higher_is_better, "seeds")

    def missing(self, variant: str) -> list[Record]:
        """Return the runs of a variant that are not finished."""
        return [r for r in self.records if r.variant == variant and r.status != "finished"]

    def best(self, column: str, place: int = 0) -> list[str]:
        """Return the variants with the best mean in a column; with ``place`` 1 the second best.

        None where runs end at an accuracy.
        """
        if self.stop_at is not None:
            return []
        summaries = {v: cells[column].summary for v, cells in self.cells.items()}
        means = {v: s.mean for v, s in summaries.items() if s is not None}
        order = sorted(set(means.values()), reverse=self.higher_is_better)
        return [v for v, mean in means.items() if mean in order[place : place + 1]]


@dataclass(frozen=True)
class Analysis:
    """The analysis of all settings, and the mean ranks over them.

    Args:
        groups: one per setting; values of different settings are never mixed.
        reference: the reference variant.
        test: the chosen paired test.
        ranks: mean ranks over the settings, with the Friedman test; ``None`` for a single setting.
    """

    groups: Sequence[Group]
    reference: str
    test: Test
    ranks: Ranks | None


def analyse(
    registry: Registry,
    records: Sequence[Record],
    *,
    variants: Sequence[str] | None = None,
    reference: str | None = None,
    test: Test = "t",
    target: float | None = None,
) -> Analysis:
    """Analyse runs, setting by setting.

    Args:
        registry: what is installed.
        records: runs, finished or not.
        variants: the variants that come first, in order; the others follow as they appear.
        reference: the variant to compare with; default the last one.
        test: paired ``t`` or ``wilcoxon``.
        target: the value of the reported metric whose costs are compared, a fraction for
            percentages; default the reference's accuracy in each setting.

    Raises:
        ConfigError: when there is no run, the reference is unknown, two runs of one setting,
            variant and seed have different results, or a percentage's target is no fraction.
    """
    if not records:
        raise ConfigError("there is no run to report")
    given, records = records, aligned(records)
    pairs = list(zip(given, records, strict=True))
    now = {before.variant: after.variant for before, after in reversed(pairs)}
    reference = now.get(reference, reference) if reference else None
    first = (now.get(v, v) for v in variants or ())
    order = list(dict.fromkeys((*first, *(r.variant for r in records))))
    shorter = without_shared(order)
    records = [replace(r, variant=shorter[r.variant]) for r in records]
    order = [shorter[v] for v in order]
    chosen = shorter.get(reference, reference) if reference else order[-1]
    if chosen not in order:
        raise ConfigError(
            f"the reference {chosen!r} is not among the variants{did_you_mean(chosen, order)}"
        )
    settings = by_setting(records)
    labels = setting_labels([group[0].setting for group in settings])
    groups = [
        _group(
            registry,
            label,
            group,
            [v for v in order if any(r.variant == v for r in group)],
            chosen,
            test,
            target,
        )
        for label, group in zip(labels, settings, strict=True)
    ]
    return Analysis(groups, chosen, test, _ranks_over_settings(groups))


def _group(
    registry: Registry,
    label: str,
    records: Sequence[Record],
    variants: Sequence[str],
    reference: str,
    test: Test,
    target: float | None,
) -> Group:
    setting = records[0].setting
    rule = build(Accuracy, setting["accuracy"], lambda path: ".".join(("accuracy", *path)))
    metrics = {
        name: facts(MetricFacts, registry.get("metric", name).value) for name in setting["metrics"]
    }
    higher_is_better = metrics[rule.metric].higher_is_better
    check_value(registry, rule.metric, target, "the target")
    values = {v: _values([r for r in records if r.variant == v]) for v in variants}
    columns = list(dict.fromkeys(c for found in values.values() for c in found))
    if not columns or len(columns) == 2:
        columns = [MEAN]
    compared = reference if setting["stop_at"] is None else None
    base = values.get(compared, {}) if compared else {}
    cells: dict[str, dict[str, Cell]] = {v: {} for v in variants}
    for column in columns:
        here = {v: values[v].get(column, {}) for v in variants}
        for v, cell in _column(here, compared, test).items():
            cells[v][column] = cell
    sign = 1 if higher_is_better else -1
    wins = {
        v: statistics.wins_ties_losses(
            _by_seed_and_domain(values[v], sign), _by_seed_and_domain(base, sign)
        )
        for v in variants
        if v != reference and base
    }
    return Group(
        label=label,
        setting=setting,
        rule=accuracy_text(rule, int(setting["rounds"])),
        higher_is_better=higher_is_better,
        units={name: found.unit for name, found in metrics.items()},
        columns=tuple(columns),
        reference=compared if base else None,
        cells=cells,
        wins=wins,
        records=records,
        curves=curves(records, rule, metrics, reference, target, setting["stop_at"]),
        published=_published(registry, records, cells, metrics[rule.metric].unit),
        differences=tuple(differences(records)),
    )


def differences(records: Sequence[Record]) -> list[str]:
    """Name what differs between runs besides their configs: code, versions, data.

    A line lists each value with the variants that have it. Runs for which a value is not known are
    ignored; the partition need only be the same within a seed.
    """
    seen: dict[str, dict[str, list[str]]] = {}
    for record in records:
        for name, value in fingerprint.kept(record.environment).items():
            if name == fingerprint.PARTITION:
                name = f"{name} of seed {record.seed}"
            variants = seen.setdefault(name, {}).setdefault(value, [])
            if record.variant not in variants:
                variants.append(record.variant)
    return [
        f"{name}: {'; '.join(_who(value, who) for value, who in values.items())}"
        for name, values in seen.items()
        if len(values) > 1
    ]


def _who(value: str, variants: Sequence[str]) -> str:
    shown = fingerprint.DIGEST.sub("", value) or value[-8:]
    return f"{shown} ({', '.join(variants)})"


def _column(
    values: Mapping[str, Mapping[int, float]], reference: str | None, test: Test
) -> dict[str, Cell]:
    """Return a column's cells from variant -> seed -> value; Holm's family is the column."""
    base = values.get(reference, {}) if reference else {}
    paired = {
        v: statistics.paired(found, base, test)
        for v, found in values.items()
        if v != reference and found and base
    }
    adjusted = dict(zip(paired, statistics.holm([p.p for p in paired.values()]), strict=True))
    return {
        v: Cell(
            found,
            statistics.summary(list(found.values())) if found else None,
            paired.get(v),
            adjusted.get(v),
        )
        for v, found in values.items()
    }


def _published(
    registry: Registry,
    records: Sequence[Record],
    cells: Mapping[str, Mapping[str, Cell]],
    unit: Unit,
) -> tuple[str, ...]:
    """Return the card's published values next to the measured ones, with what differs."""
    name = records[0].setting["card"].get("card")
    if name not in registry.names("card"):
        return ()
    lines, sign = [], " %" if unit == "percent" else ""
    for value in load_card(registry, name).published:
        for variant, found in cells.items():
            cell = found.get(value.column)
            if variant.split(":")[0] != value.method or cell is None or cell.summary is None:
                continue
            config = next(r.config for r in records if r.variant == variant)
            changes = ", ".join(describe_changes(registry, config)) or "nothing"
            lines.append(
                f"published {value.method}, {value.column}: {score(value.value, unit)}{sign} "
                f"({value.source}); measured {variant}: {score(cell.summary.mean, unit)}{sign}; "
                f"changed from the card: {changes}"
            )
    return tuple(lines)


def _values(records: Sequence[Record]) -> dict[str, dict[int, float]]:
    """Return column -> seed -> accuracy of one variant's finished runs."""
    values: dict[str, dict[int, float]] = {}
    seen: dict[int, Record] = {}
    for record in records:
        if record.result is None:
            continue
        before = seen.setdefault(record.seed, record)
        accuracy = record.result.accuracy
        if before.result is not None and before.result.accuracy != accuracy:
            raise ConfigError(
                f"{before.path} and {record.path} are both {record.variant}, seed {record.seed}, "
                "with different results; report one of them"
            )
        for column, value in ((MEAN, accuracy.mean), *accuracy.domains.items()):
            values.setdefault(column, {})[record.seed] = value
    return values


def _by_seed_and_domain(
    values: Mapping[str, Mapping[int, float]], sign: int
) -> dict[tuple[int, str], float]:
    alone = set(values) == {MEAN}  # over clients there are no domains
    return {
        (seed, domain): sign * value
        for domain, found in values.items()
        if alone or domain != MEAN
        for seed, value in found.items()
    }


def _ranks_over_settings(groups: Sequence[Group]) -> Ranks | None:
    if len(groups) < 2 or any(group.stop_at is not None for group in groups):
        return None
    values: dict[str, dict[int, float]] = {}
    for number, group in enumerate(groups):
        sign = 1 if group.higher_is_better else -1
        for variant, cells in group.cells.items():
            if (found := cells[MEAN].summary) is not None:
                values.setdefault(variant, {})[number] = sign * found.mean
    return _ranks(values, True, "settings")


def _ranks(
    values: Mapping[str, Mapping[int, float]], higher_is_better: bool, blocks: str
) -> Ranks | None:
    """Rank the variants that have a value on every block; ``None`` for fewer than two."""
    table = statistics.complete(values)
    if not table or len(next(iter(table.values()))) < 2:
        return None
    return statistics.mean_ranks(table, higher_is_better=higher_is_better, blocks=blocks)
