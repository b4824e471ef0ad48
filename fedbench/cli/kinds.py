"""What flags and arguments accept beyond click's own types: paths with ``~``, finite numbers."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import click


class UserPath(click.Path):
    """A path in which ``~`` is the user's home, also where a shell leaves it: ``--out=~/x``."""

    def __init__(self, **more: Any) -> None:
        super().__init__(path_type=Path, **more)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path with the home folder put in."""
        return super().convert(os.path.expanduser(value), param, ctx)


class Finite(click.FloatRange):
    """A number in a range, neither NaN, which compares with nothing, nor infinite."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the number; fail as click does when it is none of these."""
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number


PATH = UserPath()
