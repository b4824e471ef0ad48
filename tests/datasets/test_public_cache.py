"""The cache of decoded data: one decoding, whole or not at all, renewed when a source changes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fedbench_datasets import caching
from fedbench_datasets.caching import ReadError, Source, Writer

from fedbench.types import Dataset

pytestmark = pytest.mark.usefixtures("own_cache")


class Shelf:
    """Text files of digits; each is an example (1, 2, 2), its label its first digit modulo 2."""

    def __init__(self, root: Path) -> None:
        self.root, self.base = root, root / "shelf"
        self.base.mkdir(parents=True, exist_ok=True)
        self.decodings = 0
        for n in range(6):
            self.write(n, str(n) * 4)

    def write(self, n: int, text: str) -> Path:
        path = self.base / f"{n}.txt"
        path.write_text(text)
        return path

    def files(self) -> list[Path]:
        return sorted(self.base.glob("*.txt"))

    def decode(self, out: Writer) -> tuple[list[str], list[str]]:
        self.decodings += 1
        for n, path in enumerate(self.files()):
            digits = np.array([int(c) for c in path.read_text()], np.uint8).reshape(1, 1, 2, 2)
            out.add("train" if n < 4 else "test", digits, [int(digits[0, 0, 0, 0]) % 2])
        return ["even", "odd"], ["shelf"]

    def source(self, decode: Callable[[Writer], Any] | None = None) -> Source:
        return Source(self.base, self.files(), decode or self.decode)

    def load(self, **options: Any) -> Dataset:
        return caching.load(self.source(), self.root, "shelf", options)

    def keys(self) -> list[str]:
        folder = self.root / ".cache/shelf"
        return sorted(p.name for p in folder.iterdir() if len(p.name) == 64)


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path / "root")


def firsts(data: Dataset) -> list[int]:
    return [int(x) for x in data.train.inputs[:, 0, 0, 0]]


def test_decoded_once_and_read_back_the_same(shelf: Shelf) -> None:
    first, again = shelf.load(), shelf.load()
    assert shelf.decodings == 1
    for data in (first, again):
        assert data.classes == ("even", "odd")
        assert data.domains == ("shelf",)
        assert data.train.inputs.dtype == torch.uint8
        assert firsts(data) == [0, 1, 2, 3]
        assert data.test.inputs.flatten().tolist() == [4] * 4 + [5] * 4
        assert data.train.labels.tolist() == [0, 1, 0, 1]
        assert data.train.domains.dtype == data.train.labels.dtype == torch.int64


def test_what_is_read_back_is_mapped_and_writing_to_it_changes_no_file(shelf: Shelf) -> None:
    shelf.load()
    data = shelf.load()
    path = shelf.root / ".cache/shelf" / shelf.keys()[0] / "train.bin"
    before = path.read_bytes()
    if sys.platform == "linux":
        assert str(path) in Path("/proc/self/maps").read_text()
    data.train.inputs.add_(1)
    assert firsts(data) == [1, 2, 3, 4]
    assert path.read_bytes() == before
    assert firsts(shelf.load()) == [0, 1, 2, 3]


def test_a_changed_file_is_decoded_anew(shelf: Shelf) -> None:
    shelf.load()
    shelf.write(0, "8888")
    assert firsts(shelf.load()) == [8, 1, 2, 3]
    assert len(shelf.keys()) == 2


def test_a_renamed_file_is_decoded_anew_whatever_its_time(shelf: Shelf) -> None:
    shelf.load()
    shelf.files()[0].rename(shelf.base / "3a.txt")  # now the fourth; its time is the same
    assert firsts(shelf.load()) == [1, 2, 3, 0]


def test_files_that_are_swapped_are_noticed_even_with_equal_sizes_and_times(shelf: Shelf) -> None:
    for path in shelf.files():
        os.utime(path, ns=(10**18, 10**18))  # as a reproducible archive leaves them
        time.sleep(0.01)  # the times of change differ, though, and can't be set
    shelf.load()
    first, second = shelf.files()[:2]
    first.rename(shelf.base / "aside")
    second.rename(first)
    (shelf.base / "aside").rename(second)
    assert firsts(shelf.load()) == [1, 0, 2, 3]


def test_a_file_that_is_edited_is_noticed_when_its_size_and_time_are_kept(shelf: Shelf) -> None:
    before = shelf.files()[0].stat()
    shelf.load()
    time.sleep(0.01)
    os.utime(shelf.write(0, "8888"), ns=(before.st_atime_ns, before.st_mtime_ns))
    assert firsts(shelf.load()) == [8, 1, 2, 3]


def test_names_that_come_from_empty_folders_have_caches_of_their_own(shelf: Shelf) -> None:
    def load(*classes: str) -> tuple[str, ...]:
        def decode(out: Writer) -> Any:
            shelf.decode(out)
            return classes, ["shelf"]

        source = replace(shelf.source(decode), names=(classes, ["shelf"]))
        return caching.load(source, shelf.root, "shelf", {}).classes

    assert load("even", "odd") == ("even", "odd")
    assert load("straight", "odd") == ("straight", "odd")


def test_a_file_name_of_other_bytes_than_utf_8_is_read(shelf: Shelf) -> None:
    shelf.files()[0].rename(shelf.base / os.fsdecode(b"0\xff.txt"))
    assert firsts(shelf.load()) == [0, 1, 2, 3]


def test_a_file_more_or_less_is_decoded_anew(shelf: Shelf) -> None:
    shelf.load()
    extra = shelf.write(9, "9999")
    assert len(shelf.load().test) == 3
    extra.unlink()
    assert len(shelf.load().test) == 2
    assert shelf.decodings == 2  # the first cache serves again


def test_a_touched_or_moved_file_is_checked_but_not_decoded(shelf: Shelf) -> None:
    shelf.load()
    os.utime(shelf.files()[2])
    shelf.load()
    shelf.base = shelf.base.rename(shelf.root / "moved")
    assert firsts(shelf.load()) == [0, 1, 2, 3]
    assert shelf.decodings == 1


def test_options_have_caches_of_their_own(shelf: Shelf) -> None:
    shelf.load(resolution=1)
    shelf.load(resolution=2)
    shelf.load(resolution=1)
    assert shelf.decodings == 2
    assert len(shelf.keys()) == 2


def test_a_new_version_of_the_readers_decodes_anew(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf.load()
    monkeypatch.setattr(caching, "VERSION", caching.VERSION + 1)
    shelf.load()
    assert shelf.decodings == 2


def test_a_failed_decoding_leaves_nothing(shelf: Shelf) -> None:
    def failing(out: Writer) -> Any:
        out.add("train", np.zeros((1, 1, 2, 2), np.uint8), [0])
        raise ReadError("broken halfway")

    with pytest.raises(ReadError, match="broken halfway"):
        caching.load(shelf.source(failing), shelf.root, "shelf", {})
    folder = shelf.root / ".cache/shelf"
    assert sorted(p.name for p in folder.iterdir()) == [".lock", "stamps"]
    assert firsts(shelf.load()) == [0, 1, 2, 3]


KILLED = """
import os, sys
from pathlib import Path
import numpy as np
from fedbench_datasets import caching

