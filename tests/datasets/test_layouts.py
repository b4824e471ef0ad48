"""Public data sets as tools and other people's code leave them on disk: read, and read the same."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fedbench_datasets import folders
from fedbench_datasets.caching import ReadError
from fedbench_datasets.public_domains import DigitsFull, OfficeCaltech, Pacs
from fedbench_datasets.public_folders import Ham10000, TinyImagenet
from PIL import Image

from fedbench.types import Dataset

pytestmark = pytest.mark.usefixtures("own_cache")

Message = Callable[[Any, Path], str]


def picture(path: Path, seed: int) -> None:
    """Write a picture that differs from those of other seeds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def assert_same(one: Dataset, other: Dataset) -> None:
    assert (one.classes, one.domains) == (other.classes, other.domains)
    for first, second in ((one.train, other.train), (one.test, other.test)):
        assert torch.equal(first.inputs, second.inputs)
        assert torch.equal(first.labels, second.labels)
        assert torch.equal(first.domains, second.domains)


# Tiny ImageNet


WNIDS = [f"n{n:08}" for n in range(200)]


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """Write Tiny ImageNet as it is distributed, with images 0 to 399 for validation."""
    base = tmp_path / "tiny-imagenet/tiny-imagenet-200"
    for n, wnid in enumerate(WNIDS):
        picture(base / f"train/{wnid}/images/{wnid}_0.JPEG", n)
    for n in range(400):
        picture(base / f"val/images/val_{n}.JPEG", 1000 + n)
    (base / "wnids.txt").write_text("\n".join(WNIDS) + "\n")
    notes = [f"val_{n}.JPEG\t{WNIDS[n * 7 % 200]}\t0\t0\t62\t62\n" for n in range(400)]
    (base / "val/val_annotations.txt").write_text("".join(notes))
    return base


def sort_validation(base: Path, inner: str) -> None:
    """Move validation images into class folders, as many scripts do."""
    for n in range(400):
        target = base / "val" / WNIDS[n * 7 % 200] / inner
        target.mkdir(parents=True, exist_ok=True)
        (base / f"val/images/val_{n}.JPEG").rename(target / f"val_{n}.JPEG")


@pytest.mark.parametrize("inner", ["", "images"])
@pytest.mark.parametrize(
    "leave",
    [
        lambda val: (val / "images").rmdir(),
        lambda val: [(val / "images").rmdir(), (val / "val_annotations.txt").unlink()],
        lambda val: (val / "images/.DS_Store").write_bytes(b"x"),
    ],
    ids=["without the old folder", "without the table", "with both"],
)
def test_sorted_validation_images_are_read_in_the_published_order(
    tiny: Path, inner: str, leave: Callable[[Path], object]
) -> None:
    published = TinyImagenet(resolution=8).load(tiny.parent.parent)
    sort_validation(tiny, inner)
    leave(tiny / "val")
    assert_same(TinyImagenet(resolution=8).load(tiny.parent.parent), published)


@pytest.mark.parametrize(
    "change",
    [
        lambda base: base.rename(base.with_name("Tiny-ImageNet-200")),
        lambda base: [p.rename(base.parent / p.name) for p in list(base.iterdir())],
        lambda base: shutil.move(base, base.parent / "outer/tiny-imagenet-200"),
        lambda base: [(base / n).rename(base / n.title()) for n in ("train", "val")],
        lambda base: (base / "wnids.txt").unlink(),
        lambda base: (base / "train/.ipynb_checkpoints").mkdir(),
        lambda base: (base.parent / "__MACOSX/tiny-imagenet-200/train").mkdir(parents=True),
    ],
)
def test_tiny_imagenet_may_be_elsewhere(tiny: Path, change: Callable[[Path], object]) -> None:
    root = tiny.parent.parent
    published = TinyImagenet(resolution=8).load(root)
    change(tiny)
    assert_same(TinyImagenet(resolution=8).load(root), published)


def test_validation_images_without_any_class_are_explained(tiny: Path, message: Message) -> None:
    (tiny / "val/val_annotations.txt").unlink()
    text = message(TinyImagenet(), tiny.parent.parent)
    assert "val/val_annotations.txt: no such file; expected it with val/images/*.JPEG, or" in text


# Office-Caltech and PACS


@pytest.fixture
def office(tmp_path: Path) -> Path:
    for number, domain in enumerate(OfficeCaltech.domains):
        for c in range(10):
            for n in range(3):
                seed = 100 * number + 10 * c + n
                picture(tmp_path / f"office-caltech/{domain}/class{c}/frame_{n:04}.jpg", seed)
    return tmp_path / "office-caltech"


def move_inside(base: Path, inside: str) -> None:
    (base / inside).mkdir(parents=True)
    for domain in OfficeCaltech.domains:
        shutil.move(base / domain, base / inside / domain)


@pytest.mark.parametrize(
    "change",
    [
        lambda base: move_inside(base, "Office_Caltech_10"),
        lambda base: move_inside(base, "data/office_caltech_10"),
        lambda base: base.rename(base.with_name("Office Caltech")),
        lambda base: [(base / d).rename(base / d.upper()) for d in OfficeCaltech.domains],
        lambda base: (
            shutil.move(base / "dslr", base / "x") and shutil.move(base / "x", base / "dslr/images")
        ),
        lambda base: (base / "dslr/__MACOSX").mkdir(),
        lambda base: (base / "dslr/.ipynb_checkpoints").mkdir(),
        lambda base: shutil.copytree(base / "dslr/class1", base / "dslr/class1/.ipynb_checkpoints"),
        lambda base: shutil.copytree(base / "dslr/class1", base / "dslr/class1/@eaDir"),
        lambda base: shutil.copytree(base / "amazon", base / "$RECYCLE.BIN/amazon"),
        lambda base: (base / "amazon/class0/._frame_0000.jpg").write_bytes(b"\0\5\x16\7"),
    ],
)
def test_folder_domains_may_be_elsewhere_and_hold_junk(
    office: Path, change: Callable[[Path], object]
) -> None:
    published = OfficeCaltech(resolution=8).load(office.parent)
    change(office)
    assert_same(OfficeCaltech(resolution=8).load(office.parent), published)


