"""``fedbench hooks``: every hook in the terminal, with its documentation and its example."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

from fedbench.cli.hooks import EXAMPLES
from fedbench.hookspecs import OBSERVERS, SINGLE, DiscoveryHooks, RunHooks

RUN = [name for name in vars(RunHooks) if not name.startswith("_")]
PACKAGE = [name for name in vars(DiscoveryHooks) if not name.startswith("_")]


def test_the_list_has_a_line_for_each_hook_in_the_order_of_a_round(fedbench):
    lines = [line.split() for line in fedbench("hooks").stdout.splitlines() if line[:2] == "  "]
    assert [words[0] for words in lines] == [*RUN, *PACKAGE]
    kinds = {words[0]: words[1] for words in lines}
    assert {n for n, kind in kinds.items() if kind == "single"} == SINGLE
    assert {n for n, kind in kinds.items() if kind == "observer"} == OBSERVERS
    assert {n for n, kind in kinds.items() if kind == "package"} == set(PACKAGE)
    assert {kinds[name] for name in ("broadcast", "local_loss", "after_backward")} == {"list"}


@pytest.mark.parametrize("name", [*RUN, *PACKAGE])
def test_a_hook_is_printed_with_documentation_arguments_and_example(fedbench, name):
    done = fedbench("hooks", name)
    assert done.exit_code == 0
    group = RunHooks if name in RUN else DiscoveryHooks
    function = getattr(group, name)
    text = " ".join(done.stdout.split())
    documented = (inspect.getdoc(function) or "").replace("\nWhen:", " When:")
    for part in documented.split("\n\n"):
        for sentence in " ".join(part.split()).split(" Returns: "):
            assert sentence.strip() in text
    for parameter in list(inspect.signature(function).parameters)[1:]:
        assert f"{parameter}: " in done.stdout
    head, _, example = done.stdout.partition(f"Example, {EXAMPLES / name}.py:\n\n")
    assert head.startswith(f"{name}: ")
    assert example == (EXAMPLES / f"{name}.py").read_text()


def test_a_hook_that_does_not_exist(fedbench):
    done = fedbench("hooks", "agregate")
    assert done.exit_code == 1
    assert done.stderr == "Error: there is no hook 'agregate' (did you mean 'aggregate'?)\n"


def test_it_answers_without_waiting_for_torch():
    code = (
        "import sys; from fedbench.cli import main; main(['hooks', 'aggregate'], "
        "standalone_mode=False); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
