"""`fedbench plugins`, `data`, `config --schema` and every `--help`."""

from __future__ import annotations

import inspect
import itertools
import json
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from PIL import Image

from fedbench import executors, options
from fedbench.cli import main
from fedbench.plugins.registry import KINDS


def flat(text: str) -> str:
    """Return text with every run of white space as one space: table cells may be folded."""
    return " ".join(text.split())


class TestPlugins:
    def test_everything_installed_is_listed_with_package_and_hooks(self, fedbench, installed):
        done = fedbench("plugins")
        assert done.exit_code == 0
        assert "\x1b" not in done.stdout
        text = flat(done.stdout)
        for kind in KINDS:
            for entry in installed.all(kind):
                if entry.package != "tests":
                    assert f" {entry.name} " in text
        assert re.search(r"run plugins of fedbench-toolkit \S+ name hooks ", text)
        assert re.search(r" exchange broadcast, client_update ", text)

    def test_methods_are_listed_by_family(self, fedbench, install, installed):
        install("other", OTHER_METHOD)
        methods = fedbench("plugins").stdout.partition("run plugins")[0]
        rows = [re.split(r"\s{2,}", line.strip()) for line in methods.splitlines()]
        families = {e.value.family for e in installed.all("recipe")}
        assert [row[0] for row in rows if len(row) == 4][1:] == [*sorted(families), "other"]
        assert ["other", "plain", "other 1.0", "mine"] in rows
        assert "\nfamily: drift\n" in fedbench("plugins", "show", "fedprox").stdout

    def test_every_bundled_method_is_in_a_family(self, installed):
        for entry in installed.all("recipe"):
            assert entry.value.family, f"{entry.name}: Recipe(family=...)"

    @pytest.mark.parametrize("name", ["hpcl", "sgd", "domains", "hyper_prototypes", "normalize"])
    def test_show_prints_every_option_with_type_default_bounds_and_text(
        self, fedbench, installed, name
    ):
        done = fedbench("plugins", "show", name)
        assert done.exit_code == 0
        text = flat(done.stdout)
        assert text.startswith(f"{name}: plugin of fedbench-toolkit")
        entry = installed.get("plugin", name)
        assert f"hooks: {', '.join(entry.hooks)}" in text
        for option in options.describe(entry.value):
            cells = [option.name, option.type, option.default, option.bounds, option.about]
            row = next(
                flat(line) for line in done.stdout.splitlines() if line.split()[:1] == [option.name]
            )
            if all(flat(c) in row for c in cells):
                continue
            # folded over several lines: every word is somewhere in the table
            assert all(word in text for cell in cells for word in cell.split())

    def test_what_looks_like_markup_is_printed_as_it_is(self, fedbench):
        assert "int | dict[str, int]" in flat(fedbench("plugins", "show", "domains").stdout)

    def test_show_prints_the_search_space_that_an_author_recommends(self, fedbench):
        text = flat(fedbench("plugins", "show", "fedprox").stdout)
        assert "option type default bounds search about" in text
        assert "mu float 0.01 >= 0 0.001, 0.01, 0.1, 1.0" in text
        assert "search" not in fedbench("plugins", "show", "domains").stdout

    def test_show_a_recipe_says_which_paper(self, fedbench):
        done = fedbench("plugins", "show", "fedhpro")
        assert "ICML 2026" in done.stdout
        assert "hpcl: reduction=mean, margin=round" in done.stdout

    def test_a_name_of_several_kinds_shows_all_of_them(self, fedbench):
        done = fedbench("plugins", "show", "moon")
        assert "moon: plugin of" in done.stdout
        assert "moon: recipe of" in done.stdout

    def test_two_packages_with_one_card_are_both_listed(self, fedbench, install):
        install("other", OTHER)
        done = fedbench("plugins")
        assert done.exit_code == 0
        assert "card 'digits' is provided by fedbench-toolkit and other" in flat(done.stdout)

    def test_packages_that_are_not_loaded_are_named_with_the_reason(
        self, fedbench, install, monkeypatch
    ):
        install("other", OTHER)
        install("old", "")
        lines = fedbench("plugins").stdout.splitlines()
        assert lines[-1].startswith("not loaded: old (old): PluginError: it does not state which")
        monkeypatch.setenv("FEDBENCH_PLUGINS", "old")
        lines = fedbench("plugins").stdout.splitlines()
        assert "left out by FEDBENCH_PLUGINS: other (other)" in lines

    def test_sources_show_what_would_be_loaded_without_loading_it(
        self, fedbench, install, monkeypatch, tmp_path
    ):
        trap = tmp_path / "loaded"
        folder = install("other", f"open({str(trap)!r}, 'w')", version="1.5")
        install("nowhere", "", entry="nowhere.inner:thing")
        monkeypatch.setenv("FEDBENCH_PLUGINS", "nowhere")
        done = fedbench("plugins", "--sources")
        assert done.exit_code == 0
        lines = done.stdout.splitlines()
        assert lines[-3:] == [
            "nowhere 1.0, nowhere.inner:thing: not found",
            "other 1.5, other: left out by FEDBENCH_PLUGINS",
            f"    {folder / 'other.py'}",
        ]
        assert re.fullmatch(r"fedbench-toolkit \S+, fedbench\.executors: loads", lines[0])
        assert Path(lines[1].strip()) == Path(executors.__file__)
        assert not trap.exists()


