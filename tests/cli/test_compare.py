"""`fedbench compare` twice in one folder: the rows of the first stay, or a line says why not."""

from __future__ import annotations

from pathlib import Path


def methods(table: Path) -> list[str]:
    """Return the first cells of the rows of the table of means."""
    lines = table.read_text().split("\n\n")[2].splitlines()[2:]
    return [line.split("|")[1].strip() for line in lines]


def test_a_second_comparison_keeps_the_rows_of_the_first(fedbench, few, tmp_path) -> None:
    words = ["--data", "digits", *few[:2], *few[4:], "--seeds", "1", "--quiet"]
    done = fedbench("compare", "fedavg", "fedprox", *words)
    assert done.exit_code == 0, done.output
    assert "earlier" not in done.stdout
    done = fedbench("compare", "moon", "fedavg", *words)
    assert done.exit_code == 0, done.output
    table = tmp_path / "comparison" / "table.md"
    assert methods(table) == ["moon", "fedavg", "fedprox"]  # the plan's order, then the others
    assert "1 earlier run is in the tables too" in done.stdout
    assert "compared with fedavg" in done.stdout
    done = fedbench("compare", "fedavg", *words, "--rounds", "2")
    assert methods(table) == ["fedavg:sgd.epochs=1"]  # a single name stays whole
    assert "3 earlier runs are left out: 3 of other settings (`fedbench report" in done.stdout
    assert fedbench("report", "comparison/runs").exit_code == 0
