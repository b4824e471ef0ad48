"""The base classes of commands: errors as one clear line, and groups that list."""

from __future__ import annotations

import sys
from typing import Any, NoReturn

import click

from ..errors import NO_MEMORY, FedbenchError, temporary
from ..study import TEMPORARY
from ..text import cause, echo, printable, summary
from . import signals
from .streams import Streams


class Readable(click.Command):
    """A command whose usage errors are made printable, because they repeat what was typed."""

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        """Parse the command line."""
        try:
            return super().make_context(*args, **kwargs)
        except click.ClickException as error:
            error.message = printable(error.message, keep="\n")  # type: ignore[misc]
            raise


class OneLine(Readable):
    """A command that ends with one clear line instead of a traceback, without ``--debug``."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.append(
            click.Option(["--debug"], is_flag=True, help="Show the traceback of an error.")
        )

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command, and turn an error into one line."""
        if ctx.params.pop("debug", False):
            ctx.meta["debug"] = True
        with signals.orderly() as caught:
            try:
                signals.follow_parent()
                return super().invoke(ctx)
            except KeyboardInterrupt as error:
                _interrupted(signals.status(error), *getattr(error, "__notes__", ()))
            except Exception as error:
                if caught:  # a late import can turn an interrupt into an error of its own
                    _interrupted(128 + caught[0])
                if isinstance(error, click.exceptions.Exit | click.Abort | click.ClickException):
                    raise
                if ctx.meta.get("debug"):
                    raise
                kind = MachineStopped if temporary(error) else click.ClickException
                raise kind(one_line(error)) from error


class MachineStopped(click.ClickException):
    """The machine stopped the command, which may succeed another time."""

    exit_code = TEMPORARY


def _interrupted(status: int, *notes: str) -> NoReturn:
    """End the command; the notes of an interrupt say how to continue."""
    echo("", err=True)
    for line in notes or ("Interrupted",):
        echo(line, err=True)
    sys.exit(status)


def one_line(error: Exception) -> str:
    """Return an error as one printable line that says what is wrong and where."""
    text, more = str(error), ""
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    elif isinstance(error, FedbenchError):
        pass
    elif isinstance(error, MemoryError) or any(words in text for words in NO_MEMORY):
        text = f"not enough memory: {text}"
    else:
        text = f"{type(error).__name__}: {summary(error)} {cause(error)}"
        more = " (--debug shows the traceback)"
    text += "".join(f" {n}" for n in getattr(error, "__notes__", []) if n not in text) + more
    return printable(" ".join(text.split()))


class Command(OneLine):
    """A plain command."""


class Group(Readable, click.Group):
    """A group of `Command`; as a program, it never fails because of its output streams."""

    command_class = Command
    group_class = type

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run the program; see `click.Command.main`."""
        with Streams():
            return super().main(*args, **kwargs)


class Listing(OneLine, Group):
    """A group that prints a list when no subcommand is given."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{**kwargs, "invoke_without_command": True})
