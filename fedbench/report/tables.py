"""The summary as Markdown and as LaTeX with booktabs."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ..analysis import Analysis
from .content import NONE, Entry, Row, Table, has_unsure, ranks, table

TEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "-": "{-}",
    "±": r"$\pm$",
    "≈": r"$\approx$",
}


def tex(text: str) -> str:
    """Return ``text`` as LaTeX sets it letter by letter."""
    plain = " ".join(text.split())
    return "".join(TEX.get(letter, letter) for letter in plain if letter.isprintable())


def md(text: str) -> str:
    """Return ``text`` as Markdown shows it letter by letter."""
    return re.sub(r"([\\`*_{}\[\]<>#|~&$])", r"\\\1", " ".join(text.split()))


def markdown(analysis: Analysis) -> str:
    """Return the summary tables of all settings as Markdown."""
    parts = ["# Comparison", ""]
    for group in analysis.groups:
        content = table(analysis, group)
        parts += [f"## {md(content.label)}", "", *_md_table(content), ""]
        parts += [f"- {md(note)}" for note in _legend(content, bold="bold")]
        parts += _md_runs(content)
        parts.append("")
    order = ranks(analysis)
    if order:
        parts += ["## Mean ranks over settings", "", *_md_grid(["variant", "mean rank"], order.rows)]
        parts += ["", f"- {md(order.note)}", ""]
    return "\n".join(parts)


def _md_table(content: Table) -> list[str]:
    head = ["variant", "seeds", *content.columns, *content.versus]
    rows = [
        [row.variant, row.seeds, *map(_md_entry, row.entries), *row.versus] for row in content.rows
    ]
    safe = [[md(row[0]), row[1], *row[2 : 2 + len(content.columns)]] for row in rows]
    rest = [[md(cell) for cell in row[2 + len(content.columns) :]] for row in rows]
    return _md_grid(head, [a + b for a, b in zip(safe, rest, strict=True)], escaped=True)


def _md_grid(head: Sequence[str], rows: Sequence[Sequence[str]], escaped: bool = False) -> list[str]:
    shown = rows if escaped else [[md(cell) for cell in row] for row in rows]
    lines = [[md(cell) for cell in head], ["---", *["---:"] * (len(head) - 1)], *shown]
    return ["| " + " | ".join(line) + " |" for line in lines]


def _md_entry(entry: Entry) -> str:
    text = f"{entry.mean} ± {entry.std}" if entry.std else entry.mean
    return (f"**{text}**" if entry.best else text) + (" ≈" if entry.unsure else "")


def _md_runs(content: Table) -> list[str]:
    return [f"- {md(row.variant)}: {row.trouble}" for row in content.rows if row.trouble]


def _legend(content: Table, bold: str) -> list[str]:
    marks = [f"{bold}: best of its column"]
    if has_unsure(content):
        marks.append(
            f"≈: difference to {content.reference} not significant at 5 % after Holm's correction"
        )
    return [*content.notes, *marks]


def latex(analysis: Analysis) -> str:
    r"""Return the tables as LaTeX for ``\input``; the preamble needs ``\usepackage{booktabs}``."""
    parts = [r"% needs \usepackage{booktabs} and, for lmodern's signs, \usepackage[T1]{fontenc}", ""]
    for number, group in enumerate(analysis.groups, 1):
        content = table(analysis, group)
        parts += [_tex_table(content, number), ""]
    order = ranks(analysis)
    if order:
        rows = [[tex(cell) for cell in row] for row in order.rows]
        body = _tabular(["variant", "mean rank"], rows)
        parts += [_float(body, f"Mean ranks over settings. {order.note}.", "ranks"), ""]
    return "\n".join(parts)


def _tex_table(content: Table, number: int) -> str:
    heads = ["variant", "seeds", *content.columns, *content.versus]
    rows = [_tex_row(row) for row in content.rows]
    legend = [f"{row.variant}: {row.trouble}" for row in content.rows if row.trouble]
    caption = ". ".join((content.label, *_legend(content, "bold"), *legend)) + "."
    return _float(_tabular([tex(h) for h in heads], rows), caption, f"comparison-{number}")


def _tex_row(row: Row) -> list[str]:
    return [tex(row.variant), tex(row.seeds), *map(_tex_entry, row.entries), *map(tex, row.versus)]


def _tex_entry(entry: Entry) -> str:
    if entry.mean == NONE:
        return NONE
    text = rf"{entry.mean} $\pm$ {entry.std}" if entry.std else entry.mean
    text = text.replace("-", "$-$")
    bold = rf"\textbf{{{text}}}" if entry.best else text
    return bold + (r"\,$\approx$" if entry.unsure else "")


def _tabular(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [" & ".join(row) + r" \\" for row in rows]
    return "\n".join(
        (
            rf"\begin{{tabular}}{{l{'r' * (len(head) - 1)}}}",
            r"\toprule",
            " & ".join(head) + r" \\",
            r"\midrule",
            *lines,
            r"\bottomrule",
            r"\end{tabular}",
        )
    )


def _float(body: str, caption: str, label: str) -> str:
    return "\n".join(
        (
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{tex(caption)}}}",
            rf"\label{{tab:{label}}}",
            body,
            r"\end{table}",
        )
    )
