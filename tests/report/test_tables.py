"""The summary's cells against numbers worked out by hand, in every form."""

from __future__ import annotations

import io
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from fedbench.report import print_analysis
from fedbench.report.content import PAIRED, headline, table
from fedbench.report.tables import latex, markdown, md, tex
from fedbench.store.contents import Partition
from fedbench.study.analysis import Analysis

HOSTILE = '<script>alert("1")</script> & a|b_c%$#{}\\~^ -- [bold]x[/] 中 é'


def printed(analysis: Analysis, **given: Any) -> str:
    out = io.StringIO()
    print_analysis(analysis, Console(file=out, highlight=False, **given))
    return out.getvalue()


def test_numbers_are_those_worked_out_by_hand(by_hand: Analysis) -> None:
    x, y = table(by_hand, by_hand.groups[0]).rows
    assert [(e.mean, e.std) for e in x.entries] == [
        ("55.00", "10.00"),
        ("60.00", "10.00"),
        ("50.00", "10.00"),
    ]
    assert [e.mean for e in y.entries] == ["58.33", "63.67", "53.00"]
    assert y.versus == ("+3.33", "[-0.46, +7.13]", "0.063", "+2.18", "6/0/0")
    assert x.versus[0] == "reference"
    assert x.seeds == "3"


def test_best_is_marked_and_what_is_not_significant_too(by_hand: Analysis) -> None:
    content = table(by_hand, by_hand.groups[0])
    x, y = content.rows
    assert [e.best for e in y.entries] == [True] * 3
    assert not any(e.best or e.unsure for e in x.entries)
    assert y.entries[0].unsure
    assert headline(by_hand.groups[0]) == (
        "Best mean over domains: y, 58.33 % over 3 seeds. "
        "The difference to x is not significant for y."
    )


def test_markdown_has_the_same_cells(by_hand: Analysis) -> None:
    text = markdown(by_hand)
    assert "| variant | seeds | mean | a | b |\n| --- | ---: | ---: | ---: | ---: |" in text
    assert "| x | 3 | 55.00 ± 10.00 | 60.00 ± 10.00 | 50.00 ± 10.00 |" in text
    assert "| y | 3 | **58.33 ± 11.06** ≈ |" in text
    assert r"| y | +3.33 | \[-0.46, +7.13\] | 0.063 | +2.18 | 6/0/0 |" in text
    assert "last round" in text


def test_latex_has_the_same_cells(by_hand: Analysis) -> None:
    text = latex(by_hand)
    assert r"x & 3 & 55.00 $\pm$ 10.00 & 60.00 $\pm$ 10.00 & 50.00 $\pm$ 10.00 \\" in text
    assert r"y & 3 & \textbf{58.33 $\pm$ 11.06}\,$\approx$ &" in text
    assert r"y & +3.33 & [$-$0.46, +7.13] & 0.063 & +2.18 & 6/0/0 \\" in text


def test_letters_that_mean_something_are_escaped() -> None:
    assert tex("a_b & 50 % \\x") == r"a\_b \& 50 \% \textbackslash{}x"
    assert tex("fedhpro:--x é 中\n") == r"fedhpro:{-}{-}x é \texttt{U+4E2D}"
    assert md("a|b_c*\n<i>") == r"a\|b\_c\* \<i\>"


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="no pdflatex (apt: texlive-latex-base)")
def test_latex_compiles_whatever_variants_are_called(
    runs: Any, analysed: Callable[..., Analysis], tmp_path: Path
) -> None:
    for rounds in (2, 3):
        runs.grid((HOSTILE, "fedavg"), seeds=3, rounds=rounds)
    (tmp_path / "table.tex").write_text(latex(analysed()))
    paper = (
        r"\documentclass{article}\usepackage{booktabs}\begin{document}\input{table}\end{document}"
    )
    (tmp_path / "paper.tex").write_text(paper)
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if "booktabs.sty' not found" in done.stdout:
        pytest.skip("pdflatex has no booktabs (apt: texlive-latex-recommended)")
    assert done.returncode == 0, done.stdout[-2000:]


def test_a_terminal_shows_bold_and_signs(by_hand: Analysis) -> None:
    text = printed(by_hand, width=120, force_terminal=True, color_system="standard")
    assert "\x1b[1m58.33 ± 11.06\x1b[0m ≈" in text
    assert "≈: not significantly different from x" in text
    assert PAIRED in text
    assert "accuracy in percent, last round" in text


def test_off_a_terminal_all_is_ascii_on_unbroken_lines(by_hand: Analysis) -> None:
    text = printed(by_hand, width=10_000)
    assert text.isascii()
    assert "*58.33 +- 11.06 ~" in text
    assert "+3.33 | [-0.46, +7.13] |    0.063 |" in text


