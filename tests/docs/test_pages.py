"""What the pages tell the reader to type works: commands parse, snippets run, links lead on."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from fedbench import options
from fedbench.cli import main
from fedbench.cli.flags import resolve_config
from fedbench.config.resolve import resolve
from fedbench.plugins.discovery import discover
from fedbench.study import grid as comparison

SHAPING = {"run", "config", "partition", "profile"}


def test_every_command_line_is_one_that_fedbench_takes(page, site):
    text = page.read_text(encoding="utf-8")
    for block in site.blocks(text):
        for words in site.typed(block):
            site.parse(words)
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    for line in re.findall(r"`(fedbench [^`]+)`", prose):
        for words in site.typed(site.Block("sh", "", " ".join(line.split()))):
            with suppress(click.MissingParameter):  # a command named in passing
                site.parse(words)


def test_methods_plugins_and_options_in_command_lines_exist(page, site, tmp_path):
    registry = discover()
    for block in site.blocks(page.read_text(encoding="utf-8")):
        for words in site.typed(block):
            if "timm" in words and not find_spec("timm"):
                continue  # an extra
            ctx, command = site.parse(words)
            given = ctx.params
            if "my-" in " ".join(words) or ctx.params.get("file"):
                continue  # the reader's own; the pages that make them are executed below
            if command.name in SHAPING and not str(given["target"]).endswith((".yaml", "None")):
                shaping = {p.name for p in main.commands["config"].params} - {
                    "schema",
                    "explain",
                    "debug",
                }
                resolve_config(**{k: v for k, v in given.items() if k in shaping})
            elif command.name == "compare":
                names = {"methods": given["methods"], "set": given["sets"], "data": given["data"]}
                names["settings"] = given["settings"]
                changes = {k: list(v) for k, v in names.items() if v}
                grid = options.build(comparison.Grid, changes, lambda _: "command line")
                assert comparison.plan(registry, grid, tmp_path)


def commands_of(text: str, site: object) -> list[list[str]]:
    return [words for block in site.blocks(text) for words in site.typed(block)]


def test_the_first_page_has_the_readmes_commands(site):
    readme = (site.root / "README.md").read_text(encoding="utf-8")
    index = (site.root / "docs" / "index.md").read_text(encoding="utf-8")
    start = readme.partition("\n## Start\n")[2].partition("\n## ")[0]
    (install,) = [b.text for b in site.blocks(start) if "pip install" in b.text]
    assert f"```sh\n{install}```" in index
    for title in ("Compare", "Ablations"):
        section = readme.partition(f"\n## {title}\n")[2].partition("\n## ")[0]
        found = commands_of(section, site)
        assert found
        for words in found:
            assert words in commands_of(index, site), " ".join(words)
    python = [b.text for b in site.blocks(readme) if b.language == "python"]
    assert set(python) <= {b.text for b in site.blocks(index)}


def test_every_link_to_a_file_leads_to_one(page, site):
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:|#", target) or "/reference/" in f"/{target}":
            continue  # the reference is generated; Sphinx checks links into it
        assert (page.parent / target.partition("#")[0]).exists(), target


AUTHORING = {
    "method": ("method", "my-scaffold"),
    "server-optimiser": ("method", "my-steps"),
    "personalised": ("method", "my-bias"),
    "codec": ("method", "my-half"),
    "partition": ("partition", "my-zipf"),
    "dataset": ("dataset", "my-shapes"),
    "metric": ("metric", "my-f1"),
}


CHECKED = {
    # A partition's effect on rounds is checked for the bundled ones, which takes longer.
    "partition": ("docstring", "options", "same-twice", "partition", "too-little-data"),
    # The other rules want its file at the default data root.
    "dataset": ("docstring", "source", "options"),
}


def package(site: object, name: str, install: object) -> tuple[dict[str, str], list]:
    """Write the page's package as its reader would; return its other files and all its blocks."""
    found = site.blocks((site.root / "docs/authoring" / f"{name}.md").read_text(encoding="utf-8"))
    _, plugin = AUTHORING[name]
    (words,) = [w for b in found for w in site.typed(b) if w[1] == "new"]
    assert words[2] == plugin
    done = CliRunner().invoke(main, words[1:], prog_name="fedbench")
    assert done.exit_code == 0, done.output
    module = f"fedbench_{plugin.replace('-', '_')}"
    assert Path(plugin, f"{module}.py").is_file()
    entry = re.search(
        r'^\[project.entry-points.fedbench\]\n\S+ = "(\S+)"$',
        Path(plugin, "pyproject.toml").read_text(),
        re.MULTILINE,
    )
    assert entry
    assert entry[1] == module
    files: dict[str, str] = {}
    for block in found:
        if block.file:
            files.setdefault(block.file, "")
            files[block.file] += f"\n{block.text}" if block.text[0] == " " else f"\n\n{block.text}"
    install(module, files.pop(f"{module}.py"))
    return files, found


@pytest.fixture(scope="module")
def few_digits():
    """The digits with a tenth of the test images, composed once."""
    from fedbench_datasets import digits

    def few(images, labels):
        return images[::10], labels[::10]

    return {d: {**found, "test": few(*found["test"])} for d, found in digits.load().items()}


