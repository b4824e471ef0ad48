"""`fedbench data fetch`: the published addresses and checksums, and what the command says."""

from __future__ import annotations

import gzip
import hashlib
import io
import re
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from fedbench_datasets import public, public_domains
from fedbench_datasets.fetching import Download

from fedbench import cli
from fedbench.cli import fetch as core


def test_every_download_has_an_official_address_and_a_checksum(installed: Any) -> None:
    for entry in installed.all("dataset"):
        if entry.package == "tests":
            continue
        downloads = getattr(entry.value, "downloads", ())
        paths = [item.path for item in downloads]
        assert len(set(paths)) == len(paths)
        for item in downloads:
            assert all(url.startswith(("http://", "https://")) for url in item.urls)
            assert re.fullmatch(r"md5:[0-9a-f]{32}|sha256:[0-9a-f]{64}", item.checksum), item
        if hasattr(entry.value, "fetch"):
            assert downloads or entry.value.by_hand
        assert entry.value.licence
        assert entry.value.source


def test_checksums_are_those_that_torchvision_carries() -> None:
    from torchvision import datasets

    def ours(cls: Any) -> dict[str, str]:
        return {item.path.split("/")[-1]: item.checksum[4:] for item in cls.downloads}

    assert ours(public.Mnist) == dict(datasets.MNIST.resources)
    assert ours(public.FashionMnist) == dict(datasets.FashionMNIST.resources)
    for mine, theirs in ((public.Cifar10, datasets.CIFAR10), (public.Cifar100, datasets.CIFAR100)):
        assert ours(mine) == {theirs.filename: theirs.tgz_md5}
        assert mine.downloads[0].urls == (theirs.url,)
        batches = (*theirs.train_list, *theirs.test_list)
        meta = theirs.meta
        assert mine.checksums == {**dict(batches), meta["filename"]: meta["md5"]}
        assert mine.meta == (meta["filename"], meta["key"])
        assert mine.inner == theirs.base_folder
    digits = ours(public_domains.DigitsFull)
    for table in (datasets.USPS.split_list, datasets.SVHN.split_list):
        for split in ("train", "test"):
            url, name, checksum = table[split]
            assert digits[name] == checksum
            assert any(url in item.urls for item in public_domains.DigitsFull.downloads)


def run(*words: str) -> Any:
    return CliRunner().invoke(cli.main, ["data", *words])


def test_the_command_fetches_and_the_data_set_loads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = []
    for item in public.Mnist.downloads:
        if "images" in item.path:
            raw = struct.pack(">4B3I", 0, 0, 8, 3, 20, 28, 28) + bytes(20 * 28 * 28)
        else:
            labels = (np.arange(20) % 10).astype(np.uint8).tobytes()
            raw = struct.pack(">4BI", 0, 0, 8, 1, 20) + labels
        packed = gzip.compress(raw)
        (tmp_path / item.path).write_bytes(packed)
        urls = ((tmp_path / item.path).as_uri(),)
        small.append(Download(urls, item.path, f"md5:{hashlib.md5(packed).hexdigest()}"))
    monkeypatch.setattr(public.Mnist, "downloads", tuple(small))
    root = tmp_path / "root"
    before = run("--data-root", str(root), "show", "mnist")
    assert f"`fedbench data --data-root {root} fetch mnist` downloads it" in before.output
    done = run("--data-root", str(root), "fetch", "mnist")
    assert done.exit_code == 0, done.output
    assert f"mnist is in {root / 'mnist'} (licence: CC BY-SA 3.0)" in done.output
    assert "train-images-idx3-ubyte.gz: " in done.output
    assert len(public.Mnist().load(root).train) == 20


def test_data_that_cannot_be_downloaded_says_where_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, words in (
        ("office-caltech", "on personal drives only"),
        ("pacs", "on its authors' drive"),
        ("ham10000", "after agreeing to its non-commercial terms at https://doi.org/"),
    ):
        done = run("--data-root", str(tmp_path), "fetch", name)
        assert done.exit_code == 1
        assert words in done.output
        assert f"{tmp_path / name}" in done.output
        assert done.output.count("\n") == 1
    monkeypatch.setattr(public_domains.DigitsFull, "downloads", ())
    done = run("--data-root", str(tmp_path), "fetch", "digits-full")
    assert done.exit_code == 1
    assert f"put its images at {tmp_path}/digits-full/SYN/train/<digit>/" in done.output


def test_the_command_explains_what_there_is_nothing_to_fetch_for(tmp_path: Path) -> None:
    assert (
        "digits is inside the package; there is nothing to fetch" in run("fetch", "digits").output
    )
    mine = run("fetch", "image-folder")
    assert mine.exit_code == 1
    assert "image-folder has nothing to fetch: it reads your own files" in mine.output
    assert "no data set 'mnits' (did you mean 'mnist'?)" in run("fetch", "mnits").output


def test_progress_off_a_terminal_is_a_line_for_each_thing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with core.progress() as report:
        for done in (0, 50, 100, 100):
            report("a.gz", done, 100)
        report("checking a.gz", 0, 100)
        report("unpacking", 7, None)
    assert capsys.readouterr().err == "a.gz: 100\n"


def test_progress_on_a_terminal_is_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    class Screen(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen = Screen()
    monkeypatch.setattr("sys.stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    with core.progress() as report:
        report("a.gz", 0, None)
        report("a.gz", 500, 1000)
        report("a.gz", 1000, 1000)
    assert "a.gz" in screen.getvalue()
    assert "1.0/1.0 kB" in screen.getvalue()