base = Path(sys.argv[1])

def decode(out):
    out.add("train", np.zeros((1, 1, 2, 2), np.uint8), [0])
    os._exit(7)

source = caching.Source(base, sorted(base.glob("*.txt")), decode)
caching.load(source, base.parent, "shelf", {})
"""


def test_what_a_killed_process_left_is_never_used_and_is_removed(shelf: Shelf) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(shelf.base)], check=False)
    assert done.returncode == 7
    folder = shelf.root / ".cache/shelf"
    assert len(list(folder.glob("unfinished-*"))) == 1
    assert shelf.keys() == []
    assert firsts(shelf.load()) == [0, 1, 2, 3]
    assert list(folder.glob("unfinished-*")) == []


def flip(data: bytes) -> bytes:
    """Return the bytes with one bit of the last but second one changed."""
    return data[:-3] + bytes([data[-3] ^ 1]) + data[-2:]


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "cut": lambda data: data[:-1],
    "empty": lambda data: b"",
    "noise": lambda data: b"\x80 noise",
    "flipped": flip,
}


@pytest.mark.parametrize("name", [*caching.FILES, caching.CHECKSUMS])
@pytest.mark.parametrize("damage", [*DAMAGES, "gone"])
def test_a_damaged_cache_is_made_anew_and_said(
    shelf: Shelf, name: str, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    shelf.load()
    path = shelf.root / ".cache/shelf" / shelf.keys()[0] / name
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(DAMAGES[damage](path.read_bytes()))
    data = shelf.load()
    assert firsts(data) == [0, 1, 2, 3]
    assert data.test.labels.tolist() == [0, 1]
    assert shelf.decodings == 2
    said = capsys.readouterr().err
    assert said.startswith(f"shelf: {path.parent}/")
    assert said.endswith("; decoding the files again\n")
    assert said.count("\n") == 1
    assert firsts(shelf.load()) == [0, 1, 2, 3]
    assert capsys.readouterr().err == ""


def test_bytes_that_are_flipped_are_noticed_whatever_the_times(shelf: Shelf) -> None:
    shelf.load()
    path = shelf.root / ".cache/shelf" / shelf.keys()[0] / "train.bin"
    times = path.stat()
    path.write_bytes(bytes(byte ^ 255 for byte in path.read_bytes()))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert firsts(shelf.load()) == [0, 1, 2, 3]


def test_a_stamp_of_nonsense_is_no_way_out_of_the_folder(shelf: Shelf) -> None:
    shelf.load()
    for stamp in (shelf.root / ".cache/shelf/stamps").iterdir():
        stamp.write_text("../../elsewhere")
    assert firsts(shelf.load()) == [0, 1, 2, 3]
    assert shelf.decodings == 1


def test_two_at_once_decode_once(shelf: Shelf) -> None:
    started, go = threading.Event(), threading.Event()

    def slow(out: Writer) -> Any:
        started.set()
        go.wait(10)
        return shelf.decode(out)

    found: list[Dataset] = []
    threads = [
        threading.Thread(
            target=lambda: found.append(caching.load(shelf.source(slow), shelf.root, "shelf", {}))
        )
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    started.wait(10)
    go.set()
    for thread in threads:
        thread.join(20)
    assert [firsts(data) for data in found] == [[0, 1, 2, 3]] * 2
    assert shelf.decodings == 1


def test_a_file_that_changes_while_it_is_read_is_named(shelf: Shelf) -> None:
    def changing(out: Writer) -> Any:
        found = shelf.decode(out)
        shelf.write(1, "33333")
        return found

    with pytest.raises(ReadError, match="files changed while they were read"):
        caching.load(shelf.source(changing), shelf.root, "shelf", {})
    assert shelf.keys() == []


def test_a_root_that_cannot_be_written_is_cached_in_the_users_folder(
    shelf: Shelf, tmp_path: Path
) -> None:
    (shelf.root / ".cache").write_text("a file where the folder should be")
    assert firsts(shelf.load()) == [0, 1, 2, 3]
    assert firsts(shelf.load()) == [0, 1, 2, 3]
    assert shelf.decodings == 1
    assert (tmp_path / "user-cache/fedbench/.cache/shelf").is_dir()
    (tmp_path / "user-cache/fedbench/.cache").rename(tmp_path / "old")
    (tmp_path / "user-cache/fedbench/.cache").write_text("and here too")
    with pytest.raises(PermissionError, match="no cache can be written in "):
        shelf.load()


@pytest.mark.parametrize(
    ("labels", "text"),
    [
        ([0, 0, 0, 0], "expected 2 classes in the training examples, found 1"),
        ([0, 1, 2, 0], "expected 2 classes in the training examples, found 3"),
    ],
)
def test_the_classes_of_the_training_examples_are_counted(
    shelf: Shelf, labels: list[int], text: str
) -> None:
    def decode(out: Writer) -> Any:
        for split in ("train", "test"):
            out.add(split, np.zeros((4, 1, 2, 2), np.uint8), labels)
        return ["even", "odd"], ["shelf"]

    with pytest.raises(ReadError, match=text):
        caching.load(shelf.source(decode), shelf.root, "shelf", {})


def test_a_long_decoding_says_how_far_it_is(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(caching, "QUIET_SECONDS", -1.0)
    source = Source(shelf.base, shelf.files(), shelf.decode, examples=6)
    caching.load(source, shelf.root, "shelf", {})
    shown = capsys.readouterr()
    assert "shelf: decoded 6 of 6 (the first time only)" in shown.err
    assert shown.out == ""


def test_the_cache_says_what_is_in_it(shelf: Shelf) -> None:
    shelf.load()
    key = shelf.keys()[0]
    meta = json.loads((shelf.root / ".cache/shelf" / key / "meta.json").read_text())
    assert meta == {
        "checksum": key,
        "dtype": "uint8",
        "shapes": {"train": [4, 1, 2, 2], "test": [2, 1, 2, 2]},
        "classes": ["even", "odd"],
        "domains": ["shelf"],
        "clients": [],
    }
