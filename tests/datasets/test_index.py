"""Your own images in a CSV index: what its values mean, and one line for what can't be meant."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fedbench_datasets.image_folder import ImageFolder
from PIL import Image

from fedbench import ConfigError
from fedbench.types import Dataset

pytestmark = pytest.mark.usefixtures("own_cache")

Message = Callable[[Any, Path], str]

RNG = np.random.default_rng(6)
HEADER = "path,label,split"


def picture(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = RNG.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """Return a folder with the images ``0.png`` to ``9.png``."""
    for n in range(10):
        picture(tmp_path / f"{n}.png")
    return tmp_path


def write(base: Path, *lines: str, header: str = HEADER) -> None:
    (base / "index.csv").write_text("\n".join((header, *lines)) + "\n")


def load(base: Path) -> Dataset:
    return ImageFolder(path="index.csv", resolution=8).load(base)


GOOD = ("0.png,a,train", "1.png,b,train", "2.png,a,test", "3.png,b,test")
WITH_DOMAIN = ("0.png,a,train,x", "1.png,a,train,y", "2.png,a,test,x", "3.png,a,test,y")


def test_rows_are_examples_in_their_order(base: Path) -> None:
    write(
        base,
        *("1.png,10,train,y", "0.png,9,train,x", "2.png,9,test,x", "3.png,10,test,y"),
        header=f"{HEADER},domain",
    )
    data = load(base)
    assert data.classes == ("9", "10")  # numbers sort as numbers
    assert data.domains == ("x", "y")
    assert data.train.labels.tolist() == [0, 1]  # by domain, then by row
    assert data.test.domains.tolist() == [0, 1]
    with Image.open(base / "1.png") as original:
        assert np.array_equal(data.train.inputs[1], np.asarray(original).transpose(2, 0, 1))


def test_without_domains_the_index_is_the_domain(base: Path) -> None:
    write(base, *GOOD)
    assert load(base).domains == ("index",)


def test_numbers_with_decimals_sort_as_numbers(base: Path) -> None:
    rows = [f"{n}.png,{label},train" for n, label in enumerate(("10.0", "2.0", "-1", "b", "a"))]
    write(base, *rows, "5.png,a,test")
    assert load(base).classes == ("-1", "2.0", "10.0", "a", "b")


# how tables are written


@pytest.mark.parametrize("split", ["Train", "TRAIN", " train ", "training"])
def test_splits_are_read_in_any_case(base: Path, split: str) -> None:
    write(base, f"0.png,a,{split}", "1.png,a,Test")
    assert (len(load(base).train), len(load(base).test)) == (1, 1)


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("header", [HEADER, "Path,LABEL, Split", '"path","label","split"'])
def test_tables_with_other_separators_and_headers_are_read(
    base: Path, separator: str, header: str
) -> None:
    write(
        base, *(row.replace(",", separator) for row in GOOD), header=header.replace(",", separator)
    )
    assert load(base).classes == ("a", "b")


@pytest.mark.parametrize(
    "change",
    [
        lambda text: b"\xef\xbb\xbf" + text,
        lambda text: text.replace(b"\n", b"\r\n"),
        lambda text: text.replace(b"\n", b"\r"),
        lambda text: text.replace(b"\n", b"\n\n"),
        lambda text: text.replace(b"\n", b"\n,,\n"),
        lambda text: text.replace(b"\n", b",\n"),
        lambda text: text.replace(b",", b" , "),
        lambda text: text.replace(b"2.png", b'"2.png"').replace(b"3.png", b' "3.png"'),
        lambda text: text.rstrip(b"\n"),
    ],
    ids=[
        *("BOM", "CRLF", "CR", "blank lines", "empty rows", "last commas", "spaces", "quotes"),
        "no last newline",
    ],
)
def test_what_spreadsheets_write_is_read(base: Path, change: Callable[[bytes], bytes]) -> None:
    write(base, *GOOD)
    path = base / "index.csv"
    path.write_bytes(change(path.read_bytes()))
    data = load(base)
    assert data.classes == ("a", "b")
    assert data.train.labels.tolist() == data.test.labels.tolist() == [0, 1]


@pytest.mark.parametrize("name", ["index.CSV", "index.tsv", "index.txt", "index"])
def test_an_index_may_have_any_name(base: Path, name: str) -> None:
    write(base, *GOOD)
    (base / "index.csv").rename(base / name)
    assert len(ImageFolder(path=name, resolution=8).load(base).train) == 2


def test_other_columns_may_hold_anything(base: Path) -> None:
    rows = [["notes", "path", "label", "split", "notes"]]
    notes = ('says "no"', "two\nlines", "a, b", "")
    rows += [[note, *row.split(","), note] for note, row in zip(notes, GOOD, strict=True)]
    with (base / "index.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    assert load(base).train.labels.tolist() == [0, 1]


@pytest.mark.parametrize(
    "written", ["sub/x.png", "sub\\x.png", "./sub/../sub/x.png", "~/sub/x.png"]
)
def test_paths_may_be_written_otherwise(
    base: Path, written: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(base))
    picture(base / "sub/x.png")
    write(base, f"{written},a,train", "0.png,a,test")
    assert len(load(base).train) == 1
    write(base, f"{base}/sub/x.png,a,train", "0.png,a,test")
    assert len(load(base).train) == 1


# values that look alike


def test_spaces_around_values_do_not_count(base: Path) -> None:
    rows = ("0.png ,a, train,x", " 1.png,a\u00a0,train ,y ", "2.png,\ta,test,x", "3.png,a,test,y")
    write(base, *rows, header=f"{HEADER},domain")
    data = load(base)
    assert (data.classes, data.domains) == (("a",), ("x", "y"))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        *(
            ("a", "A"),
            ("1", "1.0"),
            ("01", "1"),
            ("ice bear", "icebear"),
            ("ice bear", "ice  bear"),
        ),
        *(("caf\u00e9", "cafe\u0301"), ("2.50", "2.5"), ("\u2126", "\u03a9"), ("-1", "-1.")),
        *(("1", "1.000e+00"), ("0", "-0"), (".5", "0.5"), ("a", "a\u200b"), ("1", "\ufeff1")),
    ],
)
@pytest.mark.parametrize("column", ["label", "domain"])
def test_two_spellings_are_refused_with_both_rows(
    base: Path, message: Message, first: str, second: str, column: str
) -> None:
    values = (
        ("0.png,{},train,x", "1.png,{},train,x")
        if column == "label"
        else ("0.png,a,train,{}", "1.png,a,train,{}")
    )
    write(base, values[0].format(first), values[1].format(second), header=f"{HEADER},domain")
    assert message(ImageFolder(path="index.csv"), base) == (
        f"image-folder: {base}/index.csv:3: {column} {second!r} differs from {first!r} "
        f"({base}/index.csv:2) only in how it is written; write both in one way, or give two names "
        "that differ more"
    )


@pytest.mark.parametrize("blank", ["", "  ", "\t", "\u00a0"])
@pytest.mark.parametrize("row", [2, 4])
def test_a_row_without_a_domain_is_named(
    base: Path, message: Message, blank: str, row: int
) -> None:
    rows = list(WITH_DOMAIN)
    rows[row - 2] = rows[row - 2][:-1] + blank
    write(base, *rows, header=f"{HEADER},domain")
    text = message(ImageFolder(path="index.csv"), base)
    assert f"index.csv:{row}: no domain; name one in every row, or leave the column out" in text


def test_a_row_that_ends_before_its_domain_is_named(base: Path, message: Message) -> None:
    write(base, *WITH_DOMAIN[:2], "2.png,a,test", header=f"{HEADER},domain")
    assert "index.csv:4: no domain" in message(ImageFolder(path="index.csv"), base)


# splits


def test_validation_rows_are_never_test_rows(
    base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(base, *GOOD, "4.png,a,val", "5.png,b,Valid", "6.png,only-here,validation")
    data = load(base)
    assert data.classes == ("a", "b")
    assert len(data.test) == 2
    assert capsys.readouterr().err == (
        "image-folder: left out 3 images of the split 'val'; 'test' is the test set\n"
    )


def test_validation_rows_of_one_domain_are_no_test_rows_if_another_has_some(
    base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(base, *WITH_DOMAIN[:3], "3.png,a,val,y", header=f"{HEADER},domain")
    data = load(base)
    assert data.test.domains.tolist() == [0]
    assert capsys.readouterr().err == (
        "image-folder: left out 1 image of the split 'val'; 'test' is the test set\n"
        "image-folder: no images of any class in y (test)\n"
    )


def test_without_a_test_row_validation_rows_do_not_take_its_place(base: Path) -> None:
    write(base, *GOOD[:2], "4.png,a,val", "5.png,b,dev")
    with pytest.raises(ConfigError, match="no row has the split 'test', and the 2 images of 'val'"):
        load(base)


# one file more than once


def spellings(base: Path) -> dict[str, str]:
    """Return ways to write ``0.png``, which is a picture of class ``a`` in row 2."""
    (base / "folder").mkdir()
    (base / "link.png").symlink_to("0.png")
    (base / "linked").symlink_to(".")
    os.link(base / "0.png", base / "hard.png")
    return {
        "same": "0.png",
        "dots": "./folder/../0.png",
        "slashes": ".//0.png",
        "absolute": str(base / "0.png"),
        "link": "link.png",
        "through a link": "linked/0.png",
        "hard link": "hard.png",
    }


@pytest.mark.parametrize(
    "way", ["same", "dots", "slashes", "absolute", "link", "through a link", "hard link"]
)
@pytest.mark.parametrize(
    ("values", "how"),
    [
        ("a,train,x", "twice"),
        ("a,test,x", "in two splits, 'train' and 'test'"),
        ("a,val,x", "in two splits, 'train' and 'val'"),
        ("b,train,x", "under two labels, 'a' and 'b'"),
        ("a,train,y", "in two domains, 'x' and 'y'"),
        ("b,test,x", "in two splits, 'train' and 'test' and under two labels, 'a' and 'b'"),
    ],
)
def test_one_file_in_two_rows_is_refused_with_both(
    base: Path, message: Message, way: str, values: str, how: str
) -> None:
    written = spellings(base)[way]
    rows = ("0.png,a,train,x", "1.png,b,train,x", f"{written},{values}", "2.png,a,test,y")
    write(base, *rows, header=f"{HEADER},domain")
    text = message(ImageFolder(path="index.csv"), base)
    index = base / "index.csv"
    assert f"{index}:2 and {index}:4: one file is listed {how}: " in text


def test_files_with_equal_content_are_two_files(base: Path) -> None:
    (base / "copy.png").write_bytes((base / "0.png").read_bytes())
    write(base, "0.png,a,train", "copy.png,a,train", "1.png,a,test")
    assert len(load(base).train) == 2


# files of systems


def test_rows_that_a_system_made_are_left_out_and_said(
    base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    junk = (".ipynb_checkpoints/0-checkpoint.png", "__MACOSX/._0.png", "@eaDir/0.png", "._1.png")
    write(base, *(f"{name},a,train" for name in junk), *GOOD)
    assert len(load(base).train) == 2
    assert capsys.readouterr().err == (
        "image-folder: left out 4 rows of files that a system or tool left behind: "
        f"{base}/index.csv:2: {junk[0]} and 3 more\n"
    )


# damage


DAMAGES: list[tuple[Callable[[str], str], str]] = [
    (lambda t: t.replace("split", "part"), "index.csv: no column 'split'"),
    (lambda t: t.replace("label", "labels"), "no column 'label' (did you mean 'labels'?)"),
    (lambda t: t.replace("label", "path"), "no column 'label'"),
    (lambda t: t.replace("split", "split,label"), "index.csv: 2 columns are named 'label'"),
    (lambda t: t.replace("split", "split,Path"), "index.csv: 2 columns are named 'path'"),
    (lambda t: t.replace("b,test", "b,held out"), "index.csv:5: expected a path, a label, and "),
    (lambda t: t.replace("b,test", "b,"), "index.csv:5: expected a path, a label, and "),
    (lambda t: t.replace("b,test", "b"), "index.csv:5: expected a path, a label, and "),
    (lambda t: t.replace("b,test", " ,test"), "index.csv:5: expected a path, a label, and "),
    (lambda t: t.replace("3.png", " "), "index.csv:5: expected a path, a label, and "),
    (lambda t: t.replace("3.png", "7/x.png"), "7/x.png: no such file"),
    (lambda t: t.replace("3.png", "."), ": a folder, not a file"),
    (lambda t: t.replace("3.png", "3" * 300 + ".png"), "index.csv:5: "),
    (lambda t: t.replace("b,test", "b,c,test"), "index.csv:5: 4 values for 3 columns; a"),
    (
        lambda t: t.replace("b,test", '"b\nc",test'),
        "index.csv:5: the label 'b\\nc' holds a line br",
    ),
    (
        lambda t: t.replace("b,test", "b\0c,test"),
        "index.csv:5: the label 'b\\x00c' holds a line br",
    ),
    (lambda t: t.replace("3.png", "3\0.png"), "index.csv:5: the path '3\\x00.png' holds a line br"),
    (lambda t: t.replace("b,test", '"b,test'), "index.csv:5: damaged row (unexpected end of data)"),
    (lambda t: t.replace("a,train", '"a"x,train'), "index.csv:2: damaged row ("),
    (
        lambda t: t.replace("b,test", "b" * 200_000 + ",test"),
        "index.csv:5: damaged row (field larg",
    ),
    (lambda t: t.replace("test", "train"), "the files hold no test examples"),
    (lambda t: t.replace("b,train", "a,train"), "found 1, none of 'b'"),
    (lambda t: "", "index.csv: truncated or damaged: empty"),
    (lambda t: "\n\n", "no column 'path' (there are none)"),
    (lambda t: t.split("\n")[0], "index.csv: no rows below the header"),
]


@pytest.mark.parametrize(("change", "text"), DAMAGES)
def test_damage_to_an_index_is_one_line(
    base: Path, change: Callable[[str], str], text: str, message: Message
) -> None:
    write(base, *GOOD)
    path = base / "index.csv"
    path.write_text(change(path.read_text()))
    found = message(ImageFolder(path="index.csv"), base)
    assert text in found
    assert found.startswith("image-folder: ")


def test_rows_are_counted_as_editors_count_lines(base: Path, message: Message) -> None:
    write(base, '0.png,a,train,"two\nlines"', "1.png,a,tset,", header=f"{HEADER},notes")
    assert "index.csv:4: expected a path" in message(ImageFolder(path="index.csv"), base)


@pytest.mark.parametrize(
    ("encoding", "text"),
    [("utf-16", "index.csv: UTF-16 text; save it as UTF-8"), ("latin-1", "not UTF-8 text at byte")],
)
def test_other_encodings_are_named(base: Path, message: Message, encoding: str, text: str) -> None:
    (base / "index.csv").write_text(f"{HEADER}\n0.png,\u00e9,train\n", encoding=encoding)
    assert text in message(ImageFolder(path="index.csv"), base)


def test_an_index_without_an_end_is_never_opened(base: Path, message: Message) -> None:
    (base / "index.csv").symlink_to("/dev/zero")
    text = message(ImageFolder(path="index.csv"), base)
    assert "index.csv: a pipe, socket or device, not a file" in text
    (base / "index.csv").unlink()
    os.mkfifo(base / "index.csv")
    text = message(ImageFolder(path="index.csv"), base)
    assert "index.csv: a pipe, socket or device, not a file" in text
    assert "pipe.tsv: no such folder" in message(ImageFolder(path="pipe.tsv"), base)


def test_a_row_that_names_a_pipe_is_refused(base: Path, message: Message) -> None:
    os.mkfifo(base / "pipe.png")
    write(base, *GOOD, "pipe.png,a,train")
    text = message(ImageFolder(path="index.csv"), base)
    assert f"index.csv:6: {base}/pipe.png: a pipe, socket or device, not a file" in text
