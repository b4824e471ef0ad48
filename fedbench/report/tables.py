"""The summary as Markdown and as LaTeX with booktabs."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from ..study.analysis import Analysis
from ..text import printable
from .content import NONE, Entry, Table, TextTable, has_best, has_unsure, minus, sentence, table
from .curve_tables import curve_tables
from .matrix import Matrix, matrices

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
    '"': "''",
    "-": "{-}",
    "±": r"$\pm$",
    "≈": r"$\approx$",
    "\u2212": "$-$",
}
PLAIN_LETTERS = "ßæøåœÆØÅŒ"
"""What pdfLaTeX sets in any font encoding, besides ASCII and accented letters."""


def tex(text: str) -> str:
    """Return ``text`` as LaTeX shows it; a letter that pdfLaTeX has not becomes ``U+4E2D``."""
    return "".join(map(_tex_letter, " ".join(text.split())))


def _tex_letter(letter: str) -> str:
    if letter in TEX:
        return TEX[letter]
    base = unicodedata.normalize("NFD", letter)[0]
    if letter in PLAIN_LETTERS or (letter.isprintable() and base.isascii()):
        return letter
    return rf"\texttt{{U+{ord(letter):04X}}}"


def md(text: str) -> str:
    """Return ``text`` as Markdown shows it letter by letter."""
    plain = printable(" ".join(text.split()))
    return re.sub(r"([\\`*_{}\[\]<>#|~&$])", r"\\\1", plain)


def _heads(content: Table) -> tuple[list[str], list[str]]:
    return ["variant", "seeds", *content.columns], ["variant", *content.versus]


def _versus(content: Table) -> list[list[str]]:
    """Return the rows of the comparison with the reference; none without one."""
    rows = [row for row in content.rows if row.variant != content.reference]
    return [[row.variant, *row.versus] for row in rows] if content.versus else []


def _captions(content: Table) -> tuple[str, str]:
    """Return what stands at the table of means and at the comparison with the reference."""
    marks = ["bold: best of its column"] if has_best(content) else []
    if has_unsure(content):
        marks.append(
            f"≈: difference to {content.reference} not significant at 5 % after Holm's correction"
        )
    trouble = [f"{row.variant}: {row.trouble}" for row in content.rows if row.trouble]
    first, pairing, *rest = content.notes
    return (
        ". ".join(map(sentence, (content.label, first, *marks, *trouble))) + ".",
        ". ".join(map(sentence, (content.label, *rest, pairing))) + ".",
    )


def _caption(label: str, found: TextTable) -> str:
    return ". ".join(map(sentence, (label, found.title, *found.notes))) + "."


def _matrix_caption(matrix: Matrix) -> str:
    return ". ".join(map(sentence, (matrix.title, *matrix.notes))) + "."


def markdown(analysis: Analysis) -> str:
    """Return the summary tables of all settings as Markdown."""
    parts = ["# Comparison"]
    for group in analysis.groups:
        content = table(analysis, group)
        heads, versus_heads = _heads(content)
        captions = _captions(content)
        rows = [[md(row.variant), row.seeds, *map(_md_entry, row.entries)] for row in content.rows]
        parts += [f"## {md(content.label)}", _md_grid(heads, rows), md(captions[0])]
        versus = [list(map(md, row)) for row in _versus(content)]
        if versus:
            parts.append(_md_grid(versus_heads, versus))
        parts.append(md(captions[1]))
        for found in curve_tables(group):
            parts += [_md_text(found), md(_caption(content.label, found))]
    for matrix in matrices(analysis):
        rows = [[md(variant), *map(_md_entry, found)] for variant, found in matrix.rows.items()]
        grid = _md_grid(["variant", *matrix.columns], rows)
        parts += [f"## {md(matrix.title)}", grid, md(_matrix_caption(matrix))]
    return "\n\n".join(parts) + "\n"


def markdown_table(found: TextTable) -> str:
    """Return a table of text, with its title and its notes, as Markdown."""
    notes = ". ".join(map(sentence, found.notes))
    return "\n\n".join((f"## {md(found.title)}", _md_text(found), md(f"{notes}.")))


def _md_text(found: TextTable) -> str:
    return _md_grid(found.head, [list(map(md, row)) for row in found.rows])


def _md_grid(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [[md(head) for head in heads], ["---", *["---:"] * (len(heads) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _md_entry(entry: Entry) -> str:
    text = f"{entry.mean} ± {entry.std}" if entry.std else entry.mean
    text = f"**{text}**" if entry.best else f"<u>{text}</u>" if entry.second else text
    return text + (" ≈" if entry.unsure else "")


def latex(analysis: Analysis) -> str:
    r"""Return the tables as LaTeX for ``\input``; the preamble needs ``\usepackage{booktabs}``."""
    parts = [r"% \usepackage{booktabs}"]
    for number, group in enumerate(analysis.groups, 1):
        content = table(analysis, group)
        heads, versus_heads = _heads(content)
        captions = _captions(content)
        rows = [
            [tex(row.variant), tex(row.seeds), *map(_tex_entry, row.entries)]
            for row in content.rows
        ]
        parts.append(_tex_float(heads, rows, captions[0], f"means-{number}"))
        versus = [[tex(name), *(tex(minus(c)) for c in cells)] for name, *cells in _versus(content)]
        if versus:
            parts.append(_tex_float(versus_heads, versus, captions[1], f"differences-{number}"))
        for found in curve_tables(group):
            rows = [[tex(name), *(tex(minus(c)) for c in cells)] for name, *cells in found.rows]
            caption = _caption(content.label, found)
            parts.append(_tex_float(found.head, rows, caption, f"{found.name}-{number}"))
    for matrix in matrices(analysis):
        rows = [[tex(variant), *map(_tex_entry, found)] for variant, found in matrix.rows.items()]
        heads = ["variant", *matrix.columns]
        parts.append(_tex_float(heads, rows, _matrix_caption(matrix), f"matrix-{matrix.slug}"))
    return "\n\n".join(parts) + "\n"


def _tex_entry(entry: Entry) -> str:
    if entry.mean == NONE:
        return NONE
    text = tex(minus(f"{entry.mean} ± {entry.std}" if entry.std else entry.mean))
    command = "textbf" if entry.best else "underline" if entry.second else ""
    return (rf"\{command}{{{text}}}" if command else text) + (r"\,$\approx$" * entry.unsure)


def _tex_float(
    heads: Sequence[str], rows: Sequence[Sequence[str]], caption: str, label: str
) -> str:
    return "\n".join(
        (
            r"\begin{table}",
            r"\centering\small",
            rf"\caption{{{tex(caption)}}}",
            rf"\label{{tab:{label}}}",
            rf"\begin{{tabular}}{{l{'r' * (len(heads) - 1)}}}",
            r"\toprule",
            " & ".join(map(tex, heads)) + r" \\",
            r"\midrule",
            *(" & ".join(row) + r" \\" for row in rows),
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
        )
    )
