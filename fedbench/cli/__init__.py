"""The command line. Thin: each command resolves names, calls the library and prints.

Nothing heavy is imported at the top, so that ``--help`` answers at once.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from ..errors import NO_MEMORY, ConfigError, FedbenchError
from . import signals


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
        with signals.orderly():
            try:
                signals.follow_parent()
                return super().invoke(ctx)
            except KeyboardInterrupt as error:
                click.echo("\nInterrupted", err=True)
                sys.exit(signals.status(error))
            except (click.exceptions.Exit, click.Abort, click.ClickException, BrokenPipeError):
                raise
            except Exception as error:
                if ctx.meta.get("debug"):
                    raise
                raise click.ClickException(one_line(error)) from error


def one_line(error: Exception) -> str:
    """Return an error as one printable line that says what is wrong and where."""
    text = str(error)
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    elif isinstance(error, MemoryError) or any(words in text for words in NO_MEMORY):
        text = f"not enough memory: {text}"
    elif not isinstance(error, FedbenchError):
        first = text.split("\n")[0]  # torch adds its C++ frames
        text = f"{type(error).__name__}: {first} (--debug shows the traceback)"
    text += "".join(f" {n}" for n in getattr(error, "__notes__", []) if n not in text)
    shown = (c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return "".join(" " if c.isspace() else c for c in " ".join("".join(shown).split()))


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
        click.option(
            "--precision", metavar="P",
            help="fp32 (default) or bf16: faster where the processor has it; see docs.",
        ),
        click.option(
            "--executor", metavar="NAME",
            help="Where clients run: pool (default), inline, ray. The bits are the same.",
        ),
        click.option(
            "--workers", type=int, metavar="N", help="Parallel clients. Default one a core."
        ),
        click.option(
            "--set", "sets", multiple=True, metavar="KEY=VALUE",
            help="Any value: hpcl.temperature=0.1, sgd.lr=0.05. Repeatable.",
        ),
        click.option(
            "--without", multiple=True, metavar="PLUGIN",
            help="Leave a plugin out: an ablation. Repeatable.",
        ),
        click.option(
            "--with", "plus", multiple=True, metavar="PLUGIN",
            help="Add a plugin; --set PLUGIN.OPTION=VALUE sets its options. Repeatable.",
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
    plus: tuple[str, ...],
    any_method: bool = False,
    **flags: Any,
) -> tuple[Any, Any]:
    """Return (registry, config) for a method's name or a YAML file, and flags.

    With ``any_method`` neither has to name one, for what belongs to the card alone.
    """
    from .. import yamlfile
    from ..config import resolve
    from ..plugins import discover

    registry = discover()
    if target and Path(target).suffix in (".yaml", ".yml"):
        if file:
            raise ConfigError(f"{target} and --config {file}: give one file")
        file, target = Path(target), None
    document = yamlfile.read(file) if file else None
    if any_method and not target and not (document and {"recipe", "method"} & document.data.keys()):
        target = registry.names("recipe")[0]
    if (workers := flags.pop("workers", None)) is not None:
        name = {"name": flags["executor"]} if flags["executor"] else {}
        flags["executor"] = {**name, "workers": workers}
    config = resolve(
        registry,
        target,
        file=document,
        card=card,
        sets=sets,
        without=without,
        plus=plus,
        flags=flags,
    )
    return registry, config


def checkpoint_flags(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the flags that say how often a checkpoint is written, and whether it stays."""
    flags = (
        click.option(
            "--checkpoint-rounds", type=click.IntRange(1), metavar="N",
            help="Write a checkpoint after every N rounds.",
        ),
        click.option(
            "--checkpoint-minutes", type=click.FloatRange(0), default=1.0, metavar="M",
            help="Write a checkpoint at the end of a round after M minutes. Default 1.",
        ),
        click.option(
            "--keep-checkpoints", is_flag=True,
            help="Leave all checkpoints in checkpoints/, for `verify --rounds` to start from.",
        ),
    )  # fmt: skip
    for flag in reversed(flags):
        command = flag(command)
    return command


