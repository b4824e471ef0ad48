"""The files of a run directory are named in ``fedbench.store`` and nowhere else."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import fedbench_baselines
import fedbench_fedhpro
import pytest

import fedbench
from fedbench.errors import ConfigError
from fedbench.store.directory import RunDirectory, find

ROOTS = [Path(p.__file__).parent for p in (fedbench, fedbench_baselines, fedbench_fedhpro)]
CODE = {
    f"{root.name}/{file.relative_to(root)}": file
    for root in ROOTS
    for file in sorted(root.rglob("*.py"))
    if ROOTS[0] / "store" not in file.parents
}

PATHS = [p for p in vars(RunDirectory(Path("run"))).values() if p.name != "run"]
FILES = [p.name for p in PATHS if "." in p.name]
FOLDERS = [p.name for p in PATHS if "." not in p.name]
NAMED = re.compile("|".join(rf"(?<![\w}}]){re.escape(name)}(?!\w)" for name in FILES))


def text_of(node: ast.AST) -> str | None:
    """Return the text of a string, with ``{}`` for the values in it; ``None`` for other code."""
    if isinstance(node, ast.JoinedStr):
        return "".join("{}" if isinstance(v, ast.FormattedValue) else _text(v) for v in node.values)
    return _text(node) if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def _text(node: ast.AST) -> str:
    assert isinstance(node, ast.Constant)
    return str(node.value)


def names(node: ast.AST) -> Iterator[str]:
    """Yield the names of a run's files in code; docstrings and ``help`` texts are prose.

    The folders have everyday words as names, which count where a path is built with ``/``.
    """
    children = list(ast.iter_child_nodes(node))
    if isinstance(node, ast.Expr) and text_of(node.value) is not None:
        return  # a docstring
    if isinstance(node, ast.keyword) and node.arg == "help":
        return
    text = text_of(node)
    if text is not None:
        yield from NAMED.findall(text)
        children = [v.value for v in children if isinstance(v, ast.FormattedValue)]
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
        yield from (name for name in (text_of(node.left), text_of(node.right)) if name in FOLDERS)
    for child in children:
        yield from names(child)


def test_there_is_code_to_look_at() -> None:
    assert {"fedbench/engine/run.py", "fedbench_baselines/sgd.py"} <= set(CODE)
    assert {"config.yaml", "rounds.jsonl", ".lock", "error.txt"} <= set(FILES)
    assert set(FOLDERS) == {"checkpoint", "checkpoints", "clients", "in_memory", "personal"}


@pytest.mark.parametrize("module", CODE)
def test_no_other_module_names_a_file_of_a_run(module: str) -> None:
    assert list(names(ast.parse(CODE[module].read_text("utf-8")))) == []


def test_the_check_itself_sees_names_and_passes_prose() -> None:
    code = """
'''A module about config.yaml.'''
def f(run, name, clients):
    '''Reads result.json.'''
    option(help="Print result.json.")
    return {"clients": [f".{name}.lock"], "checkpoint": 1}
"""
    assert list(names(ast.parse(code))) == []
    for line, name in {
        "run / 'config.yaml'": "config.yaml",
        "f'{run}/result.json'": "result.json",
        "error(f'rounds.jsonl:{n} is damaged')": "rounds.jsonl",
        "run / 'clients' / 'a'": "clients",
        "f'{open(run + \"run.log\")}'": "run.log",
    }.items():
        assert list(names(ast.parse(f"x = {line}"))) == [name]


def test_a_folder_without_a_config_holds_no_run(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"^{tmp_path} holds no run \(no config.yaml\)$"):
        RunDirectory.open(tmp_path)
    (tmp_path / "config.yaml").write_text("")
    directory = RunDirectory.open(tmp_path)
    assert (directory.exists, directory.finished, directory.failed) == (True, False, False)


def test_runs_are_found_below_folders_and_by_their_config(tmp_path: Path) -> None:
    runs = [tmp_path / "a" / "1", tmp_path / "a" / "2", tmp_path / "b"]
    for run in runs:
        run.mkdir(parents=True)
        (run / "config.yaml").write_text("")
    assert find([tmp_path]) == runs
    assert find([runs[2], runs[0] / "config.yaml", tmp_path / "a"]) == runs
    (tmp_path / "c").mkdir()
    with pytest.raises(ConfigError, match=r"c holds no run \(no config.yaml at or below it\)$"):
        find([tmp_path / "a", tmp_path / "c"])


def test_rounds_are_counted_while_one_is_being_written(tmp_path: Path) -> None:
    assert RunDirectory(tmp_path).count_rounds() == 0
    (tmp_path / "rounds.jsonl").write_text('{"round": 1}\n{"round": 2}\n{"rou')
    assert RunDirectory(tmp_path).count_rounds() == 2
