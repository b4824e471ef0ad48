"""The command line. Thin: each command resolves names, calls the library and prints.

Nothing heavy is imported at the top, so that ``--help`` answers at once.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from .errors import ConfigError, FedbenchError


class OneLine(click.Command):
    """A command that ends with one clear line instead of a traceback, unless ``--debug``."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.append(
            click.Option(["--debug"], is_flag=True, help="Show the traceback of an error.")
        )

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; turn errors into one line."""
        if ctx.params.pop("debug", False):
            ctx.meta["debug"] = True
        try:
            return super().invoke(ctx)
        except (click.exceptions.Exit, click.Abort, click.ClickException, BrokenPipeError):
            raise
        except Exception as error:
            if ctx.meta.get("debug"):
                raise
            text = str(error)
            text += "".join(f" {n}" for n in getattr(error, "__notes__", []) if n not in text)
            if not isinstance(error, FedbenchError):
                text = f"{type(error).__name__}: {text} (--debug shows the traceback)"
            raise click.ClickException(" ".join(text.split())) from error


class Command(OneLine):
    """A plain command."""


class Group(click.Group):
    """A group whose commands are `Command`."""

    command_class = Command
    group_class = type


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="fedbench-toolkit", prog_name="fedbench")
def main() -> None:
    """Benchmark federated learning methods: paired, reproducible to the bit.

    \b
    fedbench run fedhpro --data digits              run a method
    fedbench run fedhpro --without hpal             an ablation
    fedbench config fedhpro > mine.yaml             a full file to edit
    fedbench run mine.yaml                          run it
    fedbench plugins                                what is installed
    fedbench data                                   which data sets there are
    """


def config_flags(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the flags that shape a config."""
    flags = (
        click.option("--data", metavar="NAME", help="Data set; see `fedbench data`."),
        click.option("--card", metavar="NAME", help="Protocol; default the data set's own."),
        click.option("--model", metavar="NAME", help="Model, for example cnn or resnet10."),
        click.option("--rounds", type=int, metavar="N", help="Communication rounds."),
        click.option("--seed", type=int, metavar="S", help="Seed of every random stream."),
        click.option("--device", metavar="DEV", help="cpu, cuda, cuda:1, mps. Default cpu."),
        click.option("--executor", metavar="NAME", help="Where clients run. Default inline."),
        click.option(
            "--set", "sets", multiple=True, metavar="KEY=VALUE",
            help="Any value: hpcl.temperature=0.1, sgd.lr=0.05. Repeatable.",
        ),
        click.option(
            "--without", multiple=True, metavar="PLUGIN",
            help="Leave a plugin out: an ablation. Repeatable.",
        ),
        click.option(
            "--config", "file", type=click.Path(path_type=Path), metavar="FILE",
            help="YAML file, whole or partial; flags and --set win over it.",
        ),
    )  # fmt: skip
    for flag in reversed(flags):
        command = flag(command)
    return command


def resolve_config(
    target: str | None,
    file: Path | None,
    card: str | None,
    sets: tuple[str, ...],
    without: tuple[str, ...],
    **flags: Any,
) -> tuple[Any, Any]:
    """Return (registry, config) for a method's name or a YAML file, and flags."""
    from . import yamlfile
    from .config import resolve
    from .plugins import discover

    registry = discover()
    if target and Path(target).suffix in (".yaml", ".yml"):
        if file:
            raise ConfigError(f"{target} and --config {file}: give one file")
        file, target = Path(target), None
    document = yamlfile.read(file) if file else None
    config = resolve(
        registry, target, file=document, card=card, sets=sets, without=without, flags=flags
    )
    return registry, config


