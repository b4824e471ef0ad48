"""Names that steer terminals, fake lines or turn the writing, in every command that shows names."""

from __future__ import annotations

import unicodedata
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from click.testing import Result
from PIL import Image

from fedbench.types import Dataset

CLASSES = ("a\x1b[2J\x1b]0;title\x07", "\u202egnp", "n\nround 9/9", "plain")
DOMAINS = ("x\x1b[31m\r", "@\tSUM", "-\u2066y")
METHOD = "m\x1b[2J\x9b1m\nround 9/9\u202e"


def check(done: Result, *shown: str, status: int = 0) -> None:
    """Check that what a command printed is shown in escapes, and that it did what it should."""
    assert done.exit_code == status, done.output
    for letter in done.output.replace("\n", ""):
        assert unicodedata.category(letter) not in ("Cc", "Cs", "Zl", "Zp"), repr(done.output)
        assert unicodedata.bidirectional(letter) not in ("RLO", "LRI"), repr(done.output)
    assert "\nround 9/9" not in done.output
    for text in shown:
        assert text in done.output


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders in domain folders, with hostile names."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for domain in DOMAINS:
        for split, number in (("train", 6), ("test", 2)):
            for name in CLASSES:
                place = folder / domain / split / name
                place.mkdir(parents=True)
                for n in range(number):
                    picture = rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)
                    Image.fromarray(picture).save(place / f"{n}.png")
    return folder


@pytest.fixture
def flags(pictures: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Flags for a run on `pictures`."""
    monkeypatch.setenv("FEDBENCH_DATA", str(tmp_path / "cache"))
    sets = (f"data.path={pictures}", "data.resolution=8", "model.width=2", "model.feature_size=8")
    sets += ("domains.examples=null", "domains.clients_per_domain=1", "sgd.epochs=1")
    words = ["--data", "image-folder", "--card", "digits", "--rounds", "1"]
    return [*words, *(word for one in sets for word in ("--set", one))]


@pytest.mark.long
def test_classes_and_domains_of_a_folder(fedbench, flags: list[str], tmp_path: Path) -> None:
    ways = (r"x\x1b[31m\r", r"@\tSUM", r"-\u2066y")
    check(fedbench("run", "fedavg", *flags, "--executor", "inline", "--out", "r"), *ways)
    for words in (["show", "r"], ["report", "r", "--out", "out"]):
        check(fedbench(*words), *ways)
    check(fedbench("verify", "r"))
    check(fedbench("compare", "fedavg", "fedprox", *flags, "--seeds", "1", "--jobs", "2"), *ways)
    check(fedbench("partition", *flags, "--seed", "0"), *ways)
    assert len(list((tmp_path / "out" / "figures").iterdir())) > 10


@pytest.mark.long
def test_the_method_of_a_file(fedbench, few: list[str], tmp_path: Path) -> None:
    fedbench("run", "fedavg", "--data", "digits", *few, "--quiet", "--out", "r")
    file = tmp_path / "r" / "config.yaml"
    file.write_text(yaml.dump({**yaml.safe_load(file.read_text()), "method": METHOD}))
    shown = r"m\x1b[2J\x9b1m\nround 9/9\u202e"
    check(fedbench("run", file, "--out", "again"), shown)
    check(fedbench("show", "again"), shown)
    check(fedbench("report", "again", "--out", "out"), shown)
    assert len(list((tmp_path / "out" / "figures").iterdir())) > 10
    (tmp_path / "again" / "result.json").unlink()
    (tmp_path / "again" / "error.txt").write_text("it\x1b[2J\u2028broke")
    check(
        fedbench("report", "again", "--out", "out"), f"failed: {shown}:", r"seed 0: it\x1b[2J broke"
    )


def test_a_printed_config_can_be_read_back(fedbench, few: list[str], tmp_path: Path) -> None:
    fedbench("run", "fedavg", "--data", "digits", *few, "--quiet", "--out", "r")
    file = tmp_path / "mine.yaml"
    data = yaml.safe_load((tmp_path / "r" / "config.yaml").read_text())
    file.write_text(yaml.dump({**data, "method": METHOD}))
    done = fedbench("config", file)
    check(done)
    assert yaml.safe_load(done.stdout)["method"] == METHOD


def test_a_run_directory(fedbench, few: list[str]) -> None:
    out = "r\x1b[2J\nround 9/9"
    check(fedbench("run", "fedavg", "--data", "digits", *few, "--out", out), r"Kept in r\x1b[2J\n")
    check(fedbench("verify", out), r"of r\x1b[2J\n")
    check(fedbench("show", f"{out}\x1b"), r"r\x1b[2J", status=1)


def test_what_was_typed(fedbench) -> None:
    check(fedbench("run", "--\x1b[2J\u202e"), r"--\x1b[2J\u202e", status=2)
    check(fedbench("run", "fed\x1b[2Javg"), r"fed\x1b[2Javg", status=1)
    check(fedbench("\x1b[2J"), r"\x1b[2J", status=2)


def test_contact_sheets_stay_in_their_folder(
    fedbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fedbench_datasets.embedded import Digits

    load = Digits.load

    def hostile(self: Digits, root: Path) -> Dataset:
        return replace(load(self, root), domains=("../x\x1b", "a/b", "a_b", "c"))

    monkeypatch.setattr(Digits, "load", hostile)
    check(fedbench("data", "show", "digits", "--out", "sheets"), r"../x\x1b")
    assert len(list((tmp_path / "sheets").iterdir())) == 4
    assert not list(tmp_path.glob("*.png"))
