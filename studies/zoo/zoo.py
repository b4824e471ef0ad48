"""Two tables of many methods: accuracy; cost to a target, traffic, time and state.

    fedbench compare --config docs/results/zoo-fashion.yaml --out zoo-fashion
    python studies/zoo/zoo.py zoo-fashion --out docs/results/zoo-fashion.csv

Reads the runs of a comparison, writes a line per run, and prints both Markdown tables of each
setting with a line per method; methods that bring their own clock have a setting of their own.
Scored are the models that a method gives its clients, the global one or their own, on all test
data, and on test data like each client's: the option ``clients.test`` has to be set. What a method
keeps between rounds is measured here, in two further rounds of its first run.

Seeds that were run elsewhere are added from their file, and what methods keep is taken from it; the
target has to be the same:

    python studies/zoo/zoo.py more-seeds --earlier zoo.csv --target 0.82 --out zoo.csv

Differences from the reference, ``fedavg``, are paired seed by seed, of the accuracy on all test
data, with their 95 % interval; bold are those that a paired t-test finds significant at 5 % after
Holm's correction over all methods. With ``--ranks``, the mean ranks of the first setting are drawn
as a critical-difference diagram.
"""

from __future__ import annotations

import argparse
import csv
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import fedbench
from fedbench import Run
from fedbench.config.model import RunConfig
from fedbench.engine.profiling import Kept
from fedbench.plugins.registry import Registry
from fedbench.report.draw import pictures
from fedbench.report.rank_figure import of_seeds
from fedbench.study.analysis import Group
from fedbench.study.censoring import Amount, median
from fedbench.study.records import Record
from fedbench.study.statistics import Paired, Ranks, complete, holm, mean_ranks, paired
from fedbench.text import size
from fedbench.values import nbytes


@dataclass(frozen=True)
class Row:
    """One run.

    Attributes:
        method: its name.
        data: the setting's name in the report.
        seed: of the run.
        status: finished, failed, interrupted or unfinished.
        rounds: finished ones.
        model: whose models are scored, ``global`` or ``personal``; the latter are the clients' own.
        accuracy: on all test data by the run's rule, a fraction; of personal ones the mean.
        worst: the same on the worst domain.
        clients: accuracy on test data like each client's, mean over clients, a fraction.
        worst_tenth: the same over the worst tenth of the clients, in the last scored round.
        reached: whether ``accuracy`` reached the target in any scored round.
        rounds_to_target: until then, or all finished ones; as the next two, ``None`` if the setting
            has no reference.
        bytes_to_target: of all clients in both directions.
        seconds_to_target: of wall-clock time, without scoring.
        bytes_per_round: of all clients in both directions.
        seconds: of wall-clock time of all rounds.
        client_state: bytes that the client keeps between its turns that keeps most.
        server_state: bytes that the server keeps beside the global model.
    """

    method: str
    data: str
    seed: int
    status: str
    rounds: int
    model: str | None
    accuracy: float | None
    worst: float | None
    clients: float | None
    worst_tenth: float | None
    reached: bool
    rounds_to_target: float | None
    bytes_to_target: float | None
    seconds_to_target: float | None
    bytes_per_round: float | None
    seconds: float
    client_state: int | None
    server_state: int | None


def state(registry: Registry, config: RunConfig) -> tuple[int, int]:
    """Return the bytes that a client and the server keep after two rounds of a run.

    The client is the one that keeps most; the server's bytes are without the global model.
    """
    kept = Kept()
    config = replace(config, rounds=2, evaluate_every=2, executor={"name": "inline"})
    run = Run(config, registry=registry, watch=kept)
    run.run()
    assert run.state
    return kept.largest, sum(map(nbytes, run.state.entries.values()))


def row(record: Record, group: Group, kept: tuple[int, int] | None) -> Row:
    """Return the row of a run."""
    result = record.result
    scored = (result.accuracy, *result.others) if result else ()
    own = {r.population: r for r in scored if r.split == record.config.accuracy.split}
    whole, clients = own.get("domains"), own.get("clients")
    reaching = group.curves.reaching
    amounts = reaching.amounts[record.variant] if reaching else {}
    spent = {name: one[record.seed] for name, one in amounts.items()}
    values = {name: amount.value for name, amount in spent.items()}
    traffic = [sum(r.bytes_up.values()) + sum(r.bytes_down.values()) for r in record.rounds]
    return Row(
        method=record.variant,
        data=group.label,
        seed=record.seed,
        status=record.status,
        rounds=len(record.rounds),
        model=whole.model if whole else None,
        accuracy=whole.mean if whole else None,
        worst=whole.worst if whole else None,
        clients=clients.mean if clients else None,
        worst_tenth=clients.worst if clients else None,
        reached="rounds" in spent and spent["rounds"].exact,
        rounds_to_target=values.get("rounds"),
        bytes_to_target=values.get("bytes"),
        seconds_to_target=values.get("seconds"),
        bytes_per_round=statistics.mean(traffic) if traffic else None,
        seconds=sum(r.seconds for r in record.rounds),
        client_state=kept[0] if kept else None,
        server_state=kept[1] if kept else None,
    )