def test_a_narrow_terminal_gets_several_tables(big: Analysis) -> None:
    text = printed(big, width=60, force_terminal=True)
    assert all(len(line) <= 60 for line in text.splitlines() if "±" in line and "\x1b" not in line)
    assert text.count("variant") > 2
    assert "±" in text


def test_names_are_no_markup(runs: Any, analysed: Callable[..., Analysis]) -> None:
    runs.grid((HOSTILE,), seeds=2, rounds=2)
    assert "[bold]x[/]" in printed(analysed(), width=10_000)


def test_failed_and_unfinished_runs_are_shown(big: Analysis) -> None:
    text = printed(big, width=10_000)
    assert "failed: fpl, seed 5: loss term 'fpl' is nan in round 41, client 3" in text
    assert "unfinished: fedproto, seed 5: 12 of 100 rounds done" in text
    rows = {row.variant: row for row in table(big, big.groups[0]).rows}
    assert (rows["fpl"].seeds, rows["fpl"].trouble) == ("5 of 6", "1 failed")
    assert "fpl: 1 failed" in markdown(big).lower()
    assert "1 failed" in latex(big)


def test_a_variant_without_a_finished_run_keeps_its_row(
    runs: Any, analysed: Callable[..., Analysis]
) -> None:
    runs.grid(("a", "b"), seeds=2, rounds=2)
    runs.add("broken", 0, rounds=2, error="out of memory")
    row = table(analysed(reference="a"), analysed(reference="a").groups[0]).rows[-1]
    assert (row.variant, row.seeds, row.trouble) == ("broken", "0 of 1", "1 failed")
    assert {e.mean for e in row.entries} == {"-"}


def test_too_few_seeds_give_a_note_and_no_p(runs: Any, analysed: Callable[..., Analysis]) -> None:
    runs.grid(("a", "b"), seeds=2, rounds=2)
    analysis = analysed()
    content = table(analysis, analysis.groups[0])
    assert content.rows[0].versus[2] == "-"
    assert not any(e.unsure for row in content.rows for e in row.entries)
    note = "no p: the t-test needs 3 seeds (n = 2)"
    assert note in content.notes
    for text in (markdown(analysis), latex(analysis), printed(analysis, width=10_000)):
        assert note[4:8] in text
    assert note in printed(analysis, width=10_000)


def test_a_single_run_has_no_spread_and_nothing_to_compare(
    runs: Any, analysed: Callable[..., Analysis]
) -> None:
    runs.add("fedavg", 0, exact={"only": (0.1, 0.25)}, accuracy={"rule": "last"})
    content = table(analysed(), analysed().groups[0])
    assert content.columns == ("mean",)
    assert content.versus == ()
    assert (content.rows[0].entries[0].mean, content.rows[0].entries[0].std) == ("25.00", "")
    assert "compared with" not in printed(analysed(), width=10_000)


def test_several_settings_are_kept_apart_and_ranked(
    runs: Any, analysed: Callable[..., Analysis]
) -> None:
    for rounds in (2, 3, 4):
        runs.grid(("a", "b", "c"), seeds=2, rounds=rounds)
    analysis = analysed()
    text = printed(analysis, width=10_000)
    assert [g.label for g in analysis.groups] == [f"tiny, rounds={n}" for n in (2, 3, 4)]
    assert "all settings" in text
    assert "Friedman test, 3 methods on 3 settings: p = " in text
    assert "## All settings" in markdown(analysis)
    assert r"\label{tab:matrix-settings}" in latex(analysis)


def test_runs_that_do_not_share_what_they_should_raise_a_warning(
    runs: Any, analysed: Callable[..., Analysis]
) -> None:
    runs.grid(("a", "b"), seeds=2, rounds=2)
    other = Partition(["0"], ["mnist"], {0: {"mnist": [9]}})
    runs.add("c", 1, rounds=2, partition=other)
    assert "WARNING: not paired in seed 1: different partitions" in printed(
        analysed(), width=10_000
    )


def test_a_metric_that_is_no_share_is_shown_as_it_is(
    runs: Any, analysed: Callable[..., Analysis]
) -> None:
    runs.grid(("a", "b"), seeds=3, rounds=3, accuracy={"metric": "loss", "rule": "last"})
    analysis = analysed()
    content = table(analysis, analysis.groups[0])
    best = min(content.rows, key=lambda row: float(row.entries[0].mean))
    assert best.entries[0].best
    assert "lower is better" in content.notes[0]
    assert content.versus[0] == "difference (loss)"
