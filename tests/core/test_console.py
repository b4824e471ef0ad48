"""Whatever is printed is shown, and steers no terminal."""

from __future__ import annotations

import ast
import io
import sys
from pathlib import Path

import pytest
from rich.live import Live
from rich.panel import Panel
from rich.progress import Progress, TextColumn
from rich.table import Table
from rich.text import Text

import fedbench
from fedbench.console import Console
from fedbench.text import echo

HOSTILE = "a\x1b[2J\x07\r\u202eb"
SHOWN = r"a\x1b[2J\x07\r\u202eb"
LATE = r"a\x1b[2J\u202eb"
"""What is left of it when rich has removed a bell and a carriage return from a `Text`."""


def screen(terminal: bool = False) -> Console:
    return Console(file=io.StringIO(), force_terminal=terminal, width=100, highlight=False)


def written(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_line_is_shown_and_its_style_works() -> None:
    console = screen(terminal=True)
    console.print(HOSTILE, style="bold", markup=False)
    assert written(console) == f"\x1b[1m{SHOWN}\x1b[0m\n"


def test_cells_heads_and_titles_have_room_for_what_is_shown() -> None:
    console = screen()
    table = Table(HOSTILE, title=HOSTILE, caption=HOSTILE)
    table.add_row(HOSTILE)
    console.print(table)
    lines = written(console).splitlines()
    assert sum(SHOWN in line for line in lines) == 4
    assert len({len(line) for line in lines if set(line) & set("━┃│└")}) == 1


def test_what_was_never_a_plain_string_is_shown_too() -> None:
    console = screen()
    console.print(Panel(Text(HOSTILE), title=Text(HOSTILE)))
    assert written(console).count(LATE) == 2
    assert "\x1b" not in written(console)


def test_a_live_display_steers_the_cursor_and_nothing_else_does() -> None:
    console = screen(terminal=True)
    column = TextColumn("{task.description}", markup=False)
    with Progress(column, console=console, auto_refresh=False) as bars:
        bars.add_task(HOSTILE)
        bars.refresh()
    with Live(Text(HOSTILE), console=console, auto_refresh=False) as live:
        live.refresh()
    assert written(console).count(LATE) >= 2
    assert "\x1b[2J" not in written(console)
    assert "\x1b[?25h" in written(console)  # shows the cursor again


def test_a_line_stays_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    echo(f"{HOSTILE}\nround 9")
    echo("a\n\x1bb", lines=True, err=True)
    out, err = capsys.readouterr()
    assert out == f"{SHOWN}\\nround 9\n"
    assert err == "a\n\\x1bb\n"


def test_without_a_console_nothing_is_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, None)
    echo("a")
    echo("b", err=True)


ROOT = Path(fedbench.__file__).parent
PRINTS = {"print", "click.echo", "click.secho", "sys.stdout.write", "sys.stderr.write"}


@pytest.mark.parametrize(
    "file",
    [f for f in sorted(ROOT.rglob("*.py")) if not {"templates", "examples"} & set(f.parts)],
    ids=str,
)
def test_nothing_else_prints(file: Path) -> None:
    if file.name in ("console.py", "text.py", "child.py"):  # the child's parent reads JSON
        return
    tree = ast.parse(file.read_text("utf-8"))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    assert not [node.lineno for node in calls if ast.unparse(node.func) in PRINTS]
    froms = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    taken = [name.name for node in froms if node.module == "rich.console" for name in node.names]
    assert "Console" not in taken
