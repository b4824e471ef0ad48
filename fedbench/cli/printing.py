"""The output of the commands: results, lists, contact sheets; plain text outside a terminal."""

from __future__ import annotations

import inspect
import json
import re
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path

from .. import options
from ..config import yamlfile
from ..config.cards import load_card
from ..config.construct import build
from ..config.model import RunConfig
from ..errors import ConfigError, did_you_mean
from ..interface.progress import accuracy_rows, console, grid, title, unit_of
from ..plugins.registry import LIMIT, Entry, Registry
from ..plugins.rules import FILES
from ..store.contents import Partition, Reported, Result
from ..store.directory import RunDirectory
from ..study import reproductions
from ..text import Unit, duration, echo, score, size, unrepeatable
from ..types import Dataset, RoundResult, Score, SplitScores
from .counts import print_counts

MANY = 100
"""The number of rows after which a table is cut off."""


def print_result(result: Result, unit: Unit) -> None:
    """Print a result table: accuracy with its rule, bytes, seconds, digests.

    Args:
        result: the run's result.
        unit: the unit of the metric that it reports.
    """
    out = console()
    head = title(result.method, result.changes, result.data, result.seed)
    out.print(head, style="bold", soft_wrap=True)
    found = [result.accuracy, *result.others]
    plain = len(found) == 1 and (found[0].split, found[0].model) == ("test", "global")
    for accuracy in found:
        if not plain or accuracy.population == "clients":
            out.print(_scored(accuracy), style="bold")
        table = grid(f"{accuracy.metric}, {accuracy.rule}", "%" if unit == "percent" else "")
        for label, value in accuracy_rows(accuracy):
            table.add_row(label, score(value, unit))
        out.print(table)
    table = grid("bytes per round, all clients", "up", "down")
    up, down = result.bytes.up, result.bytes.down
    for key in dict.fromkeys((*down, *up)):
        table.add_row(key, *(size(sent[key]) if key in sent else "-" for sent in (up, down)))
    out.print(table)
    for name, value in (result.extra or {}).items():
        out.print(f"{accuracy.metric} on {name}: {score(value, unit)}; it enters no mean")
    for line in result.conclusions:
        echo(line)
    if failures := dict(result.failures or {}):
        lost = failures.pop("lost", 0)
        counts = ", ".join(f"{kind} {number}" for kind, number in failures.items())
        out.print(f"{lost} clients lost in {result.rounds} rounds; failures: {counts}")
    out.print(f"{result.rounds} rounds in {duration(result.seconds)}")
    if time := result.virtual_time:
        turns = ", ".join(f"{number} {outcome}" for outcome, number in time.turns.items())
        out.print(
            f"{time.seconds:,.1f} virtual seconds; turns: {turns}; "
            f"clients at work {time.utilisation:.0%} of the time"
        )
    if stop := result.stop_at:
        wanted = f"{result.accuracy.metric} {score(stop.value, unit)}"
        end = f"ended by reaching {wanted}" if stop.reached else f"did not reach {wanted}"
        out.print(f"{end} (stop_at)")
    if own := result.personal:
        sent = ", ".join(f"{key} {size(number)}" for key, number in own.bytes.items())
        bytes_too = f" and, per round, {sent}" if sent else ""
        out.print(f"besides, for clients' scores: {duration(own.seconds)}{bytes_too}")
    if result.in_memory:
        out.print(unrepeatable(result.in_memory))
    out.print(f"weights {result.weights_sha256[:16]}  metrics {result.metrics_sha256[:16]}")


def _scored(accuracy: Reported) -> str:
    """Return in words which models were scored on whose data."""
    model = "the global model" if accuracy.model == "global" else "the clients' own models"
    whose = "held out by each client" if accuracy.population == "clients" else "by domain"
    return f"{model}, {accuracy.split} data {whose}"


def print_run(registry: Registry, directory: Path) -> None:
    """Print the rounds of a run directory, and its result if the run is finished.

    Raises:
        ConfigError: when the directory holds no run, one of its files is damaged, or one of its
            metrics is not installed.
    """
    rounds, result = RunDirectory.open(directory).read_progress()
    shown: dict[str, list[tuple[int, str, dict[str, Score]]]] = {}
    for one in rounds:
        for name, metric, cells in _scores(one):
            shown.setdefault(name, []).append((one.round, metric, cells))
    for name, rows in shown.items():
        console().print(name, style="bold")
        table = grid("round", *rows[0][2])
        for number, metric, cells in rows:
            unit = unit_of(registry, metric)
            table.add_row(str(number), *(score(cell, unit) for cell in cells.values()))
        console().print(table)
    if result:
        print_result(result, unit_of(registry, result.accuracy.metric))
    else:
        echo(f"{len(rounds)} rounds; the run is not finished")


