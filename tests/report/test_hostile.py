"""Names that steer terminals, break XML or are formulas: harmless in every file of a report."""

from __future__ import annotations

import csv
import io
import json
import re
import unicodedata
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedbench.console import Console
from fedbench.report import print_analysis, write
from fedbench.report.draw import paper
from fedbench.report.exports import rounds_csv
from fedbench.report.figures import partition_figure
from fedbench.report.html import breakable
from fedbench.report.tables import md, tex
from fedbench.store.contents import Partition
from fedbench.study.analysis import Analysis
from fedbench.text import printable

NAMES = (
    "a\x1b[2J\x1b]0;title\x07",
    "\x00\x08\ufffe\uffff",
    "\ud800 \udcff",
    "\u202egnp.exe\u2066",
    "n\r\nround 9/9",
    "=1+1|'<b>$x$</b>",
    "@\tSUM",
)


def control(text: str) -> set[str]:
    """Return the characters of a text that steer, cannot be encoded, or turn the writing."""
    kinds = {"Cc", "Cs", "Zl", "Zp"}
    turns = {"RLO", "LRO", "RLE", "LRE", "RLI", "LRI", "FSI", "PDI", "PDF"}
    return {
        letter
        for letter in text
        if letter != "\n"
        and (unicodedata.category(letter) in kinds or unicodedata.bidirectional(letter) in turns)
    }


@pytest.fixture
def hostile(runs: Any, analysed: Callable[..., Analysis]) -> Analysis:
    """Two variants with hostile names on domains and classes with hostile names, one failed."""
    for seed in range(3):
        for variant in NAMES[:2]:
            runs.add(variant, seed, rounds=2, domains=NAMES[2:5], classes=NAMES)
    runs.add(NAMES[4], 0, rounds=2, error="it\x1b[2J\nbroke\u202e", domains=NAMES[2:5])
    return analysed()


@pytest.fixture
def written(hostile: Analysis, tmp_path: Path) -> Path:
    """The folder of the report on `hostile`."""
    assert write(hostile, tmp_path / "out").notes == []
    return tmp_path / "out"


def test_every_figure_is_drawn_and_names_are_in_it(written: Path) -> None:
    svgs = {path.stem: path.read_text() for path in (written / "figures").glob("*.svg")}
    assert len(svgs) == len(list((written / "figures").glob("*.png"))) == 8
    for text in svgs.values():
        assert not control(text)
        ET.fromstring(text)
    assert r"a\x1b[2J\x1b]0;title\x07" in svgs["rounds"]
    assert r"\ud800 \udcff" in svgs["domains"]


def test_texts_hold_no_control_character(written: Path) -> None:
    for name in ("report.html", "table.md", "table.tex"):
        text = (written / name).read_text("utf-8")
        assert not control(text.partition("<script")[0]), name
    page = (written / "report.html").read_text("utf-8").replace("<wbr>", "")
    assert r"a\x1b[2J\x1b]0;title\x07" in page
    assert "it\\x1b[2J\nbroke\\u202e" in page


def test_the_series_of_the_page_and_its_buttons_share_names(written: Path) -> None:
    page = (written / "report.html").read_text("utf-8")
    data = json.loads(re.findall(r'type="application/json"[^>]*>(.*?)</script>', page)[0])
    buttons = set(re.findall(r'data-series="([^"]*)"', page))
    assert {row["v"] for row in data["data"]["s1/curves-0"]} == buttons
    assert not any(map(control, buttons))


def test_the_terminal_shows_them(hostile: Analysis) -> None:
    for terminal in (False, True):
        out = io.StringIO()
        print_analysis(hostile, Console(file=out, force_terminal=terminal, color_system=None))
        assert not control(out.getvalue())
        assert "\nround 9/9" not in out.getvalue()


def test_files_for_programs_keep_them(written: Path) -> None:
    runs = json.loads((written / "summary.json").read_text("utf-8"))["settings"][0]["runs"]
    assert {run["variant"] for run in runs} == {*NAMES[:2], NAMES[4]}
    text = (written / "rounds.csv").read_text("utf-8")
    assert not control(text)
    rows = list(csv.DictReader(io.StringIO(text)))
    assert len(rows) == text.count("\n") - 1
    assert {row["variant"] for row in rows} == set(map(printable, NAMES[:2]))
    assert {row["class"] for row in rows} - {""} == {
        *map(printable, NAMES[:5]),
        "'=1+1|'<b>$x$</b>",
        r"'@\tSUM",
    }


FORMULAS = (
    "=1+1",
    "+1+cmd|' /C calc'!A0",
    "-2-3",
    "@SUM(1)",
    "\t=1",
    "\r=1",
    " =1",
    "\uff1d1",
    "-",
)
PLAIN = ("-1", "+2.5", "-1e-3", "a=1", "'=1", "fedhpro:-hpal", " a", "\u22121")


@pytest.mark.parametrize("name", [*FORMULAS, *PLAIN])
def test_a_spreadsheet_runs_no_name(
    runs: Any, analysed: Callable[..., Analysis], name: str
) -> None:
    runs.add(name, 0, rounds=1, domains=(name, "b"), classes=(name,))
    shown = ("'" if name in FORMULAS else "") + printable(name)
    rows = list(csv.DictReader(io.StringIO(rounds_csv(analysed()))))
    assert {row["variant"] for row in rows} == {shown}
    assert {row["domain"] for row in rows} == {shown, "b", "mean", ""}
    assert {row["class"] for row in rows} == {shown, ""}


def test_a_negative_number_stays_a_number(runs: Any, analysed: Callable[..., Analysis]) -> None:
    runs.add("a", 0, exact={"d": (-0.5,)}, accuracy={"rule": "last"})
    rows = list(csv.DictReader(io.StringIO(rounds_csv(analysed()))))
    assert "-0.5" in {row["value"] for row in rows}


@given(st.text(min_size=1))
def test_any_name_can_be_in_a_figure_and_on_a_page(name: str) -> None:
    found = partition_figure(Partition([name], [name], {0: {name: [1]}}), name)
    assert found is not None
    text = json.dumps(paper(found), ensure_ascii=False)
    for shown in (text, str(breakable(name)), md(name), tex(name)):
        assert not control(shown)
        shown.encode()
