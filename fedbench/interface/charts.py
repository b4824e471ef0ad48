"""The report's charts as objects that notebooks draw: Jupyter, VS Code and others."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import ConfigError, FedbenchError, did_you_mean
from ..report import draw, named_figures
from ..report.figure import Figure
from ..store.files import write_atomic
from ..study.analysis import Analysis

MIME, SCHEMA = "application/vnd.vegalite.v5+json", "https://vega.github.io/schema/vega-lite/v5.json"
"""The newest version of Vega-Lite that JupyterLab and VS Code draw."""


class Chart:
    """A chart of the report.

    As the last value of a notebook's cell it is drawn: by Vega-Lite where the notebook has it, as
    JupyterLab and VS Code do, otherwise as a picture.

    Args:
        name: its name in the report.
        figure: what it shows.
    """

    def __init__(self, name: str, figure: Figure) -> None:
        self.name, self._figure = name, figure

    @property
    def title(self) -> str:
        """What it shows, in a few words."""
        return self._figure.title

    @property
    def caption(self) -> str:
        """What it shows, in full."""
        return " ".join((self._figure.caption, *self._figure.notes))

    @property
    def spec(self) -> dict[str, Any]:
        """The Vega-Lite spec, with its data."""
        return {**draw.paper(self._figure, tooltips=True), "$schema": SCHEMA}

    def save(self, path: str | Path) -> None:
        """Write the chart as a picture, ``NAME.png`` or ``NAME.svg``.

        Raises:
            ConfigError: for a name with another end.
            FedbenchError: when it cannot be drawn.
        """
        path = Path(path)
        if path.suffix not in (".png", ".svg"):
            raise ConfigError(f"{path}: a chart is saved as .png or .svg")
        write_atomic(path, self._drawn()[path.suffix])

    def _drawn(self) -> dict[str, bytes]:
        """Return suffix -> picture."""
        found = draw.pictures({"chart": self._figure})
        if found.missing:
            raise FedbenchError(f"chart {self.name} was not drawn: {found.missing['chart']}")
        return {Path(name).suffix: picture for name, picture in found.files.items()}

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        picture = self._drawn()[".svg"].decode()
        return {MIME: self.spec, "image/svg+xml": picture, "text/plain": repr(self)}

    def __repr__(self) -> str:
        return f"<chart {self.name}: {self.title}>"


def charts_of(analysis: Analysis) -> dict[str, Chart]:
    """Return the charts of an analysis by name, in the report's order.

    With several settings, the names begin with the setting's number and label.
    """
    return {name: Chart(name, figure) for name, figure in named_figures(analysis).items()}


def pick(charts: Mapping[str, Chart], name: str) -> Chart:
    """Return the chart of that name.

    Raises:
        ConfigError: when there is none, naming the nearest one.
    """
    if name not in charts:
        raise ConfigError(f"no chart {name!r}{did_you_mean(name, charts)}")
    return charts[name]