@pytest.fixture
def elsewhere(tmp_path, monkeypatch, few_digits):
    """An empty folder, where the data set of the pages' commands is small."""
    from fedbench_datasets import digits

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(digits, "load", lambda *_: few_digits)
    return tmp_path


SMALL = ["domains.examples=20", "sgd.epochs=1", "model.width=2", "model.feature_size=8"]


def execute(words: list[str]) -> str:
    """Run a command line of a page, made small; nothing else of it is changed."""
    sets = [s for s in SMALL if s.partition(".")[0] not in " ".join(words)]
    if "my-zipf" in words:  # replaces it
        sets = [s for s in sets if not s.startswith("domains")]
    more = [w for s in sets for w in ("--set", s)] if words[1] in ("run", "partition") else []
    if words[1] == "run" and "--executor" not in words:
        more += ["--executor", "inline"]
    done = CliRunner().invoke(main, [*words[1:], *more], prog_name="fedbench")
    assert done.exit_code == 0, f"{' '.join(words)}: {done.output}"
    return done.output


LONG = [pytest.mark.long]


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[] if n in ("method", "metric") else LONG) for n in AUTHORING]
)
def test_the_package_of_the_page_is_as_the_page_says(name, site, install, elsewhere):
    from fedbench import testing

    kind, plugin = AUTHORING[name]
    files, found = package(site, name, install)
    registry = discover()
    assert not registry.failures
    module = importlib.import_module(f"fedbench_{plugin.replace('-', '_')}")
    known = dict(vars(module))
    for block in found:  # in the page's order: a command may need what a snippet made
        if block.language == "python" and not block.file:
            exec(compile(block.text, f"{name}.md", "exec"), known)
        for words in site.typed(block):
            if words[1] not in ("new", "compare"):
                execute(words)
            elif words[1] == "compare":
                ctx, _ = site.parse(words)
                names = {"methods": list(ctx.params["methods"]), "set": list(ctx.params["sets"])}
                grid = options.build(comparison.Grid, names, lambda _: "command line")
                assert len(comparison.plan(registry, grid, elsewhere / "c")) == 2 * grid.seeds
    rules = testing.rules(kind, plugin, registry)
    rules += testing.rules("plugin", plugin, registry) if kind == "method" else []
    assert len(rules) > 4
    for rule in rules:
        if rule.name not in CHECKED.get(kind, rule.name):
            continue
        rule.check()
    for file, text in files.items():
        assert file.startswith("test_")
        space: dict[str, object] = {}
        exec(compile(text, file, "exec"), space)
        tests = [value for key, value in space.items() if key.startswith("test_")]
        assert tests
        for test in tests:
            test()


def test_the_tutorials_method_computes_scaffold(site, install, elsewhere):
    """Strength 0 is FedAvg to the bit; with all clients online, c is the mean of the c_k."""
    from fedbench import Run
    from fedbench.types import sha256

    package(site, "method", install)
    registry = discover()
    flags = {"data": "digits", "rounds": 2, "executor": "inline"}
    sets = [*SMALL, "sgd.momentum=0", "sgd.weight_decay=0"]

    def run(method: str, *more: str) -> Run:
        made = Run(resolve(registry, method, flags=flags, sets=[*sets, *more]))
        made.run()
        return made

    plain, off, on = run("fedavg"), run("my-scaffold", "my-scaffold.strength=0"), run("my-scaffold")
    assert sha256(plain.state.weights) == sha256(off.state.weights)
    assert sha256(plain.state.weights) != sha256(on.state.weights)
    key = "my-scaffold.control"
    kept = [on._clients.get(c, {})[key] for c in range(len(on.runtime.parts))]
    for name, value in on.state.entries.weights(key).items():
        mean = sum(one[name] for one in kept) / len(kept)
        assert float((value - mean).abs().max()) < 1e-6


def test_the_page_on_determinism_runs_as_written(site, elsewhere):
    known: dict[str, object] = {}
    for block in site.blocks((site.root / "docs/determinism.md").read_text(encoding="utf-8")):
        if block.language == "python":
            exec(compile(block.text, "determinism.md", "exec"), known)
        for words in site.typed(block):
            execute(words)


def test_the_turn_of_a_real_run_on_the_testing_page_runs_as_written(site, elsewhere, capsys):
    found = site.blocks((site.root / "docs/testing.md").read_text(encoding="utf-8"))
    (block,) = [b for b in found if b.language == "python" and "Runtime" in b.text]
    exec(compile(block.text, "testing.md", "exec"), {})
    number, _, bias = capsys.readouterr().out.partition(" ")
    assert float(number) > 0
    assert bias.startswith("tensor([")


@pytest.mark.long
@pytest.mark.skipif(importlib.util.find_spec("sphinx") is None, reason="needs sphinx: [docs]")
def test_the_site_builds_without_a_warning(site, tmp_path):
    done = subprocess.run(
        [
            *(sys.executable, "-m", "sphinx", "-W", "--keep-going", "-n", "-q"),
            *("-d", str(tmp_path / "trees"), str(site.root / "docs"), str(tmp_path / "site")),
        ],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONWARNINGS": "default"},
    )
    assert done.returncode == 0, done.stderr
    for page in ("index", "reference/hooks", "reference/commands", "authoring/method"):
        assert (tmp_path / "site" / f"{page}.html").is_file()
