"""Flags that several commands share, and the config that they make."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import ConfigError
from . import signals
from .kinds import PATH, Finite

if TYPE_CHECKING:
    from ..plugins.registry import Registry


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
            "--workers", type=int, metavar="N", help="Parallel clients. Default one per core."
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
            help="Add a plugin, or replace the partition, trainer, ... by it. Set its options with "
            "--set PLUGIN.OPTION=VALUE. Repeatable.",
        ),
        click.option(
            "--config", "file", type=PATH, metavar="FILE",
            help="YAML file, whole or partial; flags and --set win over it.",
        ),
    )  # fmt: skip
    for flag in reversed(flags):
        command = flag(command)
    return command


def installed() -> Registry:
    """Return what is installed; commands do this first, because it imports what is slow to."""
    from ..plugins.discovery import discover

    registry = discover()
    signals.begin()
    return registry


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
    from ..config import yamlfile
    from ..config.resolve import resolve

    registry = installed()
    if target and Path(target).suffix in (".yaml", ".yml"):
        target = os.path.expanduser(target)
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


def executor_flags(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the flags that say where a kept run is run again or further; see `executor_of`."""
    flags = (
        click.option("--executor", metavar="NAME", help="Another executor than the run's own."),
        click.option("--workers", type=int, metavar="N", help="Parallel clients."),
        click.option(
            "--set", "sets", multiple=True, metavar="KEY=VALUE",
            help="An option of the executor, such as executor.address=HOST:PORT. Addresses are "
            "not taken from the run directory. Repeatable.",
        ),
    )  # fmt: skip
    for flag in reversed(flags):
        command = flag(command)
    return command


def executor_of(executor: str | None, workers: int | None) -> dict[str, Any]:
    """Return what the flags ``--executor`` and ``--workers`` say of the executor."""
    given = {"name": executor, "workers": workers}
    return {key: value for key, value in given.items() if value is not None}


def checkpoint_flags(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the flags that say how often a checkpoint is written, and whether it stays."""
    flags = (
        click.option(
            "--checkpoint-rounds", type=click.IntRange(1), metavar="N",
            help="Write a checkpoint after every N rounds.",
        ),
        click.option(
            "--checkpoint-minutes", type=Finite(0), default=1.0, metavar="M",
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


def data_root_flag(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--data-root``."""
    return click.option(
        "--data-root", type=PATH, metavar="DIR",
        help="Where data sets look for files. Default $FEDBENCH_DATA or the user's cache.",
    )(command)  # fmt: skip