def test_copies_of_checkpoints_do_not_move_the_split_of_pacs(tmp_path: Path) -> None:
    names = ("art painting", "Cartoon", "photo", "sketch")  # spelled otherwise
    for d, domain in enumerate(names):
        for c in range(7):
            for n in range(12):
                picture(tmp_path / f"pacs/{domain}/class{c}/pic_{n:03}.png", 1000 * d + 100 * c + n)
    inside = tmp_path / "pacs/photo/class0/.ipynb_checkpoints"
    shutil.copytree(tmp_path / "pacs/photo/class0", inside)
    data = Pacs(resolution=8).load(tmp_path)
    assert (len(data.train), len(data.test)) == (4 * 68, 4 * 16)
    train = {x.numpy().tobytes() for x in data.train.inputs}
    assert not any(x.numpy().tobytes() in train for x in data.test.inputs)


def test_two_copies_of_the_domains_are_named(office: Path, message: Message) -> None:
    for name in ("one", "two"):
        for domain in OfficeCaltech.domains:
            shutil.copytree(office / domain, office / name / domain)
    for domain in OfficeCaltech.domains:
        shutil.rmtree(office / domain)
    text = message(OfficeCaltech(), office.parent)
    assert "office-caltech/one and " in text
    assert "office-caltech/two both hold caltech, amazon, webcam, dslr; keep one of them" in text


# SYN


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("SYN/train", "SYN/test"),
        ("SYN/train", "SYN/val"),
        ("syn/train", "syn/val"),  # in the code of FPL's authors
        ("synthetic_digits/imgs_train", "synthetic_digits/imgs_valid"),  # as it is downloaded
        ("SYN/synthetic_digits/imgs_train", "SYN/synthetic_digits/imgs_valid"),
        ("Syn/Train", "Syn/Test"),
    ],
)
def test_syn_is_found(
    tmp_path: Path, train: str, test: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = tmp_path / "digits-full"
    for split, folder in (("train", train), ("test", test)):
        for digit in range(10):
            for n in range(2 if split == "train" else 1):
                picture(base / folder / f"{digit}/{n}.png", digit)
            picture(base / folder / f"{digit}/.ipynb_checkpoints/x.png", digit)
    for name in ("usps.bz2", "usps.t.bz2", "train_32x32.mat", "test_32x32.mat"):
        (base / name).write_bytes(b"found, not read")
    for part in ("train", "t10k"):
        for what in ("images-idx3", "labels-idx1"):
            path = base / f"MNIST/raw/{part}-{what}-ubyte"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"found, not read")
    files = [str(path) for path in DigitsFull()._open(tmp_path).files]
    images = [path for path in files if path.endswith(".png")]
    assert len(images) == 30
    assert all(f"/{train}/" in path for path in images[:20])
    assert all(f"/{test}/" in path for path in images[20:])


# HAM10000


def test_ham10000_may_be_elsewhere_and_is_not_read_from_thumbnails(tmp_path: Path) -> None:
    base = tmp_path / "ham10000"
    rows = ["lesion_id,image_id,dx"]
    for c, dx in enumerate(Ham10000.classes):
        for n in range(10):
            image = f"ISIC_{100 * c + n:07}"
            rows.append(f"HAM_{dx}{n},{image},{dx}")
            picture(base / f"part/{image}.jpg", 100 * c + n)
    (base / "HAM10000_metadata.csv").write_text("\n".join(rows))
    published = Ham10000(resolution=8).load(tmp_path)
    base = base.rename(tmp_path / "HAM10000")
    (base / "dataverse_files").mkdir()
    for name in ("part", "HAM10000_metadata.csv"):
        (base / name).rename(base / "dataverse_files" / name)
    base /= "dataverse_files"
    picture(base / "@eaDir/ISIC_0000000.jpg/THUMB.jpg", 1)  # a folder of that name
    picture(base / "part/.ipynb_checkpoints/ISIC_0000001.jpg", 2)
    picture(base / "__MACOSX/ISIC_0000002.jpg", 3)
    assert_same(Ham10000(resolution=8).load(tmp_path), published)


# where names are unclear


def test_the_exact_name_comes_first_and_two_near_ones_are_an_error(tmp_path: Path) -> None:
    for name in ("Art-Painting", "art painting"):
        (tmp_path / name).mkdir()
    with pytest.raises(ReadError, match="Art-Painting and art painting could be meant"):
        folders.located(tmp_path, "art_painting")
    (tmp_path / "art_painting").mkdir()
    assert folders.located(tmp_path, "art_painting") == tmp_path / "art_painting"


def test_a_data_root_is_taken_as_it_is_written(office: Path, message: Message) -> None:
    text = message(OfficeCaltech(), office.parent.parent / office.parent.name.upper())
    assert "office-caltech/caltech: no such folder" in text


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every folder")
def test_a_folder_that_may_not_be_read_is_an_error_not_a_smaller_class(
    office: Path, message: Message
) -> None:
    (office / "dslr/class1").chmod(0)
    text = message(OfficeCaltech(), office.parent)
    (office / "dslr/class1").chmod(0o755)
    assert "dslr/class1: Permission denied" in text
