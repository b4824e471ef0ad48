"""Flags that several commands share, and the config that they describe."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import signals
from .kinds import PATH, Finite

if TYPE_CHECKING:
    from ..config.model import RunConfig
    from ..plugins.registry import Registry


def config_flags(command: Callable[..., Any], rounds: str = "the card's") -> Callable[..., Any]:
    """Add the flags that shape a config; ``rounds`` says how many rounds there are without one."""
    flags = (
        click.option("--data", metavar="NAME", help="Data set; `fedbench data` lists all."),
        click.option(
            "--card", metavar="NAME",
            help="Protocol card; `fedbench cards` lists all. Default: the data set's own.",
        ),
        click.option(
            "--model", metavar="NAME",
            help="Model, for example cnn or resnet10. Default: the card's.",
        ),
        click.option(
            "--rounds", type=int, metavar="N",
            help=f"Number of communication rounds. Default: {rounds}.",
        ),
        stop_at_flag,
        click.option(
            "--seed", type=int, metavar="S", help="Seed of every random stream. Default: 0."
        ),
        click.option("--device", metavar="DEV", help="cpu, cuda, cuda:1 or mps. Default: cpu."),
        click.option(
            "--precision", metavar="P",
            help="fp32, or bf16, which is faster on hardware that supports it. Default: fp32.",
        ),
        click.option(
            "--executor", metavar="NAME",
            help="Where clients run: pool, inline or ray. All give the same bits. Default: pool.",
        ),
        click.option(
            "--workers", type=int, metavar="N",
            help="Number of clients that run in parallel. Default: one per core.",
        ),
        click.option(
            "--set", "sets", multiple=True, metavar="KEY=VALUE",
            help="Set any value, for example sgd.lr=0.05 or hpcl.temperature=0.1. Repeatable.",
        ),
        click.option(
            "--without", multiple=True, metavar="PLUGIN",
            help="Remove a plugin, as in an ablation. Repeatable.",
        ),
        click.option(
            "--with", "plus", multiple=True, metavar="PLUGIN",
            help="Add a plugin; it replaces one of the same role, such as the partition. Set its "
            "options with --set PLUGIN.OPTION=VALUE. Repeatable.",
        ),
        click.option(
            "--config", "file", type=PATH, metavar="FILE",
            help="YAML file, complete or partial; the other options override it.",
        ),
    )  # fmt: skip
    for flag in reversed(flags):
        command = flag(command)
    return command


def stop_at_flag(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--stop-at``."""
    return click.option(
        "--stop-at", metavar="METRIC=VALUE",
        help="End a run after the first scored round that reaches a value of the metric that it "
        "reports, for example accuracy=0.9.",
    )(command)  # fmt: skip


def installed() -> Registry:
    """Return what is installed. Commands call this first, because it does the slow imports.

    A run that `fedbench.cli.warm` forks gets it from there.
    """
    from ..plugins.discovery import discover
    from ..plugins.registry import Registry

    here = click.get_current_context(silent=True)
    registry = (here and here.find_object(Registry)) or discover()
    signals.begin()
    return registry


def resolve_config(target: str | None, **given: Any) -> tuple[Registry, RunConfig]:
    """Return what is installed, and the config of a method's name or a YAML file and the flags.

    ``given`` is as in `fedbench.config.target.resolve_target`.
    """
    from ..config.target import resolve_target

    registry = installed()
    return registry, resolve_target(registry, target, **given)


def executor_flags(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the flags that say where to repeat or continue a kept run; see `executor_of`."""
    flags = (
        click.option(
            "--executor", metavar="NAME", help="Where clients run. Default: the run's executor."
        ),
        click.option(
            "--workers", type=int, metavar="N",
            help="Number of clients that run in parallel. Default: as the run's config says.",
        ),
        click.option(
            "--set", "sets", multiple=True, metavar="KEY=VALUE",
            help="Set an option of the executor, such as executor.address=HOST:PORT; addresses "
            "are not read from the run directory. Repeatable.",
        ),
    )  # fmt: skip
    for flag in reversed(flags):
        command = flag(command)
    return command


def executor_of(executor: str | None, workers: int | None) -> dict[str, Any]:
    """Return what the flags ``--executor`` and ``--workers`` say about the executor."""
    given = {"name": executor, "workers": workers}
    return {key: value for key, value in given.items() if value is not None}


def checkpoint_flags(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the flags that say how often a checkpoint is written, and whether it is kept."""
    flags = (
        click.option(
            "--checkpoint-rounds", type=click.IntRange(1), metavar="N",
            help="Also write a checkpoint every N rounds.",
        ),
        click.option(
            "--checkpoint-minutes", type=Finite(0), default=1.0, metavar="M",
            help="Write a checkpoint at the end of a round when the last one is M minutes old. "
            "Default: 1.",
        ),
        click.option(
            "--keep-checkpoints", is_flag=True,
            help="Keep every checkpoint, in checkpoints/; `verify --rounds` can start from them.",
        ),
    )  # fmt: skip
    for flag in reversed(flags):
        command = flag(command)
    return command


def study_flags(folder: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return what adds the flags that say how many runs are carried out, and where they are kept.

    Args:
        folder: the default folder.
    """
    flags = (
        click.option(
            "--jobs", type=click.IntRange(1), metavar="N",
            help="Number of runs at the same time, which changes no result. Default: one per "
            "usable core (as limited by taskset, a container or Slurm), but only one on each GPU.",
        ),
        checkpoint_flags,
        click.option(
            "--retry", is_flag=True,
            help="Try again the runs that failed or were interrupted 3 times; they resume from "
            "their checkpoints if possible.",
        ),
        click.option(
            "--trust-old", is_flag=True,
            help="Reuse finished runs even if code, data, versions or arithmetic have changed "
            "since.",
        ),
        click.option(
            "--out", type=PATH, default=Path(folder), metavar="DIR",
            help=f"Folder of the runs and the report. Default: {folder}.",
        ),
        data_root_flag,
        click.option("--quiet", is_flag=True, help="Print no progress, only the result."),
    )  # fmt: skip

    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        for flag in reversed(flags):
            command = flag(command)
        return command

    return add


def data_root_flag(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--data-root``."""
    return click.option(
        "--data-root", type=PATH, metavar="DIR",
        help="Folder with the files of data sets. Default: $FEDBENCH_DATA, or else the user's "
        "cache.",
    )(command)  # fmt: skip