def rows_of(registry: Registry, group: Group, earlier: Sequence[Row] = ()) -> list[Row]:
    """Return a row per run, with the earlier ones; measures the state of methods not in these."""
    found: list[Row] = []
    for variant in dict.fromkeys((*group.variants, *(r.method for r in earlier))):
        before = [r for r in earlier if (r.method, r.data) == (variant, group.label)]
        measured = [(r.client_state, r.server_state) for r in before if r.client_state is not None]
        records = [r for r in group.records if r.variant == variant]
        ended = [r for r in records if r.status == "finished"]
        kept = measured[0] if measured else state(registry, ended[0].config) if ended else None
        rows = {r.seed: r for r in (*before, *(row(record, group, kept) for record in records))}
        found += [rows[seed] for seed in sorted(rows)]
    return found


def spread(values: Sequence[float | None]) -> str:
    """Return mean and standard deviation of fractions, in percent."""
    known = [100 * value for value in values if value is not None]
    if not known:
        return "-"
    if len(known) == 1:
        return f"{known[0]:.2f}"
    return f"{statistics.mean(known):.2f} ± {statistics.stdev(known):.2f}"


def until(rows: Sequence[Row], column: str, form: Callable[[float], str]) -> str:
    """Return the median of what was spent until the target; ``>`` marks a lower bound.

    Runs that did not reach it count with all that they spent, as a bound.
    """
    spent = [(r, getattr(r, column)) for r in rows]
    amounts = [Amount(value, r.reached) for r, value in spent if value is not None]
    if not amounts:
        return "-"
    found = median(amounts)
    return f"{'' if found.exact else '> '}{form(found.value)}"


def ranks(rows: Sequence[Row], column: str) -> Ranks:
    """Return the mean ranks over the seeds, of the methods that finished under every seed."""
    values: dict[str, dict[int, float]] = {}
    for one in rows:
        value = getattr(one, column)
        if value is not None:
            values.setdefault(one.method, {})[one.seed] = value
    return mean_ranks(complete(values), blocks="seeds")


def pairs(
    methods: Mapping[str, Sequence[Row]], reference: str, column: str = "accuracy"
) -> dict[str, Paired]:
    """Return method -> paired difference from the reference in points, where they share a seed."""
    values = {
        method: {r.seed: 100 * value for r in rows if (value := getattr(r, column)) is not None}
        for method, rows in methods.items()
    }
    base = values.get(reference, {})
    return {
        method: paired(ours, base)
        for method, ours in values.items()
        if method != reference and ours.keys() & base.keys()
    }


def differences(methods: Mapping[str, Sequence[Row]], reference: str) -> dict[str, str]:
    """Return method -> difference from the reference; bold if significant after correction."""
    found = pairs(methods, reference)
    corrected = holm([one.p for one in found.values()])
    return {
        method: f"**{one}**" if p is not None and p < 0.05 else str(one)
        for (method, one), p in zip(found.items(), corrected, strict=True)
    }


def accuracies(rows: Sequence[Row], places: Sequence[Mapping[str, float]]) -> list[str]:
    """Return a method's cells of the table of accuracies.

    Args:
        rows: its runs.
        places: mean ranks of all methods, by accuracy on all test data and on the clients'.
    """
    method, ended = rows[0].method, [r for r in rows if r.status == "finished"]
    if not ended:
        return [rows[0].status, *[""] * 4]
    first, second = (f"{p[method]:.1f}" if method in p else "-" for p in places)
    scored = "own" if ended[0].model == "personal" else "global"
    whole, clients = spread([r.accuracy for r in rows]), spread([r.clients for r in rows])
    return [scored, whole, first, clients, second]


