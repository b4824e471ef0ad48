"""YAML files are read as plain data; anything else is refused with its line number."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedbench.config import yamlfile
from fedbench.errors import ConfigError


def parse(text: str):
    return yamlfile.parse(text, "mine.yaml")


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("a: 1\nb: 2\na: 3", "mine.yaml:3: key 'a' appears twice"),
        ("a:\n  b: 1\n  b: 2", "mine.yaml:3: key 'b' appears twice"),
        ("a: &x [1]\nb: *x", "mine.yaml:2: aliases (*x) are not allowed"),
        ("a: 1\nb: !!python/name:os.system x", "mine.yaml:2: tags (tag:yaml.org,2002:python/name"),
        ("a: !mine x", "mine.yaml:1: tags (!mine) are not allowed"),
        ("", "mine.yaml: the file is empty"),
        ("# only a comment\n", "mine.yaml: the file is empty"),
        ("- a\n- b", "mine.yaml: expected a mapping of keys at the top level"),
        ("just text", "mine.yaml: expected a mapping of keys at the top level"),
        ("a: 1\nb: [1, 2", "mine.yaml:2: not valid YAML: "),
        ("a: 1\n\tb: 2", "mine.yaml:2: not valid YAML: "),
        ("a: 1\n---\nb: 2", "mine.yaml:2: not valid YAML: "),
        ("true: 1", "mine.yaml:1: a key must be text, got True"),
        ("1.5: 1", "mine.yaml:1: a key must be text, got 1.5"),
        ("a:\n  lr: .nan", "mine.yaml:2: a.lr: nan is not a finite number"),
        ("a: -.inf", "mine.yaml:1: a: -inf is not a finite number"),
        ("a: 1e999", "mine.yaml:1: a: inf is not a finite number"),
        ("a: [1, .inf]", "mine.yaml:1: a.1: inf is not a finite number"),
        ("a: " + "[" * 700 + "]" * 700, "mine.yaml: nested too deeply"),
        ("a: " + "9" * 5000, "mine.yaml:1: a: Exceeds the limit (4300 digits)"),
        ('a: ["\\uD800"]', "mine.yaml:1: a.0: half of a character (a lone surrogate)"),
        ("a: 1\n? [b]\n: 2", "mine.yaml:2: a key must be text, got a sequence"),
        ("a: " + "x" * 4_000_000, "mine.yaml: longer than 4000000 characters"),
    ],
    ids=range(23),
)
def test_refused(text, error):
    with pytest.raises(ConfigError, match="^" + re.escape(error)) as caught:
        parse(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("1E5", 1e5),
        ("-2.5e+3", -2500.0),
        (".5e1", 5.0),
        ("1.e2", 100.0),
        ("0.1", 0.1),
        ("12", 12),
        ("true", True),
        ("off", "off"),
        ("no", "no"),
        ("null", None),
        ("", None),
        ("2020-01-01", "2020-01-01"),
        ("'1e-3'", "1e-3"),
        ("1e", "1e"),
        ("e3", "e3"),
        ("[1, 2e-1]", [1, 0.2]),
        ("{a: 1}", {"a": 1}),
        ("cuda:1", "cuda:1"),
        # YAML 1.1 would read these as 90, 10, 1000, a merge and a default
        ("1:30", "1:30"),
        ("012", 12),
        ("-007", -7),
        ("1_000", "1_000"),
        ("0x1f", 31),
        ("0o14", 12),
        ("0b11", "0b11"),
        ("<<", "<<"),
        ("=", "="),
        ("1.", 1.0),
        ("TRUE", True),
        ("~", None),
    ],
)
def test_scalars_read_as_a_user_means_them(text, value):
    for found in (yamlfile.scalar(text), parse(f"key: {text}").data["key"]):
        assert found == value
        assert type(found) is type(value)


def test_lines_are_known_for_every_key():
    document = parse("# head\na:\n  b: 1\n\n  c:\n    d: 2\ne: 3\n")
    assert document.where(("a", "b")) == "mine.yaml:3: a.b"
    assert document.where(("a", "c", "d")) == "mine.yaml:6: a.c.d"
    assert document.where(("e",)) == "mine.yaml:7: e"
    # a key that does not exist has the line of its nearest parent
    assert document.where(("a", "c", "x", "y")) == "mine.yaml:5: a.c.x.y"
    assert document.where(("z",)) == "mine.yaml: z"
    assert document.where(()) == "mine.yaml"


text = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Zl", "Zp")), max_size=6)
plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**12), 10**12)
    | st.floats(allow_nan=False, allow_infinity=False)
    | text
    | st.sampled_from(["1e-3", "1e5", "on", "null", "~", "2020-01-01", "0x1f", "1:30", "*a", "!x"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(text | st.just("1e3"), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(st.dictionaries(text, plain, min_size=1, max_size=4))
def test_what_is_written_reads_back_the_same(data):
    again = parse(yamlfile.dump(data)).data
    assert again == data
    assert repr(again) == repr(data)


def test_a_file_that_cannot_be_read(tmp_path):
    missing = tmp_path / "no.yaml"
    with pytest.raises(ConfigError, match=f"^{re.escape(str(missing))}: no such file$"):
        yamlfile.read(missing)
    with pytest.raises(ConfigError, match="cannot be read"):
        yamlfile.read(tmp_path)
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="cannot be read"):
        yamlfile.read(binary)
    zeros = tmp_path / "zeros.yaml"
    zeros.write_bytes(b"a: \x00")
    with pytest.raises(ConfigError, match=f"^{re.escape(str(zeros))}: not valid YAML"):
        yamlfile.read(zeros)
