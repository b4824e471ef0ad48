"""The notebooks run from top to bottom, and the outputs that they are committed with are theirs."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[2] / "docs" / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request: pytest.FixtureRequest) -> Path:
    path: Path = request.param
    return path


def outputs(notebook: dict[str, Any]) -> list[tuple[str, list[dict[str, Any]]]]:
    """Return the source and outputs of each cell with code."""
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    return [("".join(cell["source"]), cell["outputs"]) for cell in cells]


def kinds(found: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    """Return what kind of output each is, with the forms that it has."""
    return [(one["output_type"], *sorted(one.get("data", ()))) for one in found]


def check(notebook: dict[str, Any]) -> None:
    text = json.dumps(notebook)
    assert "\\u001b" not in text, "no escape sequences of a terminal"
    assert not [one for _, found in outputs(notebook) for one in found if "ename" in one]
    assert not [
        one for _, found in outputs(notebook) for one in found if one.get("name") == "stderr"
    ]
    charts = [found for source, found in outputs(notebook) if ".chart(" in source]
    for found in charts:
        assert "application/vnd.vegalite.v5+json" in found[-1]["data"]
    assert charts


def test_a_notebook_is_committed_with_its_outputs(notebook: Path) -> None:
    found = json.loads(notebook.read_text(encoding="utf-8"))
    check(found)
    shown = [source for source, shown in outputs(found) if not shown]
    assert all("class " in source for source in shown), "a cell that defines shows nothing"
    assert not re.search(r"/(tmp|home|root|Users)/", json.dumps(found)), "no paths of a machine"


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")
def test_a_notebook_runs(notebook: Path, tmp_path: Path) -> None:
    nbformat = pytest.importorskip("nbformat", reason="nbclient is not installed")
    nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed")
    pytest.importorskip("ipykernel", reason="ipykernel is not installed")
    before = nbformat.read(notebook, as_version=4)
    again = nbformat.read(notebook, as_version=4)
    where = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(again, timeout=600, resources=where).execute()
    check(again)
    for (source, old), (_, new) in zip(outputs(before), outputs(again), strict=True):
        assert kinds(old) == kinds(new), source
