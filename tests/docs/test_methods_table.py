"""The README's table of methods is what the code says; the measured columns are only looked at."""

from __future__ import annotations

import importlib
import re

import pytest

from fedbench.plugins.discovery import discover


@pytest.fixture(scope="module")
def bundled():
    """Return what comes with fedbench."""
    return discover()


@pytest.fixture(scope="module")
def methods(site):
    """Return the module that makes the table, which is next to the reference's."""
    return importlib.import_module("methods_table")


@pytest.fixture(scope="module")
def committed(methods):
    """Return the rows of the README's table."""
    return methods.committed(methods.README.read_text(encoding="utf-8"))


def test_the_table_is_what_the_code_says(methods, committed, bundled):
    """If it is not: `make methods`."""
    head = methods.table((), methods.rows(bundled)).splitlines()[2:]
    expected = [[c.strip() for c in re.split(r"(?<!\\)\|", line)[1:-1]] for line in head]
    assert [row[: len(methods.HEAD)] for row in committed] == expected


def test_every_measured_cell_is_a_multiple_of_one_model(methods, committed):
    for row in committed:
        cells = row[len(methods.HEAD) :]
        assert len(cells) == len(methods.MEASURED)
        assert all(re.fullmatch(r"-|< 0\.01|\d+\.\d\d", cell) for cell in cells), row


def test_fedavg_sends_one_model_each_way_and_keeps_none(methods, committed):
    (row,) = [row for row in committed if row[1] == "`fedavg`"]
    assert row[len(methods.HEAD) :] == ["1.00", "1.00", "-", "-"]


def test_options_are_those_that_fedavg_does_not_have(methods, bundled):
    options = {row[1]: row[4] for row in methods.rows(bundled)}
    assert options["`fedavg`"] == "-"
    assert options["`fedprox`"] == "`fedprox.mu` 0.01"
    assert "`hpcl.*`" in options["`fedhpro`"]
