"""Your own images in folders: what counts, what is left out, and which layouts are read."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fedbench_datasets.image_folder import ImageFolder
from PIL import Image

from fedbench.types import Dataset, Examples

pytestmark = pytest.mark.usefixtures("own_cache")

Message = Callable[[Any, Path], str]

RNG = np.random.default_rng(6)


def picture(path: Path, width: int = 12, height: int = 9) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = RNG.integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def tree(base: Path, *folders: str, images: int = 2) -> Path:
    """Write that many images into each folder below ``base``."""
    for folder in folders:
        for n in range(images):
            picture(base / folder / f"{n}.png")
    return base


def load(path: Path, **options: Any) -> Dataset:
    return ImageFolder(path=str(path), resolution=8, **options).load(path.parent / "root")


def counts(data: Dataset, examples: Examples) -> dict[str, dict[str, int]]:
    """Return domain -> class -> how many examples."""
    found: dict[str, dict[str, int]] = {d: {} for d in data.domains}
    for label, domain in zip(examples.labels.tolist(), examples.domains.tolist(), strict=True):
        name, of = data.classes[label], found[data.domains[domain]]
        of[name] = of.get(name, 0) + 1
    return found


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    return tree(tmp_path / "mine", "train/cat", "train/dog", "test/cat", "test/dog")


# the plain layouts


def test_without_domains_the_folder_is_the_domain(mine: Path) -> None:
    data = load(mine)
    assert data.domains == ("mine",)
    assert data.classes == ("cat", "dog")
    assert data.train.labels.tolist() == data.test.labels.tolist() == [0, 0, 1, 1]
    with Image.open(mine / "test/dog/1.png") as original:
        right = np.asarray(original.resize((8, 8), Image.Resampling.BILINEAR))
    assert np.array_equal(data.test.inputs[3].numpy(), right.transpose(2, 0, 1))


def test_domains_and_deeper_folders(tmp_path: Path) -> None:
    for domain in ("paint", "photo"):
        for split in ("train", "test"):
            tree(tmp_path / "mine" / domain / split, "cat/deep/er", "dog", images=1)
    data = load(tmp_path / "mine")
    assert data.domains == ("paint", "photo")
    assert data.train.domains.tolist() == data.test.domains.tolist() == [0, 0, 1, 1]


def test_the_order_is_torchvisions(mine: Path) -> None:
    from torchvision.datasets import ImageFolder as Theirs

    for name in ("a-b", "a", "a/z", "a b", "B", "10", "9"):
        tree(mine / "train/cat", name, images=12)
    picture(mine / "train/cat/b.JPG")
    ours = load(mine).train.inputs
    samples = Theirs(str(mine / "train")).samples
    assert len(ours) == len(samples) == 2 + 7 * 12 + 1 + 2
    for found, (path, _) in zip(ours.numpy(), samples, strict=True):
        with Image.open(path) as original:
            right = np.asarray(original.resize((8, 8), Image.Resampling.BILINEAR))
        assert np.array_equal(found, right.transpose(2, 0, 1))


def test_crop_takes_the_largest_square_in_the_middle(tmp_path: Path) -> None:
    for split in ("train", "test"):
        picture(tmp_path / f"image-folder/{split}/cat/0.png", width=10, height=4)
    data = ImageFolder(resolution=4, fit="crop").load(tmp_path)
    with Image.open(tmp_path / "image-folder/train/cat/0.png") as original:
        middle = np.asarray(original)[:, 3:7]
    assert np.array_equal(data.train.inputs[0].numpy(), middle.transpose(2, 0, 1))


def test_a_tilde_is_the_home_folder(
    mine: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    data = ImageFolder(path="~/mine", resolution=8).load(Path("~/root"))
    assert len(data.train) == 4
    assert (tmp_path / "root/.cache/image-folder").is_dir()
    assert len(ImageFolder(path="mine", resolution=8).load(Path("~")).train) == 4


# names of folders and how deep they are


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("Train", "Test"),
        ("TRAIN", "TEST"),
        ("training", "testing"),
        ("Training", "test"),
        ("train", "Validation"),
        ("train", "VAL"),
        ("train", "valid"),
        ("train", "dev"),
    ],
)
def test_splits_may_be_named_otherwise(tmp_path: Path, train: str, test: str) -> None:
    base = tree(tmp_path / "mine", f"{train}/cat", f"{train}/dog", f"{test}/cat", f"{test}/dog")
    data = load(base)
    assert data.classes == ("cat", "dog")
    assert (len(data.train), len(data.test)) == (4, 4)


def test_each_domain_may_name_its_splits_otherwise(tmp_path: Path) -> None:
    base = tree(tmp_path / "mine", "ink/Train/cat", "ink/TEST/cat", "oil/train/cat", "oil/test/cat")
    assert load(base).domains == ("ink", "oil")


@pytest.mark.parametrize("wrapping", ["mine", "data/images", "a/b/c"])
def test_a_folder_that_only_wraps_the_others_does_not_count(tmp_path: Path, wrapping: str) -> None:
    inside = tmp_path / "mine" / wrapping
    tree(inside / "ink", "train/cat", "test/cat")
    tree(inside / "oil", "train/cat", "test/cat")
    (tmp_path / "mine/__MACOSX/ink").mkdir(parents=True)
    assert load(tmp_path / "mine").domains == ("ink", "oil")


def test_two_folders_for_one_split_are_named(mine: Path, tmp_path: Path, message: Message) -> None:
    tree(mine, "Training/cat")
    text = message(ImageFolder(path="mine"), tmp_path)
    assert "mine: Training and train could both be the train images; keep one" in text


def test_domains_below_the_split_are_read_as_classes_but_doubted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = tree(tmp_path / "mine", *(f"{s}/ink/{c}" for s in ("train", "test") for c in "ab"))
    tree(base, *(f"{s}/oil/{c}" for s in ("train", "test") for c in "ab"))
    assert load(base).classes == ("ink", "oil")
    assert capsys.readouterr().err == (
        f"image-folder: the classes are the folders in {base}/train (ink, oil), although each "
        "holds the same folders (a, b); domains belong above train and test\n"
    )


# hidden files, and those of systems and tools


JUNK = [
    *(".ipynb_checkpoints", ".git", ".hidden", "__MACOSX", "@eaDir", "$RECYCLE.BIN"),
    *("lost+found", ".Trash-1000", "System Volume Information", "#recycle", ".@__thumb"),
]


@pytest.mark.parametrize("junk", JUNK)
@pytest.mark.parametrize("where", ["", "train", "train/cat", "train/cat/deep", "test/dog"])
def test_folders_of_systems_are_not_examples_classes_or_domains(
    mine: Path, junk: str, where: str, capsys: pytest.CaptureFixture[str]
) -> None:
    tree(mine / where, junk, f"{junk}/cat", f"{junk}/train/cat")
    data = load(mine)
    assert (data.classes, data.domains) == (("cat", "dog"), ("mine",))
    assert (len(data.train), len(data.test)) == (4, 4)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("junk", JUNK)
def test_folders_of_systems_next_to_domains_do_not_count(tmp_path: Path, junk: str) -> None:
    base = tmp_path / "mine"
    for domain in ("ink", "oil"):
        tree(base / domain, "train/cat", "test/cat", f"{junk}/cat", f"train/{junk}")
    tree(base, f"{junk}/train/cat", f"{junk}/ink/test/cat")
    assert counts(load(base), load(base).train) == {"ink": {"cat": 2}, "oil": {"cat": 2}}


@pytest.mark.parametrize("name", ["._0.png", ".0.png", ".DS_Store", "Thumbs.db", "desktop.ini"])
def test_files_of_systems_are_not_examples(
    mine: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in (mine, mine / "train", mine / "train/cat"):
        (folder / name).write_bytes(b"\0\5\x16\7")
    assert len(load(mine).train) == 4
    assert capsys.readouterr().err == ""


def test_other_files_that_are_not_read_are_said_in_one_line(
    mine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("train/stray.png", "train/cat/notes.txt", "test/dog/clip.mp4"):
        (mine / name).write_bytes(b"x")
    (mine / "unlabelled").mkdir()
    (mine / "labels.csv").write_text("next to the splits")
    assert len(load(mine).train) == 4
    assert capsys.readouterr().err == (
        "image-folder: left out 4 files or folders that are not images in class folders: "
        f"{mine}/unlabelled and 3 more\n"
    )


@pytest.mark.parametrize("name", ["x.GIF", "x.jfif", "x.Jpeg", "x.jp2", "x.tga", "x.TIFF"])
def test_images_are_known_by_many_names(mine: Path, name: str) -> None:
    kind = "JPEG" if name.endswith("jfif") else None
    Image.new("RGB", (8, 8), "red").save(mine / "train/cat" / name, kind)
    assert len(load(mine).train) == 5


# classes that are missing somewhere


def test_a_class_may_be_missing_in_one_domain(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = tmp_path / "mine"
    tree(base / "ink", "train/a", "train/c", "test/a", "test/c")
    tree(base / "oil", "train/a", "train/b", "test/a", "test/b")
    data = load(base)
    assert data.classes == ("a", "b", "c")
    assert counts(data, data.train) == {"ink": {"a": 2, "c": 2}, "oil": {"a": 2, "b": 2}}
    assert capsys.readouterr().err == (
        "image-folder: no images of 'b' in ink (train), 'b' in ink (test), 'c' in oil (train) "
        "and 1 more\n"
    )


@pytest.mark.parametrize("empty", [True, False])
def test_a_class_may_be_missing_in_test(mine: Path, empty: bool) -> None:
    shutil.rmtree(mine / "test/cat")
    if empty:
        (mine / "test/cat").mkdir()
    data = load(mine)
    assert data.classes == ("cat", "dog")
    assert data.test.labels.tolist() == [1, 1]


def test_a_class_without_a_training_image_is_named(
    mine: Path, tmp_path: Path, message: Message
) -> None:
    tree(mine, "test/emu")
    text = message(ImageFolder(path="mine"), tmp_path)
    assert "expected 3 classes in the training examples, found 2, none of 'emu'" in text


@pytest.mark.parametrize(
    ("first", "second"), [("cat", "Cat"), ("1", "1.0"), ("ice bear", "icebear"), ("1", "01")]
)
def test_one_class_in_two_spellings_is_refused(
    tmp_path: Path, message: Message, first: str, second: str
) -> None:
    base = tmp_path / "mine"
    tree(base / "ink", f"train/{first}", f"test/{first}")
    tree(base / "oil", f"train/{second}", f"test/{second}")
    text = message(ImageFolder(path="mine"), tmp_path)
    assert f"mine/oil/train: class {second!r} differs from {first!r} (" in text
    assert "mine/ink/train) only in how it is written" in text


def test_two_spellings_side_by_side_are_two_classes(tmp_path: Path) -> None:
    base = tree(tmp_path / "letters", "train/A", "train/a", "test/A", "test/a")
    tree(base, "val/a")
    assert load(base).classes == ("A", "a")


# validation images


def test_validation_images_are_left_out_and_said(
    mine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree(mine, "val/cat", "val/dog", images=3)
    assert len(load(mine).test) == 4
    assert capsys.readouterr().err == (
        "image-folder: left out 6 images of the split 'val'; 'test' is the test set\n"
    )


def test_without_test_images_those_for_validation_are_the_test_set_and_it_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = tree(tmp_path / "mine", "train/cat", "train/dog", "val/cat", "val/dog", images=3)
    assert len(load(base).test) == 6
    assert capsys.readouterr().err == (
        "image-folder: no split 'test': the 6 images of 'val' are the test set\n"
    )


def test_if_one_domain_has_test_images_no_domain_is_tested_on_validation_images(
    tmp_path: Path, message: Message
) -> None:
    base = tmp_path / "mine"
    tree(base, "ink/train/cat", "ink/test/cat", "oil/train/cat", "oil/val/cat")
    assert "mine/oil/test: no such folder; expected " in message(ImageFolder(path="mine"), tmp_path)


# links


def test_links_are_followed_but_not_round_and_round(mine: Path, tmp_path: Path) -> None:
    tree(tmp_path / "elsewhere", "more", images=3)
    (mine / "train/cat/more").symlink_to(tmp_path / "elsewhere/more")
    (mine / "train/cat/loop").symlink_to(mine / "train/cat")
    (tmp_path / "elsewhere/more/back").symlink_to(mine / "train/cat")
    assert len(load(mine).train) == 4 + 3


@pytest.mark.parametrize(
    ("link", "target", "text"),
    [
        ("test/dog/9.png", "train/dog/0.png", "in two splits, 'train' and 'test'"),
        ("train/cat/9.png", "train/dog/0.png", "under two labels, 'cat' and 'dog'"),
        ("train/dog/9.png", "train/dog/0.png", "twice"),
    ],
)
@pytest.mark.parametrize("make", [os.symlink, os.link])
def test_one_file_in_two_places_is_refused(
    mine: Path,
    tmp_path: Path,
    message: Message,
    link: str,
    target: str,
    text: str,
    make: Callable[[Path, Path], None],
) -> None:
    make(mine / target, mine / link)
    found = message(ImageFolder(path="mine"), tmp_path)
    assert f"one file is listed {text}" in found
    assert f"{mine}/{link}" in found
    assert f"{mine}/{target}" in found


def test_a_test_folder_that_is_the_training_folder_is_refused(
    mine: Path, tmp_path: Path, message: Message
) -> None:
    shutil.rmtree(mine / "test")
    (mine / "test").symlink_to("train")
    text = message(ImageFolder(path="mine"), tmp_path)
    assert "one file is listed in two splits, 'train' and 'test'" in text


# layouts that are not read


@pytest.mark.parametrize(
    ("made", "text"),
    [
        ([], "mine: no such folder"),
        (["mine/"], "mine: expected a folder for each class, found 0"),
        (["mine/cat/0.jpg"], "mine/cat/train: no such folder; expected "),
        (["mine/cat/train/0.jpg", "mine/cat/test/0.jpg"], "mine/cat/train: expected a folder for "),
        (["mine/train/cat/0.jpg"], "mine/test: no such folder; expected "),
        (["mine/test/cat/0.jpg", "mine/val/cat/0.jpg"], "mine/train: no such folder; expected "),
        (
            ["mine/train/cat/0.jpg", "mine/test/0.jpg"],
            "mine/test: expected a folder for each class",
        ),
        (["mine/train/cat/0.jpg", "mine/test/dog/0.jpg"], "found 1, none of 'dog'"),
        (["mine/train/cat/0.jpg", "mine/test/images/0.jpg"], "found 1, none of 'images'"),
        (["mine/train/0.jpg", "mine/test/0.jpg"], "mine/train: expected a folder for each class"),
        (["mine/train/cat/", "mine/test/cat/"], "train/cat: no image in this class folder"),
    ],
)
def test_a_wrong_layout_is_explained(
    tmp_path: Path, made: list[str], text: str, message: Message
) -> None:
    for name in made:
        if name.endswith("/"):
            (tmp_path / name).mkdir(parents=True)
        else:
            picture(tmp_path / name)
    assert text in message(ImageFolder(path="mine"), tmp_path)
