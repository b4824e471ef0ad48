"""Names and messages of any origin are shown on one line, and obey nothing."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedbench.text import first_line, printable

ESCAPES = {
    "a\x1b[2J": r"a\x1b[2J",  # clears a terminal
    "a\x1b]0;title\x07": r"a\x1b]0;title\x07",
    "a\x9b31m": r"a\x9b31m",  # the same in one byte
    "a\r\nround 9": r"a\r\nround 9",
    "a\u2028b\x85": r"a\u2028b\x85",
    "\u202egnp.exe": r"\u202egnp.exe",  # right to left
    "\u2067a\u2069": r"\u2067a\u2069",
    "a\ud800\udcff": r"a\ud800\udcff",  # what bytes that are not UTF-8 become
    "\x00\ufffe\U0010ffff": r"\x00\ufffe\U0010ffff",
}
SHOWN = ("naïve café 中文 \u3000\xa0", "نمی\u200cدانم", "👩\u200d🔬", r"a\x1b", "")


@pytest.mark.parametrize("text", ESCAPES)
def test_what_a_terminal_obeys_or_xml_forbids_is_escaped(text: str) -> None:
    assert printable(text) == ESCAPES[text]


@pytest.mark.parametrize("text", SHOWN)
def test_letters_of_any_language_stay(text: str) -> None:
    assert printable(text) == text


def test_lines_stay_where_they_are_wanted() -> None:
    assert printable("a\n\x1bb\r", keep="\n") == "a\n\\x1bb\\r"


@given(st.text())
def test_any_text_can_be_shown(text: str) -> None:
    shown = printable(text)
    assert shown.encode().decode() == shown
    forbidden = {"Cc", "Cs", "Zl", "Zp"}
    assert not [c for c in shown if unicodedata.category(c) in forbidden]
    assert not [c for c in shown if unicodedata.bidirectional(c) in ("RLO", "LRO", "RLI", "LRI")]
    assert printable(shown) == shown


def test_the_first_line_of_an_error() -> None:
    class Hostile(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    assert first_line(ValueError(" \n a\x1b \nb")) == r"a\x1b"
    assert first_line(ValueError("a" * 600)) == "a" * 500
    assert first_line(ValueError()) == ""
    assert first_line(Hostile()) == "(its message cannot be read)"