def costs(rows: Sequence[Row]) -> list[str]:
    """Return a method's cells of the table of costs, from its runs; at least one has finished."""
    ended = [r for r in rows if r.status == "finished"]
    return [
        f"{sum(r.reached for r in rows)} of {len(rows)}",
        until(rows, "rounds_to_target", "{:g}".format),
        until(rows, "bytes_to_target", size),
        f"{statistics.mean(r.seconds / r.rounds for r in ended):.2f}",
        size(ended[0].client_state or 0),
        size(ended[0].server_state or 0),
    ]


ACCURACIES = ("models", "all test data", "rank", "clients' data", "rank")
PLACE = 3  # of the differences in all test data, among these
COSTS = ("reached target", "rounds", "bytes", "s per round", "client keeps", "server keeps")


def markdown(head: Sequence[str], lines: Mapping[str, Sequence[str]]) -> str:
    """Return a Markdown table with a line of cells per method."""
    made = [f"| `{method}` | " + " | ".join(cells) + " |" for method, cells in lines.items()]
    return "\n".join((f"| METHOD | {' | '.join(head)} |", "|---|" + "---:|" * len(head), *made))


def tables(rows: Sequence[Row], reference: str = "fedavg") -> tuple[str, str]:
    """Return the Markdown tables of accuracies and of costs, by falling accuracy.

    Args:
        rows: all runs of a setting.
        reference: the method that the others are compared with, if it was run in this setting.
    """
    by_method: dict[str, list[Row]] = {}
    for one in rows:
        by_method.setdefault(one.method, []).append(one)
    places = [ranks(rows, "accuracy").ranks, ranks(rows, "clients").ranks]
    apart = differences(by_method, reference)

    def order(method: str) -> float:
        known = [r.accuracy for r in by_method[method] if r.accuracy is not None]
        return -statistics.mean(known) if known else 0.0

    def line(method: str) -> list[str]:
        found = accuracies(by_method[method], places)
        found[PLACE:PLACE] = [apart.get(method, "")] if apart else []
        return found

    methods = sorted(by_method, key=order)
    ended = [m for m in methods if any(r.status == "finished" for r in by_method[m])]
    head = list(ACCURACIES)
    head[PLACE:PLACE] = [f"from `{reference}`"] if apart else []
    return (
        markdown(head, {method: line(method) for method in methods}),
        markdown(COSTS, {m: costs(by_method[m]) for m in ended}),
    )


def diagram(rows: Sequence[Row]) -> bytes:
    """Return the critical-difference diagram of the mean ranks, by accuracy on all test data."""
    variants = list(dict.fromkeys(one.method for one in rows))
    drawn = pictures({"ranks": of_seeds(ranks(rows, "accuracy"), variants)})
    return drawn.files["ranks.png"]


def write(rows: Sequence[Row], out: Path) -> None:
    """Write a line per run."""
    with out.open("w", newline="") as file:
        writer = csv.DictWriter(file, [f.name for f in fields(Row)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(one) for one in rows)


def read(file: Path) -> list[Row]:
    """Return the rows of a file that `write` made."""
    forms = {"method": str, "data": str, "status": str, "model": str, "reached": "True".__eq__}
    forms |= dict.fromkeys(("seed", "rounds", "server_state", "client_state"), int)
    with file.open() as lines:
        rows = list(csv.DictReader(lines))
    return [Row(**{k: forms.get(k, float)(v) if v else None for k, v in r.items()}) for r in rows]


def main(words: Sequence[str] | None = None) -> None:
    """Write the numbers and print the tables that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, help="folder of the comparison")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="CSV file")
    parser.add_argument(
        "--reference", default="fedavg", help="its final accuracy is the target; default fedavg"
    )
    parser.add_argument("--target", type=float, help="another target, a fraction")
    parser.add_argument("--earlier", type=Path, metavar="FILE", help="adds other seeds' lines")
    parser.add_argument("--ranks", type=Path, metavar="FILE", help="draws mean ranks, as PNG")
    given = parser.parse_args(words)
    found = fedbench.load_comparison(given.runs, reference=given.reference, target=given.target)
    groups = found.analysis.groups
    earlier = read(given.earlier) if given.earlier else []
    parts = [rows_of(found.registry, group, earlier) for group in groups]
    elsewhere = [r for r in earlier if r.data not in {group.label for group in groups}]
    write([*(one for rows in parts for one in rows), *elsewhere], given.out)
    for group, rows in zip(groups, parts, strict=True):
        print(group.label, *tables(rows, given.reference), "", sep="\n\n")
    if given.ranks:
        given.ranks.write_bytes(diagram(parts[0]))


if __name__ == "__main__":
    main()
