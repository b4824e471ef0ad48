"""Types of flags and arguments besides click's own: paths with ``~``, and finite numbers."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import click


class UserPath(click.Path):
    """A path in which ``~`` is the user's home, even where a shell keeps it: ``--out=~/x``."""

    def __init__(self, **more: Any) -> None:
        super().__init__(path_type=Path, **more)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path with ``~`` replaced by the home folder."""
        return super().convert(os.path.expanduser(value), param, ctx)


class Finite(click.FloatRange):
    """A finite number in a range; a range alone lets NaN pass, which compares with nothing."""

    def _describe_range(self) -> str:  # click's text for a range without bounds is x<=None
        return "" if self.min is None and self.max is None else super()._describe_range()

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the number; fail, as click does, for anything else."""
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number


PATH = UserPath()
