"""The report: one HTML page, tables, figures and data files, from an `Analysis`.

``write(analysis, folder)`` writes everything; ``print_analysis(analysis)`` prints the summary.
"""

from __future__ import annotations

import re
from pathlib import Path

from ..errors import ConfigError
from ..store.files import write_atomic
from ..study.analysis import Analysis
from .terminal import print_analysis

__all__ = ["print_analysis", "write"]


def write(analysis: Analysis, folder: Path, figures: bool = True) -> list[Path]:
    """Write the report into ``folder``, which is made when it is missing.

    ``report.html`` (one page, no network needed), ``table.md``, ``table.tex`` (booktabs),
    ``rounds.csv`` (long form), ``summary.json`` and, unless ``figures`` is false,
    ``figures/*.png`` and ``figures/*.svg``. Each file is written whole or not at all.

    Returns:
        the files, in the order above.

    Raises:
        ConfigError: when the folder can't be written.
    """
    from . import draw, exports, html, tables
    from .figures import figures as figures_of

    charts = [figures_of(group) for group in analysis.groups]
    files = {
        "report.html": html.page(analysis, charts).encode(),
        "table.md": tables.markdown(analysis).encode(),
        "table.tex": tables.latex(analysis).encode(),
        "rounds.csv": exports.rounds_csv(analysis).encode(),
        "summary.json": exports.summary_json(analysis),
    }
    if figures:
        for number, (group, found) in enumerate(zip(analysis.groups, charts, strict=True), 1):
            slug = re.sub(r"[^A-Za-z0-9.=_-]+", "_", group.label)[:60]
            start = f"{number}-{slug}-" if len(analysis.groups) > 1 else ""
            for figure in found:
                files[f"figures/{start}{figure.name}.png"] = draw.png(figure)
                files[f"figures/{start}{figure.name}.svg"] = draw.svg(figure).encode()
    paths = [folder / name for name in files]
    try:
        for path, data in zip(paths, files.values(), strict=True):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(path, data)
    except OSError as error:
        raise ConfigError(f"{folder} can't be written: {error.strerror or error}") from error
    return paths