def _scores(one: RoundResult) -> Iterator[tuple[str, str, dict[str, Score]]]:
    """Yield the name of a table, its metric and a round's cells in it, by column."""
    test = SplitScores(one.scores, one.client_scores)
    for found, split in ((test, ""), (one.validation, ", validation data")):
        for rule, metrics in found.domains.items():
            for metric, scores in metrics.items():
                if scores.mean is not None:
                    cells = {"mean": scores.mean, **scores.domains}
                    yield f"{metric}, {rule} inference{split}", metric, cells
        for rule, by_metric in found.clients.items():
            for metric, over in by_metric.items():
                cells = {
                    "by examples": over.mean,
                    "plain mean": over.plain,
                    "std": over.std,
                    "worst tenth": over.worst_tenth,
                }
                yield f"{metric}, {rule} inference{split}, over clients", metric, cells


def print_plugins(registry: Registry) -> None:
    """Print everything installed, kind by kind."""
    labels = {"plugin": "run plugins", "dataset": "data sets"}
    rows: list[tuple[Entry, tuple[str, ...], str]] = [
        (entry, ("" if number else family, entry.name), entry.about)
        for family, methods in registry.families().items()
        for number, entry in enumerate(methods)
    ]
    _print_entries("methods", ("family", "name", "about"), rows)
    for kind in ("plugin", "dataset", "model", "metric", "executor", *FILES):
        head = ("name", "hooks" if kind == "plugin" else "about")
        rows = [(e, (e.name,), _about(registry, kind, e)) for e in registry.all(kind)]
        _print_entries(labels.get(kind, f"{kind}s"), head, rows)
    out = console()
    for package, why in registry.failures.items():
        out.print(f"not loaded: {package}: {why}", style="bold red", soft_wrap=True)
    if registry.left_out:
        out.print(f"left out by {LIMIT}: {', '.join(registry.left_out)}", soft_wrap=True)


def _about(registry: Registry, kind: str, entry: Entry) -> str:
    """Return what the listing says of an entry besides its name."""
    if kind == "plugin":
        return ", ".join(entry.hooks)
    if kind not in FILES:
        return entry.about
    try:
        if kind == "reproduction":
            return reproductions.load(registry, entry.name)[0].title
        return load_card(registry, entry.name).title
    except ConfigError as error:
        return str(error)


def _print_entries(
    title: str, head: Sequence[str], rows: Sequence[tuple[Entry, tuple[str, ...], str]]
) -> None:
    """Print a table of installed entries, with a column for their packages if there are several.

    Args:
        title: what they are.
        head: the names of the columns.
        rows: each entry with its first cells and its last one.
    """
    packages = {f"{entry.package} {entry.version}" for entry, _, _ in rows}
    several = len(packages) > 1
    columns = (*head[:-1], "package", head[-1]) if several else head
    table = grid(*columns, title=title if several else f"{title} of {next(iter(packages), '-')}")
    for column in table.columns:
        column.justify = "left"
    for entry, first, last in rows:
        package = (f"{entry.package} {entry.version}",) if several else ()
        table.add_row(*first, *package, last)
    console().print(table)


def print_plugin(registry: Registry, name: str) -> None:
    """Print one installed entry: its package, description, hooks and options.

    Raises:
        ConfigError: when nothing has that name.
    """
    kinds = sorted({kind for kind, known in registry.entries if known == name})
    if not kinds:
        known = {known for _, known in registry.entries}
        raise ConfigError(f"nothing installed is called {name!r}{did_you_mean(name, known)}")
    out = console()
    for kind in kinds:
        entry = registry.get(kind, name)
        out.print(f"{name}: {kind} of {entry.package} {entry.version}", style="bold")
        if kind == "card":
            card = load_card(registry, name)
            out.print(f"{card.title} (version {card.version}, {card.hash})")
            echo(json.dumps(card.config, indent=2), lines=True)
            continue
        if kind == "reproduction":
            found, _ = reproductions.load(registry, name)
            out.print(f"{found.title} (version {found.version})\n{found.source}")
            continue
        if kind == "recipe":
            family = f"\nfamily: {entry.value.family}" if entry.value.family else ""
            out.print(f"{entry.value.about}\n{entry.value.source}{family}\n")
            for plugin, given in entry.value.plugins.items():
                text = ", ".join(f"{k}={v}" for k, v in given.items())
                out.print(f"  {plugin}: {text or 'defaults'}")
            continue
        print_description(entry.value)
        if entry.hooks:
            out.print(f"\nhooks: {', '.join(entry.hooks)}")
        print_options(entry.value)


def print_description(value: object) -> None:
    """Print the docstring of something registered, filled to the width of the console."""
    out = console()
    paragraphs = (inspect.getdoc(value) or "").split("\n\n")
    out.print("\n\n".join(filled(text, out.width) for text in paragraphs), soft_wrap=True)


