"""``fedbench verify``: repeat a kept run and compare the results bit by bit."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import click

from ..errors import ConfigError
from ..text import echo
from .base import Command, one_line
from .flags import data_root_flag, executor_flags, executor_of, installed
from .kinds import PATH


class CantVerify(click.ClickException):
    """The run cannot be repeated."""

    exit_code = 2


@click.command(cls=Command)
@click.argument("directory", type=PATH)
@click.option(
    "--rounds", metavar="A-B",
    help="Compare only rounds A to B. The run starts from the newest checkpoint before A that "
    "--keep-checkpoints kept, or else at round 1, and stops after B. Default: all rounds.",
)  # fmt: skip
@executor_flags
@data_root_flag
@click.option("--quiet", is_flag=True, help="Print no progress, only the verdict.")
@click.pass_context
def verify(
    ctx: click.Context,
    directory: Path,
    rounds: str | None,
    executor: str | None,
    workers: int | None,
    sets: tuple[str, ...],
    data_root: Path | None,
    quiet: bool,
) -> None:
    """Repeat the run in DIRECTORY and check that the bits agree.

    \b
    fedbench verify runs/fedhpro-digits-s0
    fedbench verify runs/fedhpro-digits-s0 --rounds 1-3 --executor inline

    The first round, client and tensor that differ are printed. DIRECTORY is not changed. The exit
    status is 0 if the bits agree, 1 if they differ, and 2 if the run cannot be verified.
    """
    try:
        status = _verify(directory, rounds, executor_of(executor, workers), sets, data_root, quiet)
    except Exception as error:
        if ctx.meta.get("debug"):
            raise
        raise CantVerify(f"cannot verify {directory}: {one_line(error)}") from error
    sys.exit(status)


def _verify(
    directory: Path,
    rounds: str | None,
    executor: dict[str, Any],
    sets: tuple[str, ...],
    data_root: Path | None,
    quiet: bool,
) -> int:
    from ..config.changes import describe_changes
    from ..engine.verify import Kept
    from ..interface.progress import progress

    first, last = _range(rounds)
    registry = installed()
    kept = Kept(registry, directory, executor, sets)
    for text in kept.changed_environment():
        echo(f"environment differs: {text}")
    show = progress(registry, kept.config, describe_changes(registry, kept.config), quiet=quiet)
    with show:
        verdict = kept.verify(
            first, last, data_root=data_root, progress=show.client, after_round=show.round
        )
    for note in verdict.notes:
        echo(f"note: {note}; only numbers and final digests are compared there")
    if verdict.start:
        echo(f"from the checkpoint of round {verdict.start}")
    if verdict.difference:
        echo(f"differs: {verdict.difference}")
        return 1
    what = f"rounds {first}-{last or verdict.rounds}" if rounds else f"{verdict.rounds} rounds"
    echo(f"agrees: {what} of {directory}, bit for bit")
    return 0


def _range(text: str | None) -> tuple[int, int | None]:
    if text is None:
        return 1, None
    found = re.fullmatch(r"(\d+)(?:-(\d+))?", text)
    if not found:
        raise ConfigError(f"--rounds {text}: write A-B, for example 1-3")
    return int(found[1]), int(found[2] or found[1])
