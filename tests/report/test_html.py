"""The page: one file, no reference to anything outside it, all text escaped."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from fedbench.report import write
from fedbench.study.analysis import Analysis

LIMIT = 8_000_000
LOADS = {"src", "href", "srcset", "data", "action", "poster", "background", "formaction", "cite"}
HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>&\"' :-x"


class Page(HTMLParser):
    """Collects tags, what they would load, text, and the contents of scripts and styles."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.loads: list[str] = []
        self.text = ""
        self.raw: dict[str, list[str]] = {"script": [], "style": []}
        self.attributes: list[tuple[str, str]] = []
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name) for name, _ in attrs]
        self.loads += [value or "" for name, value in attrs if name in LOADS]

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1] in self.raw and self.cdata_elem:
            self.raw[self.tags[-1]].append(data)
        else:
            self.text += data


def write_page(analysis: Analysis, folder: Path) -> Page:
    return Page(write(analysis, folder, figures=False).paths[0])


@pytest.fixture(scope="module")
def page(report: Path) -> Page:
    return Page(report / "report.html")


def test_it_is_small_enough_to_send(report: Path) -> None:
    assert (report / "report.html").stat().st_size < LIMIT


def test_it_loads_nothing(page: Page, report: Path) -> None:
    assert [url for url in page.loads if not url.startswith("#")] == []
    assert "link" not in page.tags
    assert not re.search(r"@import|url\(", "".join(page.raw["style"]))
    data, vega, script = page.raw["script"]
    for text in (data, script, page.text):
        assert not re.search(r"https?://|\bimport\b|\bfetch\(", text)
    assert "default-src 'none'" in (report / "report.html").read_text()
    assert len(vega) > 500_000


def test_order_of_contents(page: Page) -> None:
    heads = [
        *("mean of the last 5 rounds", "Summary", "Compared with fedhpro", "Accuracy over rounds"),
        *("Accuracy over bytes", "Accuracy over seconds", "Accuracy by domain"),
        *("Paired difference to fedhpro", "Class accuracy", "Partition", "Diagnostics over rounds"),
        *("Loss terms over rounds", "Not finished", "Configuration", "Environment", "Digests"),
    ]
    rest = page.text.partition("Runs and configuration")[2]  # behind the table of contents
    places = [rest.index(head) for head in heads]
    assert places == sorted(places)


def test_protocol_and_statistics_are_stated(page: Page) -> None:
    text = " ".join(page.text.split())
    assert "Paired: within one seed all variants share partition" in text
    assert "paired t-test" in text
    assert "p corrected by Holm" in text
    assert "0 to 5" in text


def test_failed_and_unfinished_runs_are_shown_with_their_error(page: Page) -> None:
    text = " ".join(page.text.split())
    assert "failed: fpl, seed 5, 40 of 100 rounds done" in text
    assert "loss term 'fpl' is nan in round 41, client 3" in text
    assert "unfinished: fedproto, seed 5, 12 of 100 rounds done" in text


def test_configuration_is_split_into_shared_and_different(report: Path) -> None:
    text = (report / "report.html").read_text().replace("<wbr>", "")
    shared, different = text.count("<dt>sgd.batch_size</dt><dd>8</dd>"), text.count(">sgd.lr</th>")
    assert (shared, different) == (1, 1)
    row = re.search(r">method</th>(.*?)</tr>", text, re.DOTALL)
    assert row is not None
    assert row[1].count("<mark>") == 3
    assert "<td>fedhpro</td>" in row[1]


def test_data_is_there_once_and_small(page: Page) -> None:
    data = json.loads(page.raw["script"][0])
    rows = [json.dumps(rows) for rows in data["data"].values()]
    assert len(rows) == len(set(rows))
    assert len(data["data"]["s1/curves-0"]) == 4 * 100


def test_hostile_names_and_errors_are_text(
    runs: Any, analysed: Callable[..., Analysis], tmp_path: Path
) -> None:
    runs.grid((HOSTILE, "fedavg"), seeds=3, rounds=2, domains=(HOSTILE, "b"))
    runs.add(HOSTILE, 3, rounds=2, error=HOSTILE)
    page = write_page(analysed(), tmp_path)
    assert page.tags.count("script") == 3
    assert "img" not in page.tags
    assert not [name for _, name in page.attributes if name.startswith("on")]
    assert HOSTILE in page.text
    assert HOSTILE in json.dumps(json.loads(page.raw["script"][0]), ensure_ascii=False).replace(
        '\\"', '"'
    )


def test_too_few_seeds_say_so(runs: Any, analysed: Callable[..., Analysis], tmp_path: Path) -> None:
    runs.grid(("a", "b"), seeds=2, rounds=2)
    assert "No p: the t-test needs 3 seeds (n = 2)" in write_page(analysed(), tmp_path).text


def test_several_settings_have_sections_and_ranks(
    runs: Any, analysed: Callable[..., Analysis], tmp_path: Path
) -> None:
    for rounds in (2, 3):
        runs.grid(("a", "b"), seeds=2, rounds=rounds)
    page = write_page(analysed(), tmp_path)
    assert "All settings: accuracy in percent, mean of the last 2 rounds" in page.text
    assert "No Friedman test for 2 methods on 2 settings" in page.text
    assert page.text.count("Accuracy over rounds") == 2


def test_values_that_differ_between_machines_are_marked(
    runs: Any, analysed: Callable[..., Analysis], tmp_path: Path
) -> None:
    runs.grid(("a", "b"), seeds=2, rounds=2)
    file = runs.folder / "0" / "environment.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "processor": "another"}))
    write_page(analysed(), tmp_path)
    text = (tmp_path / "report.html").read_text().replace("<wbr>", "")
    row = re.search(r">processor</th>(.*?)</tr>", text, re.DOTALL)
    assert row is not None
    assert "<mark>another (seed 0); " in row[1]


def test_a_report_without_a_finished_run_can_be_written(
    runs: Any, analysed: Callable[..., Analysis], tmp_path: Path
) -> None:
    runs.add("a", 0, rounds=2, error="boom")
    page = write_page(analysed(), tmp_path)
    assert "No run is finished yet." in page.text
    assert "boom" in page.text
