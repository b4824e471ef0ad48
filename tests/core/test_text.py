"""Names and messages of any origin are shown on one line, and obey nothing."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedbench.text import last_words, printable, summary

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


class Hostile(Exception):
    def __str__(self) -> str:
        raise RuntimeError


FRAMES = """CUDA error: an illegal memory access was encountered
CUDA kernel errors might be asynchronously reported at some other API call.
For debugging consider passing CUDA_LAUNCH_BLOCKING=1
Compile with `TORCH_USE_CUDA_DSA` to enable device-side assertions.

Exception raised from c10_cuda_check at CUDAException.cpp:43 (most recent call first):
frame #0: c10::Error::Error(c10::SourceLocation, std::string) + 0x96 (0x7f in libc10.so)
frame #1: <unknown function> + 0x5a (0x7f in libtorch.so)
"""
DISPATCH = """Could not run 'aten::empty' with arguments from the 'MPS' backend.

CPU: registered at /build/aten/RegisterCPU.cpp:31034 [kernel]
Python: fallthrough registered at /build/aten/PythonFallbackKernel.cpp:153 [backend fallback]
"""
KEYS = """Error(s) in loading state_dict for CnnModule:
\tMissing key(s) in state_dict: "a", "b".\x20
\tsize mismatch for c: copying a param with shape torch.Size([3])."""
SHOWN_KEYS = (
    'Error(s) in loading state_dict for CnnModule: Missing key(s) in state_dict: "a", "b". '
    "size mismatch for c: copying a param with shape torch.Size([3])."
)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (KEYS, SHOWN_KEYS),
        (FRAMES, "CUDA error: an illegal memory access was encountered"),
        (DISPATCH, "Could not run 'aten::empty' with arguments from the 'MPS' backend."),
        (" \n a\x1b[2J \n\tb", r"a\x1b[2J b"),
        ("", ""),
    ],
    ids=["keys", "native frames", "dispatch table", "control characters", "nothing"],
)
def test_a_message_is_one_line_with_its_cause(text: str, line: str) -> None:
    assert summary(text) == summary(ValueError(text)) == line


def test_a_message_of_a_broken_exception() -> None:
    assert summary(Hostile()) == "(its message cannot be read)"


def test_a_long_message_keeps_its_beginning_and_its_end() -> None:
    shown = summary("begins " + "x" * 900 + " ends")
    assert len(shown) == 500
    assert shown.startswith("begins x")
    assert " ... " in shown
    assert shown.endswith("x ends")
    assert len(summary("a" * 301, 300)) == 300
    assert summary("a" * 300, 300) == "a" * 300


TRACEBACK = """Loading
Traceback (most recent call last):
  File "mine.py", line 3, in <module>
    model.load_state_dict(old)
RuntimeError: """


@pytest.mark.parametrize(
    ("log", "words"),
    [
        ("a warning\nError: no plugin 'x'\n\n", "no plugin 'x'"),
        (TRACEBACK + KEYS, "RuntimeError: " + SHOWN_KEYS),
        (TRACEBACK + KEYS + "\nError: it ended", "it ended"),
        (TRACEBACK.rsplit("\n", 1)[0], "model.load_state_dict(old)"),
        ("one\nSegmentation fault\n", "Segmentation fault"),
        (" \n", ""),
    ],
    ids=["error line", "traceback", "both", "cut off", "neither", "nothing"],
)
def test_the_last_words_of_a_process(log: str, words: str) -> None:
    assert last_words(log) == words