@main.command()
@click.argument("target", metavar="METHOD|FILE.yaml")
@config_flags
@checkpoint_flags
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
    target: str, out: Path | None, data_root: Path | None, quiet: bool, as_json: bool,
    checkpoint_rounds: int | None, checkpoint_minutes: float, keep_checkpoints: bool, **given: Any,
) -> None:  # fmt: skip
    """Run a METHOD, or a YAML file, and keep the run in a directory.

    \b
    fedbench run fedhpro --data digits
    fedbench run fedhpro --without hpal --set hpcl.temperature=0.1 --seed 1
    fedbench run fedavg --with faults --set faults.drop=0.2 --set failures.policy=skip
    fedbench run mine.yaml --rounds 5 --out runs/try

    The directory holds config.yaml (running it again repeats the run to the bit), rounds.jsonl,
    result.json, model.safetensors and environment.json, with --keep-checkpoints also checkpoints/.
    Accuracies are fractions of 1.
    """
    from .. import progress
    from ..config import describe_changes
    from ..run import Run
    from ..store import free_name, unfinished

    registry, config = resolve_config(target, **given)
    changes = describe_changes(registry, config)
    if out is None:
        name = f"{config.method}-{config.data_name}-s{config.seed}"
        out = free_name(Path("runs"), re.sub(r"[^\w.=+-]+|^[.]", "-", name)[-100:], config.hash)
    show = progress.progress(config, changes, quiet=quiet or as_json)
    more: Any = {"registry": registry, "data_root": data_root, "progress": show.client}
    more |= {
        "checkpoint_rounds": checkpoint_rounds,
        "checkpoint_seconds": 60 * checkpoint_minutes,
        "keep_checkpoints": keep_checkpoints,
    }
    goes_on = unfinished(out, config.hash)
    job = Run.resume(out, **more) if goes_on else Run(config, out, **more)
    if goes_on and not (quiet or as_json):
        click.echo(f"Going on with {out} after round {len(job.history)}")
    _execute(job, show, quiet, as_json)


@main.command()
@click.argument("directory", type=click.Path(path_type=Path))
@checkpoint_flags
@click.option(
    "--data-root", type=click.Path(path_type=Path), metavar="DIR",
    help="Where data sets look for files. Default $FEDBENCH_DATA or the user's cache.",
)  # fmt: skip
@click.option("--quiet", is_flag=True, help="No progress, only the result.")
@click.option("--json", "as_json", is_flag=True, help="Print result.json and nothing else.")
def resume(
    directory: Path, data_root: Path | None, quiet: bool, as_json: bool,
    checkpoint_rounds: int | None, checkpoint_minutes: float, keep_checkpoints: bool,
) -> None:  # fmt: skip
    """Go on with the interrupted run in DIRECTORY; the result is the same to the bit.

    \b
    fedbench resume runs/fedhpro-digits-s0
    """
    from .. import progress
    from ..config import describe_changes
    from ..plugins import discover
    from ..run import Run

    registry = discover()
    job = Run.resume(
        directory, registry=registry, data_root=data_root,
        checkpoint_rounds=checkpoint_rounds, checkpoint_seconds=60 * checkpoint_minutes,
        keep_checkpoints=keep_checkpoints,
    )  # fmt: skip
    changes = describe_changes(registry, job.config)
    show = progress.progress(job.config, changes, quiet=quiet or as_json)
    job.progress = show.client
    _execute(job, show, quiet, as_json)


def _execute(job: Any, show: Any, quiet: bool, as_json: bool) -> None:
    """Run a job with its progress on show, and print its result."""
    from .. import terminal

    out, config = job.directory.path, job.config
    try:
        with show:
            for result in job.rounds():
                show.round(result)
    except KeyboardInterrupt as error:
        done = len(job.history)
        click.echo(
            f"\nInterrupted after {done} of {config.rounds} rounds; they are in {out}. "
            f"`fedbench show {out}` prints them, `fedbench resume {out}` goes on.",
            err=True,
        )
        sys.exit(signals.status(error))
    if as_json:
        click.echo(json.dumps(job.result(), indent=2))
    else:
        terminal.print_result(job.result())
        click.echo(f"Kept in {out}")


@main.command()
@click.argument("directory", type=click.Path(path_type=Path))
def show(directory: Path) -> None:
    """Print the rounds and the result of a run DIRECTORY, finished or not.

    \b
    fedbench show runs/fedhpro-digits-s0
    """
    from .. import terminal

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
        from ..plugins import discover
        from ..schema import json_schema

        click.echo(json.dumps(json_schema(discover()), indent=2))
        return
    if target is None and given["file"] is None:
        raise click.UsageError("name a method, for example: fedbench config fedavg")
    click.echo(resolve_config(target, **given)[1].to_yaml(), nl=False)


class Listing(OneLine, Group):
    """A group that lists when no subcommand is given."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{**kwargs, "invoke_without_command": True})


from . import compare, listings, new, profile, verify  # noqa: E402,F401 - they add commands
