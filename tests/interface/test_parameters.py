"""The functions have the parameters that the commands have as flags, and the reverse."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import click
import pytest

import fedbench
from fedbench.cli import main

ONLY_ON_THE_COMMAND_LINE = {
    "help": "the function's docstring",
    "debug": "Python shows tracebacks anyway",
    "json": "`result.to_dict()` of what the function returns",
    "out of report": "`write(out)` of what the function returns",
    "dry_run of compare": "lines to read; the function returns a comparison of runs",
}
ONLY_IN_PYTHON = {"plugins": "classes in memory, which a command line cannot hold"}


def flags(command: click.Command) -> set[str]:
    """Return the names of a command's arguments and flags in the form of Python's parameters."""
    names = [
        parameter.human_readable_name.lower()
        if isinstance(parameter, click.Argument)
        else parameter.opts[0].removeprefix("--").replace("-", "_")
        for parameter in command.params
    ]
    return {{"with": "with_"}.get(name, name) for name in names}


def parameters(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    return dict(inspect.signature(function).parameters)


POSITIONAL = {
    "run": ("method|file.yaml", "method"),
    "resume": ("directory", "directory"),
    "compare": ("[method]...", "methods"),
    "tune": ("[method]...", "methods"),
    "reproduce": ("name", "name"),
    "report": ("directory...", "directories"),
}


@pytest.mark.parametrize(
    ("command", "function"),
    [
        ("run", fedbench.run),
        ("resume", fedbench.resume),
        ("compare", fedbench.compare),
        ("tune", fedbench.tune),
        ("reproduce", fedbench.reproduce),
        ("report", fedbench.load_comparison),
    ],
)
def test_flags_and_parameters_are_the_same(command: str, function: Callable[..., Any]) -> None:
    written, called = POSITIONAL[command]
    left_out = {name for name in ONLY_ON_THE_COMMAND_LINE if " " not in name}
    left_out |= {
        name.split()[0] for name in ONLY_ON_THE_COMMAND_LINE if name.endswith(f" of {command}")
    }
    known = {called if name == written else name for name in flags(main.commands[command])}
    assert known - left_out == parameters(function).keys() - ONLY_IN_PYTHON.keys()
    if command != "reproduce":  # its methods are those of a file
        assert set(ONLY_IN_PYTHON) <= parameters(function).keys()


@pytest.mark.parametrize("command", ["run", "resume", "compare", "tune", "reproduce"])
def test_their_defaults_are_the_same(command: str) -> None:
    found = parameters(getattr(fedbench, command))
    # click keeps a command's help option, which depends on the settings of its parent.
    parent = click.Context(main, **main.context_settings)
    typed = main.commands[command].make_context(command, ["fedavg"], parent=parent).params
    for parameter in main.commands[command].params:
        name = parameter.opts[0].removeprefix("--").replace("-", "_")
        if isinstance(parameter, click.Option) and name in found:
            default, mine = typed[str(parameter.name)], found[name].default
            assert (default or None) == (type(default)(mine) if mine else None), name
