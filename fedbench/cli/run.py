"""``fedbench run``, ``resume`` and ``show``."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import temporary
from ..text import echo
from . import signals
from .base import Command
from .flags import (
    checkpoint_flags,
    config_flags,
    data_root_flag,
    executor_flags,
    executor_of,
    installed,
    resolve_config,
)
from .kinds import PATH

if TYPE_CHECKING:
    from ..config.model import RunConfig


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
@click.option("--quiet", is_flag=True, help="Print no progress, only the result.")
@click.option("--json", "as_json", is_flag=True, help="Print result.json and nothing else.")
def run(
    target: str, out: Path | None, data_root: Path | None, quiet: bool, as_json: bool,
    checkpoint_rounds: int | None, checkpoint_minutes: float, keep_checkpoints: bool,
    keep_personal: bool, **given: Any,
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
    from ..config.changes import describe_changes
    from . import progress

    registry, config = resolve_config(target, **given)
    changes = describe_changes(registry, config)
    show = progress.progress(registry, config, changes, quiet=quiet or as_json)
    more: Any = {"registry": registry, "data_root": data_root, "progress": show.client}
    more |= {
        "checkpoint_rounds": checkpoint_rounds,
        "checkpoint_seconds": 60 * checkpoint_minutes,
        "keep_checkpoints": keep_checkpoints,
        "keep_personal": keep_personal,
    }
    job, resumed = _open(config, out, more)
    if resumed and not (quiet or as_json):
        echo(f"Resuming {job.directory.path} after round {len(job.history)}")
    try:
        _execute(job, show, quiet, as_json)
    except Exception as error:
        if not (job.history or resumed or temporary(error) or signals.follows):
            job.directory.discard()  # there is nothing in it to resume
        raise


def _open(config: RunConfig, out: Path | None, more: Mapping[str, Any]) -> tuple[Any, bool]:
    """Resume the run of ``config`` in ``out``, or else start it there.

    Without ``out``, the first free name is used, even if another process takes one in the meantime.

    Returns:
        the run, and whether it was resumed.
    """
    from ..engine.run import Run
    from ..store.claim import Busy
    from ..store.directory import Taken, free_name, unfinished

    name = f"{config.method}-{config.data_name}-s{config.seed}"
    name = re.sub(r"[^\w.=+-]+|^[.]", "-", name)[-100:]
    while True:
        path = out or free_name(Path("runs"), name, config.hash)
        if unfinished(path, config.hash):
            return Run.resume(path, config, **more), True
        try:
            return Run(config, path, **more), False
        except (Taken, Busy):
            if out:
                raise


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
    from ..config import yamlfile
    from ..config.changes import describe_changes
    from ..config.kept import resolve_kept
    from ..engine.run import Run
    from ..store.directory import RunDirectory
    from . import progress

    registry, config = installed(), None
    found = RunDirectory.open(directory)
    if not found.finished:
        kept = yamlfile.read(found.config_file)
        given = executor_of(executor, workers)
        config = resolve_kept(registry, kept, executor=given, sets=sets)
    job = Run.resume(
        directory, config, registry=registry, data_root=data_root,
        checkpoint_rounds=checkpoint_rounds, checkpoint_seconds=60 * checkpoint_minutes,
        keep_checkpoints=keep_checkpoints, keep_personal=keep_personal,
    )  # fmt: skip
    changes = describe_changes(registry, job.config)
    show = progress.progress(registry, job.config, changes, quiet=quiet or as_json)
    job.progress = show.client
    _execute(job, show, quiet, as_json)


def _execute(job: Any, show: Any, quiet: bool, as_json: bool) -> None:
    """Carry out a job while showing its progress, then print its result."""
    from . import printing as terminal

    out, config = job.directory.path, job.config
    try:
        with show:
            first = len(job.history)
            for result in job.rounds():
                if len(job.history) == first + 1 and not (quiet or as_json):
                    terminal.print_too_small(job.runtime.held, config.clients)
                show.round(result)
    except KeyboardInterrupt as error:
        done = len(job.history)
        echo("", err=True)
        echo(
            f"Interrupted after {done} of {config.rounds} rounds; they are in {out}. "
            f"`fedbench show {out}` prints them, `fedbench resume {out}` resumes.",
            err=True,
        )
        sys.exit(signals.status(error))
    if as_json:
        echo(json.dumps(job.result(), indent=2), lines=True)
    else:
        terminal.print_result(job.directory.read_result(), show.unit)
        echo(f"Kept in {out}")


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
