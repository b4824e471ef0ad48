"""The report: one HTML page, tables, figures and data files, from an `Analysis`.

``write(analysis, folder)`` writes everything; ``print_analysis(analysis)`` prints the summary.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ConfigError
from ..store.files import write_atomic
from ..study.analysis import Analysis
from .terminal import print_analysis

if TYPE_CHECKING:
    from .figure import Figure
    from .part import Part

__all__ = ["Written", "named_figures", "print_analysis", "write"]


@dataclass(frozen=True)
class Written:
    """A report on disk.

    Args:
        paths: its files: the page, tables, numbers, then figures.
        notes: what it lacks and why, a line each: what was not drawn, or is too much for a file.
    """

    paths: list[Path]
    notes: list[str]


def write(
    analysis: Analysis, folder: Path, figures: bool = True, part: Part | None = None
) -> Written:
    """Write the report into ``folder``, which is made when it is missing.

    ``report.html`` (one page, no network needed), ``table.md``, ``table.tex`` (booktabs),
    ``runs.csv`` (a line per run), ``rounds.csv`` (long form), ``summary.json`` and, unless
    ``figures`` is false, ``figures/*.png`` and ``figures/*.svg``. Each file is written whole or not
    at all. Tables and numbers are written first, then the page; a failure to draw costs pictures
    and nothing else. A ``part`` adds what it has to the page and to the files.

    Raises:
        ConfigError: when the folder cannot be written.
    """
    from . import draw, exports, html, tables
    from .figures import figures as figures_of

    texts = {
        "table.md": tables.markdown(analysis).encode(),
        "table.tex": tables.latex(analysis).encode(),
        "runs.csv": exports.runs_csv(analysis).encode(),
        "rounds.csv": exports.rounds_csv(analysis).encode(),
        "summary.json": exports.summary_json(analysis),
        **(part.files if part else {}),
    }
    written = _write(folder, texts)
    charts = [figures_of(group) for group in analysis.groups]
    try:
        script, problem = draw.javascript(), ""
    except draw.NotDrawn as error:
        script, problem = "", str(error)
    overall = _overall(analysis)
    page = html.page(analysis, charts, overall, script, problem, part)
    written = [*_write(folder, {"report.html": page.encode()}), *written]
    named = _named(analysis, charts)
    rest = (*overall, *(part.figures if part else ()))
    named |= {figure.name: figure for figure in rest}
    files = {f"figures/{name}": figure for name, figure in named.items()}
    drawn = draw.pictures(files if figures else {})
    for name in drawn.missing:  # an older picture is not one of this report
        for suffix in (".png", ".svg"):
            (folder / f"{name}{suffix}").unlink(missing_ok=True)
    missing = {"charts of report.html": problem, **drawn.missing} if problem else drawn.missing
    notes = filter(None, (exports.left_out(analysis), _missing(missing)))
    return Written([*written, *_write(folder, drawn.files)], list(notes))


def named_figures(analysis: Analysis) -> dict[str, Figure]:
    """Return the figures of all settings by name; with several, names begin with the setting."""
    from .figures import figures

    named = _named(analysis, [figures(group) for group in analysis.groups])
    return named | {figure.name: figure for figure in _overall(analysis)}


def _overall(analysis: Analysis) -> list[Figure]:
    """Return the figures of all settings together."""
    from . import matrix, rank_figure
    from .figure import noted

    return [*matrix.heat_maps(analysis), *noted([rank_figure.over_settings(analysis)])]


def _named(analysis: Analysis, charts: Sequence[Sequence[Figure]]) -> dict[str, Figure]:
    """Return the figures of each setting by name."""
    named: dict[str, Figure] = {}
    for number, (group, found) in enumerate(zip(analysis.groups, charts, strict=True), 1):
        slug = re.sub(r"[^A-Za-z0-9.=_-]+", "_", group.label)[:60]
        start = f"{number}-{slug}-" if len(analysis.groups) > 1 else ""
        named |= {f"{start}{figure.name}": figure for figure in found}
    return named


def _missing(found: Mapping[str, str]) -> str:
    """Return what was not drawn, name -> reason, on one line: each reason once."""
    reasons: dict[str, list[str]] = {}
    for name, why in found.items():
        reasons.setdefault(why, []).append(name)
    parts = []
    for why, names in reasons.items():
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        parts.append(f"{', '.join(names[:3])}{more}: {why}")
    return f"Not drawn: {'; '.join(parts)}" if parts else ""


def _write(folder: Path, files: Mapping[str, bytes]) -> list[Path]:
    paths = [folder / name for name in files]
    try:
        for path, data in zip(paths, files.values(), strict=True):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(path, data)
    except OSError as error:
        raise ConfigError(f"{folder} cannot be written: {error.strerror or error}") from error
    return paths