@main.command()
@click.argument("target", metavar="METHOD|FILE.yaml")
@config_flags
@click.option(
    "--out", type=click.Path(path_type=Path), metavar="DIR",
    help="Run directory. An unfinished run of the same config goes on; anything else there is "
    "left alone. Default runs/METHOD-DATA-sSEED, numbered if taken.",
)  # fmt: skip
@click.option(
    "--data-root", type=click.Path(path_type=Path), metavar="DIR",
    help="Where data sets look for files. Default $FEDBENCH_DATA or the user's cache.",
)  # fmt: skip
@click.option("--quiet", is_flag=True, help="No progress, only the result.")
@click.option("--json", "as_json", is_flag=True, help="Print result.json and nothing else.")
def run(
    target: str, out: Path | None, data_root: Path | None, quiet: bool, as_json: bool, **given: Any
) -> None:
    """Run a METHOD, or a YAML file, and keep the run in a directory.

    \b
    fedbench run fedhpro --data digits
    fedbench run fedhpro --without hpal --set hpcl.temperature=0.1 --seed 1
    fedbench run mine.yaml --rounds 5 --out runs/try

    The directory holds config.yaml (running it again repeats the run to the bit), rounds.jsonl,
    result.json, model.safetensors and environment.json. Accuracies are fractions of 1.
    """
    from . import terminal
    from .config import describe_changes
    from .run import Run
    from .store import free_name, unfinished

    registry, config = resolve_config(target, **given)
    changes = describe_changes(registry, config)
    if out is None:
        name = f"{config.method}-{config.data_name}-s{config.seed}".replace("/", "-")
        out = free_name(Path("runs"), name, config.hash)
    show = terminal.progress(config, changes, quiet=quiet or as_json)
    more: Any = {"registry": registry, "data_root": data_root, "progress": show.client}
    goes_on = unfinished(out, config.hash)
    job = Run.resume(out, **more) if goes_on else Run(config, out, **more)
    if goes_on and not (quiet or as_json):
        click.echo(f"Going on with {out} after round {len(job.history)}")
    _execute(job, show, quiet, as_json)


@main.command()
@click.argument("directory", type=click.Path(path_type=Path))
@click.option(
    "--data-root", type=click.Path(path_type=Path), metavar="DIR",
    help="Where data sets look for files. Default $FEDBENCH_DATA or the user's cache.",
)  # fmt: skip
@click.option("--quiet", is_flag=True, help="No progress, only the result.")
@click.option("--json", "as_json", is_flag=True, help="Print result.json and nothing else.")
def resume(directory: Path, data_root: Path | None, quiet: bool, as_json: bool) -> None:
    """Go on with the interrupted run in DIRECTORY; the result is the same to the bit.

    \b
    fedbench resume runs/fedhpro-digits-s0
    """
    from . import terminal
    from .config import describe_changes
    from .plugins import discover
    from .run import Run

    registry = discover()
    job = Run.resume(directory, registry=registry, data_root=data_root)
    changes = describe_changes(registry, job.config)
    show = terminal.progress(job.config, changes, quiet=quiet or as_json)
    job.progress = show.client
    _execute(job, show, quiet, as_json)


def _execute(job: Any, show: Any, quiet: bool, as_json: bool) -> None:
    """Run a job with its progress on show, and print its result."""
    from . import terminal

    out, config = job.directory.path, job.config
    try:
        with show:
            for result in job.rounds():
                show.round(result)
    except KeyboardInterrupt:
        done = len(job.history)
        click.echo(
            f"\nInterrupted after {done} of {config.rounds} rounds; they are in {out}. "
            f"`fedbench show {out}` prints them, `fedbench resume {out}` goes on.",
            err=True,
        )
        sys.exit(130)
    if as_json:
        click.echo(json.dumps(job.result(), indent=2))
    else:
        terminal.print_result(job.result())
        click.echo(f"Kept in {out}")