OTHER = """
from pathlib import Path
from fedbench import hookimpl
fedbench_api = 1

@hookimpl
def register_cards():
    return {"digits": Path(__file__)}
"""


OTHER_METHOD = """
from fedbench import Recipe, hookimpl
fedbench_api = 1

@hookimpl
def register_recipes():
    return {"plain": Recipe({"exchange": {}, "mean": {}, "cross_entropy": {}}, "mine", "Me, 2020")}
"""


SHAPES = """
from dataclasses import dataclass
from fedbench import hookimpl
fedbench_api = 1

@dataclass(frozen=True, eq=False)
class Shapes:
    '''Shapes of ours, with a very long line of text that does not fit into eighty columns.

    Files::

        ROOT/shapes/one.npz    as they are
    '''

    def load(self, root):
        raise AssertionError("nothing is loaded")

@hookimpl
def register_datasets():
    return {"my-shapes": Shapes, "show": Shapes}
"""


def cells(lines: list[str], columns: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Return the rows of a printed table, the lines of a cell joined by a space."""
    head = next(n for n, line in enumerate(lines) if tuple(line.split()) == columns)
    starts = [lines[head].index(name) for name in columns]
    rows: list[list[list[str]]] = []
    for line in lines[head + 2 :]:
        if not line.strip():
            break
        parts = [line[a:b].strip() for a, b in itertools.pairwise([*starts, len(line)])]
        if parts[0]:
            rows.append([[] for _ in columns])
        for cell, part in zip(rows[-1], parts, strict=True):
            cell.extend([part] if part else [])
    return [tuple(" ".join(cell) for cell in row) for row in rows]


class TestData:
    @pytest.mark.parametrize("width", [80, 120])
    def test_the_list_fits_the_terminal_and_breaks_no_word(
        self, fedbench, installed, tmp_path, monkeypatch, width
    ):
        monkeypatch.setenv("COLUMNS", str(width))
        (tmp_path / "root" / "mnist").mkdir(parents=True)
        done = fedbench("data", "--data-root", tmp_path / "root")
        assert done.exit_code == 0
        *table, where, _ = done.stdout.splitlines()
        assert max(map(len, table)) <= width
        places = {"mnist": "on disk", "image-folder": "-", "hf": "-"}
        places |= dict.fromkeys(("digits", "fcube", "synthetic"), "embedded")
        assert cells(table, ("name", "size", "where", "about")) == [
            (e.name, e.value.size, places.get(e.name, "to fetch"), e.about)
            for e in installed.all("dataset")
            if e.package != "tests"
        ]
        assert where == f"Files are read from {tmp_path}/root/NAME."

    def test_a_name_prints_what_the_data_set_says_of_itself(self, fedbench):
        done = fedbench("data", "digits")
        assert done.exit_code == 0
        assert done.stdout.startswith("digits: data set of fedbench-toolkit ")
        assert done.stdout.splitlines()[-8:-1] == [
            "size     16,797 images in 4.5 MB",
            "files    inside the package",
            "card     digits",
            "licence  CC BY-SA 3.0 and 4.0, CC BY 4.0, Apache-2.0 by domain",
            "source   MNIST, UCI optdigits, free photographs and fonts",
            "domains  4: mnist, optdigits, mnistm, syn",
            "classes  10: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9",
        ]

    @pytest.mark.parametrize("width", [80, 120])
    def test_every_data_set_is_printed_without_a_broken_word(
        self, fedbench, installed, monkeypatch, width
    ):
        monkeypatch.setenv("COLUMNS", str(width))
        for entry in installed.all("dataset"):
            if entry.package == "tests":
                continue
            done = fedbench("data", "--data-root", "/r", entry.name)
            assert done.exit_code == 0
            assert all(len(line) <= width for line in done.stdout.splitlines())
            text = flat(done.stdout)
            assert flat(inspect.getdoc(entry.value)) in text
            card = getattr(entry.value, "card", None) or "none"
            assert f" card {card} licence {entry.value.licence} source {entry.value.source}" in text
            for option in options.describe(entry.value):
                assert set(option.about.split()) <= set(text.split())

    def test_files_are_named_with_how_to_fetch_them(self, fedbench, tmp_path):
        def files() -> str:
            lines = fedbench("data", "--data-root", tmp_path, "mnist").stdout.splitlines()
            return next(line for line in lines if line.startswith("files"))

        assert files() == f"files    {tmp_path}/mnist (fedbench data fetch mnist)"
        (tmp_path / "mnist").mkdir()
        assert files() == f"files    {tmp_path}/mnist (on disk)"

    def test_a_data_set_that_says_nothing_of_itself(self, fedbench, install):
        install("other", SHAPES)
        done = fedbench("data", "--data-root", "/r", "my-shapes")
        assert done.stdout.splitlines() == [
            "my-shapes: data set of other 1.0",
            "",
            "Shapes of ours, with a very long line of text that does not fit into eighty columns.",
            "",
            "Files::",
            "",
            "    ROOT/shapes/one.npz    as they are",
            "",
            "size     -",
            "files    /r/my-shapes",
            "card     none",
            "licence  -",
            "source   files of your own",
            "",
        ]

    def test_a_command_comes_before_a_data_set_of_its_name(self, fedbench, install):
        install("other", SHAPES)
        done = fedbench("data", "show")
        assert done.exit_code == 2
        assert "Missing argument 'NAME'" in done.stderr

    def test_a_word_that_is_neither(self, fedbench):
        done = fedbench("data", "fech", "mnist")
        assert done.exit_code == 2
        assert done.stderr.endswith("Error: no command 'fech' (did you mean 'fetch'?)\n")
        done = fedbench("data", "mnits")
        assert done.exit_code == 1
        assert done.stderr == "Error: no data set 'mnits' (did you mean 'mnist'?)\n"

    def test_show_prints_counts_and_writes_a_readable_sheet_of_each_domain(
        self, fedbench, tmp_path
    ):
        done = fedbench("data", "show", "digits", "--out", "sheets/new")
        assert done.exit_code == 0
        assert "inputs 3 x 32 x 32 uint8" in done.stdout
        rows = [flat(line).split() for line in done.stdout.splitlines()]
        for domain in ("mnist", "optdigits", "mnistm", "syn"):
            train = next(r for r in rows if r[:2] == [domain, "train"])
            total, *classes = map(int, train[2:])
            assert len(classes) == 10
            assert sum(classes) == total >= 700
            with Image.open(tmp_path / f"sheets/new/digits-{domain}.png") as image:
                image.load()
                # 20 columns and 10 rows of 32 pixels, 2 pixels apart
                assert image.size == (20 * 34 + 2, 10 * 34 + 2)
                assert len(image.getcolors(2**16) or range(2**16)) > 30

    def test_a_folder_that_cannot_be_written(self, fedbench, tmp_path):
        (tmp_path / "file").write_text("")
        done = fedbench("data", "show", "digits", "--out", "file/sheets")
        assert done.exit_code == 1
        assert done.stderr.startswith("Error: file/sheets cannot be written: ")
        assert done.stderr.count("\n") == 1


def test_the_schema_is_json(fedbench):
    done = fedbench("config", "--schema")
    schema = json.loads(done.stdout)
    assert schema["$schema"].startswith("https://json-schema.org/")
    assert "sgd" in schema["properties"]["plugins"]["properties"]


def test_config_without_a_method_says_what_to_write(fedbench):
    done = fedbench("config")
    assert done.exit_code == 2
    assert "name a method, for example: fedbench config fedavg" in done.stderr


# --- help ----------------------------------------------------------------------------------------


def test_the_description_of_a_plugin_fills_the_terminal(fedbench, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    _, paragraph, *_ = fedbench("plugins", "show", "faults").stdout.split("\n\n")
    assert paragraph.splitlines() == textwrap.wrap(flat(paragraph), 60)


def commands(command: click.Command, words: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield words
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            yield from commands(inner, (*words, name))


ALL = list(commands(main))


@pytest.mark.parametrize("words", ALL, ids=[" ".join(("fedbench", *w)) for w in ALL])
def test_help_gives_an_example(fedbench, words):
    for flag in ("--help", "-h"):
        done = fedbench(*words, flag)
        assert done.exit_code == 0
        start = " ".join(("  fedbench", *words))
        examples = [line for line in done.stdout.splitlines() if line.startswith(start)]
        assert examples, done.stdout


@pytest.mark.parametrize("words", [(), *ALL], ids=[" ".join(w) or "fedbench" for w in [(), *ALL]])
def test_help_fits_into_80_columns_and_no_summary_is_cut_off(fedbench, words):
    done = fedbench(*words, "--help")
    assert [line for line in done.stdout.splitlines() if len(line) > 80] == []
    _, _, summaries = done.stdout.partition("\nCommands:\n")
    assert "..." not in summaries


def test_help_waits_for_nothing_heavy():
    code = (
        "import sys\n"
        "from fedbench.cli import main\n"
        f"for words in {ALL!r}:\n"
        "    try:\n"
        "        main([*words, '--help'])\n"
        "    except SystemExit as end:\n"
        "        assert end.code == 0\n"
        "heavy = {'torch', 'torchvision', 'numpy', 'pydantic', 'rich', 'yaml', 'pluggy'}\n"
        "print('HEAVY', sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout.splitlines()[-1] == "HEAVY []"


def test_version(fedbench):
    done = fedbench("--version")
    assert done.exit_code == 0
    assert done.stdout.startswith("fedbench, version ")
