"""Pictures are drawn by a process of its own: its end costs pictures, and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from fedbench.report import draw, write
from fedbench.study.analysis import Analysis

TEXTS = ("report.html", "table.md", "table.tex", "runs.csv", "rounds.csv", "summary.json")
ONE = 'import sys; sys.stdin.read(); print(\'{"svg": "<svg/>", "png": ""}\', flush=True)\n'


def chart(title: str = "") -> dict[str, Any]:
    """A spec, in place of what `draw.paper` makes of a figure."""
    rows = {"values": [{"x": 1}, {"x": 2}]}
    x = {"field": "x", "type": "quantitative", "title": title}
    return {"data": rows, "mark": "point", "encoding": {"x": x}}


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Callable[..., draw.Pictures]:
    """Draw specs, by name, as if they were figures."""
    monkeypatch.setattr(draw, "paper", lambda spec: spec)
    return lambda **specs: draw.pictures(specs)


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], None]:
    """Let another program draw; it starts with nothing known of the page's script."""

    def replace(code: str) -> None:
        draw.javascript.cache_clear()
        (tmp_path / "program.py").write_text(code)
        monkeypatch.setattr(draw, "PROGRAM", tmp_path / "program.py")

    return replace


def reported(analysis: Analysis, folder: Path) -> str:
    """Write a report; check that all is there but pictures; return what is said of them."""
    written = write(analysis, folder)
    assert [path.name for path in written.paths[: len(TEXTS)]] == list(TEXTS)
    assert all((folder / name).stat().st_size > 500 for name in TEXTS)
    (note,) = written.notes
    assert note.isprintable()
    return note


def test_a_picture_is_drawn_twice_the_size_of_its_svg(drawn: Any) -> None:
    found = drawn(one=chart())
    assert list(found.files) == ["one.png", "one.svg"]
    assert not found.missing
    width = int(found.files["one.svg"].split(b'width="')[1].split(b'"')[0])
    assert int.from_bytes(found.files["one.png"][16:20], "big") == 2 * width


def test_what_cannot_be_drawn_costs_one_picture(drawn: Any) -> None:
    found = drawn(one=chart(), two={"mark": "none"}, three=chart())
    assert set(found.files) == {"one.png", "one.svg", "three.png", "three.svg"}
    assert list(found.missing) == ["two"]
    assert len(found.missing["two"].splitlines()) == 1


def test_what_ends_the_process_costs_the_pictures_from_there_on(drawn: Any) -> None:
    found = drawn(one=chart(), two=chart("\x1b"), three=chart())  # XML forbids it
    assert set(found.files) == {"one.png", "one.svg"}
    assert list(found.missing) == ["two", "three"]
    assert "ended (Aborted)" in found.missing["two"]


LIMITED = f"""
import resource, runpy
resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))  # ulimit -v
runpy.run_path({str(draw.PROGRAM)!r}, run_name="__main__")
"""


def test_a_limit_on_memory_costs_the_figures_but_not_the_charts_of_the_page(
    program: Any, by_hand: Analysis, tmp_path: Path
) -> None:
    program(LIMITED)
    missing = reported(by_hand, tmp_path)
    assert missing.startswith(
        "Not drawn: figures/rounds, figures/bytes, figures/seconds and 6 more"
    )
    assert "a limit on memory may do" in missing
    assert "vegaEmbed" in (tmp_path / "report.html").read_text()
    assert not list(tmp_path.rglob("*.png"))
    assert not list(tmp_path.rglob("core*"))


ENDS = {
    "import os; os.abort()": "was ended (Aborted)",
    "import os, signal; os.kill(os.getpid(), signal.SIGKILL)": "was ended (Killed)",
    "raise MemoryError": "the process that draws ended: MemoryError",
    "import vl_convert_is_not_installed": "ModuleNotFoundError: No module named",
    "import sys; sys.exit(3)": "exit status 3",
    "import sys; sys.stdin.read(); sys.stdout.write('{')": "exit status 0",  # half a line
    "import time; time.sleep(60)": "took longer than 2 s",
}


@pytest.mark.long
@pytest.mark.parametrize("code", ENDS)
def test_however_the_process_ends_the_report_is_there(
    code: str, program: Any, by_hand: Analysis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = tmp_path / "out" / "figures" / "rounds.png"
    old.parent.mkdir(parents=True)
    old.write_text("of an earlier report, and taken for one of this")
    program(code)
    monkeypatch.setattr(draw, "SECONDS", 2)
    monkeypatch.setattr(draw, "SECONDS_EACH", 0)
    missing = reported(by_hand, tmp_path / "out")
    assert missing.startswith("Not drawn: charts of report.html, figures/rounds, figures/bytes and")
    assert missing.count(ENDS[code]) == 1
    page = unescape((tmp_path / "out" / "report.html").read_text().replace("<wbr>", ""))
    assert f"The charts are missing: {missing.split(': ', 2)[2]}." in page
    assert "<script" not in page
    assert "58.33" in page
    assert not old.exists()


def test_what_was_drawn_before_the_end_is_kept(
    program: Any, drawn: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(ONE + "import time; time.sleep(60)")
    monkeypatch.setattr(draw, "SECONDS", 1)
    monkeypatch.setattr(draw, "SECONDS_EACH", 0.5)
    found = drawn(one=chart(), two=chart())
    assert found.files["one.svg"] == b"<svg/>"
    assert list(found.missing) == ["two"]


def test_a_process_that_cannot_be_started_costs_the_pictures(
    by_hand: Analysis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw.javascript.cache_clear()
    monkeypatch.setattr(sys, "executable", None)  # as in an embedded Python
    assert "cannot be started" in reported(by_hand, tmp_path)


def test_the_reason_is_printable(program: Any, drawn: Any) -> None:
    program("import sys; sys.stderr.write('\\x1b[2J red \\n\\n'); sys.exit(1)")
    assert drawn(one=chart()).missing["one"].endswith(r"ended: \x1b[2J red")


def test_no_module_of_the_current_folder_is_run(
    drawn: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("json", "base64", "signal", "vl_convert", "random"):
        (tmp_path / f"{name}.py").write_text("open('HIT', 'w')")
    monkeypatch.chdir(tmp_path)
    assert not drawn(one=chart()).missing
    assert not (tmp_path / "HIT").exists()


PARENT = """
import json, os, subprocess, sys, time
child = subprocess.Popen([sys.executable, sys.argv[1]], stdin=-1, stdout=-3)
child.stdin.write(json.dumps([os.getpid(), [{"bundle": ""}] * 1000]).encode())
child.stdin.close()
time.sleep(1)  # until it follows
print(child.pid, flush=True)
time.sleep(60)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux alone tells a child")
def test_the_process_ends_with_its_parent() -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT, draw.PROGRAM], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    parent.kill()
    parent.communicate()
    deadline = time.monotonic() + 10
    while alive(child):
        assert time.monotonic() < deadline, "it goes on alone"
        time.sleep(0.05)


def alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


def test_the_script_of_the_page_is_made_once(program: Any, drawn: Any) -> None:
    draw.javascript.cache_clear()
    script = draw.javascript()
    assert "vegaEmbed" in script
    assert draw.javascript() is script