def filled(text: str, width: int, indent: str = "") -> str:
    """Return text in lines of at most ``width``, without breaking words or indented blocks."""
    if "\n " in text:
        return text
    return textwrap.fill(
        " ".join(text.split("\n")),
        width,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def print_options(cls: type) -> None:
    """Print a table of the options of a registered class, if it has any."""
    if found := options.describe(cls):
        searched = ("search",) if any(o.search for o in found) else ()
        table = grid("option", "type", "default", "bounds", *searched, "about", title="options")
        for column in table.columns:
            column.justify = "left"
        for o in found:
            search = (o.search,) if searched else ()
            table.add_row(o.name, o.type, o.default, o.bounds, *search, o.about)
        console().print(table)


def print_cards(registry: Registry) -> None:
    """Print the protocol cards."""
    table = grid("name", "version", "hash", "data", "title")
    for column in table.columns:
        column.justify = "left"
    for name in registry.names("card"):
        card = load_card(registry, name)
        table.add_row(name, str(card.version), card.hash, card.data, card.title)
    console().print(table)


def print_card(registry: Registry, name: str) -> None:
    """Print a card: its values, the reason for each, and published results."""
    card = load_card(registry, name)
    echo(f"{card.name}, version {card.version}, {card.hash}: {card.title}\n", lines=True)
    echo(yamlfile.dump(card.config), lines=True)
    table = grid("value", "why", title="reasons")
    table.columns[1].justify = "left"
    for key, why in card.reasons.items():
        table.add_row(key, why)
    console().print(table)
    if card.published:
        table = grid("published", "of", "%", "source")
        table.columns[1].justify = table.columns[3].justify = "left"
        for found in card.published:
            table.add_row(found.method, found.column, score(found.value, "percent"), found.source)
        console().print(table)


def show_partition(config: RunConfig, table: Partition, out: Path | None) -> None:
    """Print a partition, client by client, and draw it as a PNG heat map.

    Raises:
        ConfigError: when the picture cannot be written.
        NotDrawn: when it cannot be drawn.
    """
    counts = table.counts
    rows = [
        ((str(client), domain), row)
        for client, domains in list(counts.items())[:MANY]
        for domain, row in domains.items()
    ]
    print_counts(("client", "domain"), table.classes, rows, zero=".")
    sizes = [sum(map(sum, domains.values())) for domains in counts.values()]
    more = f" (the first {MANY} shown)" if len(sizes) > MANY else ""
    echo(
        f"{len(sizes)} clients{more}, {min(sizes)} to {max(sizes)} examples each, {sum(sizes)} in "
        f"all; seed {config.seed}"
    )
    if out:
        from ..report import draw, figures
        from ..store.files import write_atomic

        figure = figures.partition_figure(table, "")
        if figure is None:
            raise ConfigError("no client has any examples, so there is nothing to draw")
        drawn = draw.pictures({"partition": figure})
        if drawn.missing:
            raise draw.NotDrawn(f"{out} was not written: {drawn.missing['partition']}")
        try:
            write_atomic(out, drawn.files["partition.png"])
        except OSError as error:
            raise ConfigError(f"{out} cannot be written: {error.strerror or error}") from error
        echo(f"wrote {out}")


def show_dataset(registry: Registry, name: str, root: Path, folder: Path) -> None:
    """Print a data set's counts and write a contact sheet per domain into ``folder``.

    Raises:
        ConfigError: when there is no such data set or the folder cannot be written.
    """
    import torch

    entry = registry.get("dataset", name)
    data: Dataset = build(registry, "dataset", {"name": name}).load(root)
    echo(f"{name}: {entry.about}")
    shape = " x ".join(str(n) for n in data.train.inputs.shape[1:])
    echo(f"inputs {shape} {str(data.train.inputs.dtype).removeprefix('torch.')}")
    rows = [
        ((domain, split), labels.bincount(minlength=len(data.classes)).tolist())
        for number, domain in enumerate(data.domains)
        for split, examples in (("train", data.train), ("test", data.test))
        for labels in [examples.labels[examples.domains == number]]
    ]
    print_counts(("domain", "split"), data.classes, rows)
    if data.train.clients is not None:
        sizes = data.train.clients.bincount(minlength=len(data.clients)).tolist()
        span = f"{min(sizes):,} to {max(sizes):,} training examples each"
        echo(f"{len(sizes):,} clients of its own, {span}: use the partition natural")
    if data.train.inputs.ndim != 4:
        return
    from PIL import Image
    from torchvision.utils import make_grid

    drawn = min(len(data.classes), MANY)
    each = "per class" if drawn == len(data.classes) else f"for each of the first {MANY} classes"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for number, domain in enumerate(data.domains):
            here = data.train[data.train.domains == number]
            of_class = [here.inputs[here.labels == c][:20] for c in range(drawn)]
            filled = [torch.cat([r, r.new_zeros(20 - len(r), *r.shape[1:])]) for r in of_class]
            slug = re.sub(r"[^\w.=+-]", "_", domain)
            path = folder / f"{name}-{slug if slug == domain else f'{number}-{slug}'}.png"
            sheet = make_grid(torch.cat(filled), nrow=20, padding=2, pad_value=128)
            Image.fromarray(sheet.permute(1, 2, 0).numpy()).save(path)
            echo(f"wrote {path} (one row {each}, 20 training images each)")
    except (OSError, RuntimeError) as error:
        raise ConfigError(f"{folder} cannot be written: {error}") from error