@main.command()
@click.argument("methods", nargs=-1, metavar="METHOD...")
@click.option("--data", multiple=True, metavar="NAME", help="Data set; repeatable.")
@click.option("--card", "cards", multiple=True, metavar="NAME", help="Protocol; repeatable.")
@click.option("--seeds", metavar="N|A,B,C", help="How many seeds from 0, or which. Default 3.")
@click.option("--rounds", type=int, metavar="N", help="Communication rounds of every run.")
@click.option("--device", metavar="DEV", help="Device of every run.")
@click.option(
    "--set", "sets", multiple=True, metavar="KEY=VALUE", help="A value for every run. Repeatable."
)
@click.option(
    "--config", "file", type=click.Path(path_type=Path), metavar="FILE",
    help="YAML grid: methods, data, cards, partitions, seeds, options; flags win over it.",
)  # fmt: skip
@click.option("--reference", metavar="METHOD", help="Compare with this one. Default the last.")
@click.option(
    "--test", type=click.Choice(["t", "wilcoxon"]),
    help="Paired test. Default t: exact under normality and of use from 3 seeds on, while "
    "Wilcoxon's can't reject at 5 % below 6.",
)  # fmt: skip
@click.option("--jobs", type=click.IntRange(1), metavar="N", help="Runs at once. Default: cores.")
@click.option("--retry", is_flag=True, help="Run failed runs again.")
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("comparison"), metavar="DIR",
    help="Where runs and report are kept; finished runs are reused. Default comparison.",
)  # fmt: skip
@click.option(
    "--data-root", type=click.Path(path_type=Path), metavar="DIR",
    help="Where data sets look for files. Default $FEDBENCH_DATA or the user's cache.",
)  # fmt: skip
@click.option("--quiet", is_flag=True, help="No progress, only the result.")
def compare(
    methods: tuple[str, ...], seeds: str | None, file: Path | None, jobs: int | None,
    retry: bool, out: Path, data_root: Path | None, quiet: bool, **given: Any,
) -> None:  # fmt: skip
    """Run METHODs over seeds and say which is better, and by how much.

    \b
    fedbench compare fedavg fedproto fpl fedhpro --data digits --seeds 5
    fedbench compare fedhpro:-hpcl fedhpro:-hpal fedhpro:hpcl.temperature=0.1 fedhpro
    fedbench compare --config grid.yaml

    Within one seed all methods share partition, initial weights, client sampling and batch order.
    Finished runs are reused: adding a method or a seed runs only what is new. Writes report.html,
    tables and figures into --out.
    """
    import os

    from . import compare as comparison
    from . import terminal
    from .options import build
    from .plugins import discover

    registry = discover()
    wanted = {
        "methods": list(methods),
        "seeds": _seeds(seeds),
        "set": list(given.pop("sets")),
        "data": list(given.pop("data")),
        "cards": list(given.pop("cards")),
        **given,
    }
    changes = {key: value for key, value in wanted.items() if value not in (None, [])}
    if file:
        grid = comparison.load_grid(file, changes)
    elif methods:
        grid = build(comparison.Grid, changes, lambda path: ".".join(("command line", *path)))
    else:
        raise click.UsageError("name methods to compare, or a grid with --config FILE")
    jobs_planned = comparison.plan(registry, grid, out)
    show = terminal.comparison_progress(quiet)
    try:
        with show:
            comparison.execute(
                jobs_planned,
                workers=jobs or os.cpu_count() or 1,
                retry=retry,
                data_root=data_root,
                show=show.update,
            )
    except KeyboardInterrupt:
        click.echo(
            f"\nInterrupted; finished runs are kept in {out}. The same command goes on.", err=True
        )
        sys.exit(130)
    found = comparison.collect(registry, jobs_planned)
    labels = comparison.labels(registry, jobs_planned)
    _report(registry, found, labels, grid.reference, grid.test, out)
    if any(r.status == "failed" for r in found):
        sys.exit(1)


@main.command()
@click.argument("directories", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--reference", metavar="METHOD", help="Compare with this one. Default the last.")
@click.option("--test", type=click.Choice(["t", "wilcoxon"]), default="t", help="Paired test.")
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("report"), metavar="DIR",
    help="Where to write the report. Default report.",
)  # fmt: skip
def report(directories: tuple[Path, ...], reference: str | None, test: Any, out: Path) -> None:
    """Rebuild tables, figures and page from run DIRECTORIES, also from other machines.

    \b
    fedbench report runs/* --out report

    Runs are grouped by data, partition, model, rounds and accuracy rule; what differs is kept
    apart, never averaged.
    """
    from . import records
    from .plugins import discover

    registry = discover()
    found = [records.read(registry, path) for path in records.find(directories)]
    _report(registry, found, None, reference, test, out)


def _seeds(text: str | None) -> int | list[int] | None:
    if text is None:
        return None
    try:
        return [int(part) for part in text.split(",") if part] if "," in text else int(text)
    except ValueError:
        raise click.BadParameter(f"{text!r}: write 5, or 0,1,2", param_hint="--seeds") from None


def _report(
    registry: Any, found: Any, labels: Any, reference: str | None, test: Any, out: Path
) -> None:
    from .analysis import analyse
    from .report import write
    from .report.terminal import print_analysis

    if labels and reference:
        reference = labels[reference]
    order = list(dict.fromkeys(labels.values())) if labels else None
    analysis = analyse(registry, found, variants=order, reference=reference, test=test)
    print_analysis(analysis)
    paths = write(analysis, out)
    click.echo("Wrote " + ", ".join(str(p) for p in paths if p.parent == out))


@main.command()
@click.argument("directory", type=click.Path(path_type=Path))
def show(directory: Path) -> None:
    """Print the rounds and the result of a run DIRECTORY, finished or not.

    \b
    fedbench show runs/fedhpro-digits-s0
    """
    from . import terminal

    terminal.print_run(directory)


