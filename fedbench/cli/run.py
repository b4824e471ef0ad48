"""``fedbench run``, ``resume`` and ``show``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..text import echo
from . import signals
from .base import Command
from .flags import (
    checkpoint_flags,
    config_flags,
    data_root_flag,
    executor_flags,
    installed,
    resolve_config,
)
from .kinds import PATH

if TYPE_CHECKING:
    from ..plugins.registry import Registry


@click.command(cls=Command)
@click.argument("target", metavar="METHOD|FILE.yaml")
@config_flags
@checkpoint_flags
@click.option(
    "--out", type=PATH, metavar="DIR",
    help="Run directory. An unfinished run of the same config in it resumes; anything else is an "
    "error. Default: runs/METHOD-DATA-sSEED, numbered if it exists.",
)  # fmt: skip
@data_root_flag
@click.option(
    "--keep-personal", is_flag=True,
    help="Keep the clients' own models in personal/, for methods that make such models.",
)  # fmt: skip
@click.option(
    "--until", type=click.IntRange(1), metavar="N",
    help="Pause after round N, with a checkpoint; `fedbench resume` continues.",
)  # fmt: skip
@click.option("--quiet", is_flag=True, help="Print no progress, only the result.")
@click.option("--json", "as_json", is_flag=True, help="Print result.json and nothing else.")
def run(
    target: str, out: Path | None, data_root: Path | None, quiet: bool, as_json: bool,
    checkpoint_rounds: int | None, checkpoint_minutes: float, keep_checkpoints: bool,
    keep_personal: bool, until: int | None, **given: Any,
) -> None:  # fmt: skip
    """Run a METHOD or a YAML file, and keep the run in a directory.

    \b
    fedbench run fedhpro --data digits
    fedbench run fedhpro --without hpal --set hpcl.temperature=0.1 --seed 1
    fedbench run fedavg --with faults --set faults.stale=0.2
    fedbench run mine.yaml --rounds 5 --out runs/try

    The directory holds config.yaml (which `fedbench run` repeats to the bit), rounds.jsonl,
    result.json, model.safetensors, environment.json and partition.json and, with
    --keep-checkpoints, checkpoints/. Accuracies in these files are fractions, from 0 to 1.
    """
    from ..interface.runs import run_config

    registry, config = resolve_config(target, **given)
    found = run_config(
        registry, config, out, quiet=quiet or as_json, until=until, keep_empty=signals.follows,
        data_root=data_root, checkpoint_rounds=checkpoint_rounds,
        checkpoint_minutes=checkpoint_minutes, keep_checkpoints=keep_checkpoints,
        keep_personal=keep_personal,
    )  # fmt: skip
    _print(registry, found, as_json)


@click.command(cls=Command)
@click.argument("directory", type=PATH)
@executor_flags
@checkpoint_flags
@data_root_flag
@click.option(
    "--keep-personal", is_flag=True,
    help="Keep the clients' own models in personal/, for methods that make such models.",
)  # fmt: skip
@click.option("--quiet", is_flag=True, help="Print no progress, only the result.")
@click.option("--json", "as_json", is_flag=True, help="Print result.json and nothing else.")
def resume(
    directory: Path, executor: str | None, workers: int | None, sets: tuple[str, ...],
    data_root: Path | None, quiet: bool, as_json: bool,
    checkpoint_rounds: int | None, checkpoint_minutes: float, keep_checkpoints: bool,
    keep_personal: bool,
) -> None:  # fmt: skip
    """Continue the unfinished run in DIRECTORY.

    \b
    fedbench resume runs/fedhpro-digits-s0
    fedbench resume runs/fedhpro-digits-s0 --executor inline

    The result is the same, to the bit, as that of a run without an interruption.
    """
    from ..interface.runs import resume_run

    registry = installed()
    found = resume_run(
        registry, directory, executor, workers, sets, quiet=quiet or as_json,
        data_root=data_root, checkpoint_rounds=checkpoint_rounds,
        checkpoint_minutes=checkpoint_minutes, keep_checkpoints=keep_checkpoints,
        keep_personal=keep_personal,
    )  # fmt: skip
    _print(registry, found, as_json)


def _print(registry: Registry, directory: Path, as_json: bool) -> None:
    """Print the result of a run."""
    from ..interface.progress import unit_of
    from ..store.directory import RunDirectory
    from . import printing as terminal

    result = RunDirectory(directory).read_result()
    if as_json:
        echo(json.dumps(result and result.to_dict(), indent=2), lines=True)
    elif result is None:
        done = RunDirectory(directory).count_rounds()
        echo(f"Paused after round {done}; `fedbench resume {directory}` continues")
    else:
        terminal.print_result(result, unit_of(registry, result.accuracy.metric))
        echo(f"Kept in {directory}")


@click.command(cls=Command)
@click.argument("directory", type=PATH)
def show(directory: Path) -> None:
    """Print the rounds and the result of the run in DIRECTORY.

    \b
    fedbench show runs/fedhpro-digits-s0

    An unfinished run has no result yet; the rounds so far are printed.
    """
    from . import printing as terminal

    terminal.print_run(installed(), directory)