@main.command()
@click.argument("target", metavar="[METHOD|FILE.yaml]", required=False)
@config_flags
@click.option("--schema", is_flag=True, help="Print the JSON schema of config files instead.")
def config(target: str | None, schema: bool, **given: Any) -> None:
    """Print the full resolved YAML of a METHOD, to start from.

    \b
    fedbench config fedhpro > mine.yaml
    fedbench config --schema > fedbench.schema.json
    """
    if schema:
        from .config import json_schema
        from .plugins import discover

        click.echo(json.dumps(json_schema(discover()), indent=2))
        return
    if target is None and given["file"] is None:
        raise click.UsageError("name a method, for example: fedbench config fedavg")
    click.echo(resolve_config(target, **given)[1].to_yaml(), nl=False)


class Listing(OneLine, Group):
    """A group that lists when no subcommand is given."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{**kwargs, "invoke_without_command": True})


@main.group(cls=Listing)
@click.pass_context
def plugins(ctx: click.Context) -> None:
    """List what is installed, by which package, and which hooks each plugin implements.

    \b
    fedbench plugins
    fedbench plugins show hpcl                      its options, defaults and bounds
    """
    if ctx.invoked_subcommand is None:
        from . import terminal
        from .plugins import discover

        terminal.print_plugins(discover())


@plugins.command("show")
@click.argument("name")
def plugins_show(name: str) -> None:
    """Print what NAME is: its options, defaults, bounds, hooks and doc.

    \b
    fedbench plugins show hpcl
    """
    from . import terminal
    from .plugins import discover

    terminal.print_plugin(discover(), name)


@main.command()
@click.argument("name", required=False)
def cards(name: str | None) -> None:
    """List protocol cards, or print one: its values, their reasons, published results.

    \b
    fedbench cards
    fedbench cards digits
    """
    from . import terminal
    from .plugins import discover

    if name:
        terminal.print_card(discover(), name)
    else:
        terminal.print_cards(discover())


@main.command()
@click.argument("target", metavar="[METHOD|FILE.yaml]", default="fedavg")
@config_flags
@click.option(
    "--png", type=click.Path(path_type=Path), metavar="FILE", help="Draw a heat map into FILE."
)
@click.option(
    "--data-root", type=click.Path(path_type=Path), metavar="DIR",
    help="Where data sets look for files. Default $FEDBENCH_DATA or the user's cache.",
)  # fmt: skip
def partition(target: str, png: Path | None, data_root: Path | None, **given: Any) -> None:
    """Show what each client would get, without training.

    \b
    fedbench partition --data digits --png partition.png
    fedbench partition --card cifar10-nid1-0.5 --set dirichlet.alpha=0.1 --seed 3
    """
    from . import terminal
    from .run import Runtime, partition_table
    from .store import default_data_root

    registry, config = resolve_config(target, **given)
    runtime = Runtime(config, registry, data_root or default_data_root())
    terminal.show_partition(config, partition_table(runtime), png)


@main.group(cls=Listing)
@click.option(
    "--data-root", type=click.Path(path_type=Path), metavar="DIR",
    help="Where data sets look for files. Default $FEDBENCH_DATA or the user's cache.",
)  # fmt: skip
@click.pass_context
def data(ctx: click.Context, data_root: Path | None) -> None:
    """List data sets: embedded or not, size, licence, where they look for files.

    \b
    fedbench data
    fedbench data show digits --out sheets          counts and a PNG of each domain
    fedbench data fetch mnist                       download its files
    """
    from .store import default_data_root

    ctx.obj = data_root or default_data_root()
    if ctx.invoked_subcommand is None:
        from . import terminal
        from .plugins import discover

        terminal.print_datasets(discover(), ctx.obj)


@data.command("show")
@click.argument("name")
@click.option(
    "--out", type=click.Path(path_type=Path, file_okay=False), default=Path("."), metavar="DIR",
    help="Where to write the contact sheets. Default the current directory.",
)  # fmt: skip
@click.pass_context
def data_show(ctx: click.Context, name: str, out: Path) -> None:
    """Print the counts of data set NAME and write a PNG contact sheet of each domain.

    \b
    fedbench data show digits --out sheets
    """
    from . import terminal
    from .plugins import discover

    terminal.show_dataset(discover(), name, ctx.obj, out)


@data.command("fetch")
@click.argument("name")
@click.pass_context
def data_fetch(ctx: click.Context, name: str) -> None:
    """Download the files of data set NAME, checked against their published checksums.

    A download that was interrupted goes on where it stopped. For data that may not be downloaded
    plainly it says where to get the files and where to put them.

    \b
    fedbench data fetch mnist
    fedbench data --data-root /big/disk fetch sun397
    """
    from . import fetch
    from .plugins import discover

    click.echo(fetch.fetch(discover(), name, ctx.obj))
