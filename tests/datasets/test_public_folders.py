"""Data sets of image files, on small files laid out as the originals are; damage is one line."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fedbench_datasets.public_domains import OfficeCaltech, Pacs
from fedbench_datasets.public_folders import Ham10000, Sun397, TinyImagenet
from PIL import Image

pytestmark = pytest.mark.usefixtures("own_cache")

Message = Callable[[Any, Path], str]

RNG = np.random.default_rng(6)


def picture(path: Path, width: int = 12, height: int = 9) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = RNG.integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, quality=90)


def expected(path: Path, side: int) -> np.ndarray:
    """Return the image as torchvision's loader and Resize read it."""
    from torchvision.datasets.folder import default_loader
    from torchvision.transforms import Resize

    return np.asarray(Resize((side, side))(default_loader(path))).transpose(2, 0, 1)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-60])


# Office-Caltech and PACS


def write_domains(base: Path, domains: tuple[str, ...], classes: int) -> None:
    for domain in domains:
        for c in range(classes):
            for n in range(3):
                picture(base / domain / f"class{c}" / f"frame_{n:04}.jpg")


@pytest.fixture
def office(tmp_path: Path) -> Path:
    write_domains(tmp_path / "office-caltech", OfficeCaltech.domains, 10)
    return tmp_path


def test_office_caltech_is_split_as_the_fpl_authors_split_it(office: Path) -> None:
    from torchvision.datasets import ImageFolder as Theirs

    data = OfficeCaltech().load(office)
    assert data.domains == ("caltech", "amazon", "webcam", "dslr")
    assert data.classes == tuple(f"class{n}" for n in range(10))
    for number, domain in enumerate(data.domains):
        samples = Theirs(str(office / "office-caltech" / domain)).samples
        for examples, keep in ((data.train, range(8)), (data.test, range(8, 10))):
            mine = examples[(examples.domains == number).nonzero().flatten()]
            theirs = [sample for i, sample in enumerate(samples) if i % 10 in keep]
            assert mine.labels.tolist() == [label for _, label in theirs]
            for ours, (path, _) in zip(mine.inputs.numpy(), theirs, strict=True):
                assert np.array_equal(ours, expected(Path(path), 32))


def test_resolution_is_an_option_with_its_own_cache(office: Path) -> None:
    assert OfficeCaltech(resolution=16).load(office).train.inputs.shape == (96, 3, 16, 16)
    assert OfficeCaltech(resolution=24).load(office).train.inputs.shape == (96, 3, 24, 24)
    assert len([p for p in (office / ".cache/office-caltech").iterdir() if len(p.name) == 64]) == 2


def test_folders_may_be_written_otherwise(tmp_path: Path) -> None:
    inside = tmp_path / "office-caltech/Office_Caltech_10"
    write_domains(inside, ("Caltech", "amazon", "webcam", "DSLR"), 10)
    (inside / "amazon/.thumbnails").mkdir()
    assert OfficeCaltech().load(tmp_path).domains == OfficeCaltech.domains
    write_domains(tmp_path / "pacs/kfold", Pacs.domains, 7)
    data = Pacs().load(tmp_path)
    assert data.train.inputs.shape[1:] == (3, 64, 64)
    assert len(data.train) + len(data.test) == 4 * 7 * 3


FOLDER_DAMAGES: list[tuple[Callable[[Path], object], str]] = [
    (lambda b: shutil.rmtree(b / "webcam"), "office-caltech/webcam: no such folder"),
    (
        lambda b: shutil.rmtree(b / "webcam/class3"),
        "webcam: expected 10 class folders, found 9: class0, class1, class2, class4,",
    ),
    (lambda b: (b / "dslr/extra").mkdir(), "dslr: expected 10 class folders, found 11"),
    (
        lambda b: (b / "dslr/class3").rename(b / "dslr/klass3"),
        "dslr: class folders differ from those of caltech: class3, klass3",
    ),
    (
        lambda b: [p.unlink() for p in (b / "amazon/class5").iterdir()],
        "amazon/class5: no image in this class folder",
    ),
    (
        lambda b: cut(b / "amazon/class5/frame_0001.jpg"),
        "amazon/class5/frame_0001.jpg: truncated or damaged image (image file is truncated",
    ),
    (
        lambda b: (b / "amazon/class5/frame_0001.jpg").write_bytes(b"<html>"),
        "amazon/class5/frame_0001.jpg: truncated or damaged image (unknown format)",
    ),
    (
        lambda b: (b / "amazon/class5/frame_0001.jpg").write_bytes(b""),
        "amazon/class5/frame_0001.jpg: truncated or damaged: empty",
    ),
]


@pytest.mark.parametrize(("damage", "text"), FOLDER_DAMAGES)
def test_damage_to_folders_is_one_line(
    office: Path, damage: Callable[[Path], object], text: str, message: Message
) -> None:
    damage(office / "office-caltech")
    found = message(OfficeCaltech(), office)
    assert text in found
    assert found.endswith("fetch office-caltech` says where to get it")
    assert not list((office / ".cache/office-caltech").glob("unfinished-*"))


# Tiny ImageNet, HAM10000, SUN397


def write_tiny(base: Path) -> list[str]:
    wnids = [f"n{n:08}" for n in range(200)]
    picture(base / "one.jpg", 64, 64)
    for folder in ("val/images", *(f"train/{w}/images" for w in wnids)):
        (base / folder).mkdir(parents=True)
    for n, wnid in enumerate(wnids):
        (base / f"train/{wnid}/images/{wnid}_0.JPEG").hardlink_to(base / "one.jpg")
        (base / f"val/images/val_{n}.JPEG").hardlink_to(base / "one.jpg")
    (base / "wnids.txt").write_text("\n".join(reversed(wnids)) + "\n")
    notes = [f"val_{n}.JPEG\t{w}\t0\t0\t62\t62\n" for n, w in enumerate(wnids)]
    (base / "val/val_annotations.txt").write_text("".join(notes))
    return wnids


def test_tiny_imagenet(tmp_path: Path, message: Message) -> None:
    base = tmp_path / "tiny-imagenet/tiny-imagenet-200"
    wnids = write_tiny(base)
    data = TinyImagenet().load(tmp_path)
    assert data.classes == tuple(wnids)
    assert data.train.inputs.shape == data.test.inputs.shape == (200, 3, 64, 64)
    assert data.train.labels.tolist() == data.test.labels.tolist() == list(range(200))
    assert np.array_equal(data.test.inputs[7].numpy(), expected(base / "one.jpg", 64))

    (base / "val/images/val_3.JPEG").unlink()
    found = message(TinyImagenet(), tmp_path)
    assert "val_3.JPEG: no such file, but val_annotations.txt names it" in found
    (base / "val/val_annotations.txt").write_text("val_0.JPEG n404\n")
    assert "val_annotations.txt:1: expected an image, a tab and a class" in message(
        TinyImagenet(), tmp_path
    )
    (base / "wnids.txt").write_text("n00000001\n")
    text = message(TinyImagenet(), tmp_path)
    assert "train: class folders differ from those in " in text
    assert "wnids.txt: n00000000 ..." in text
    (base / "wnids.txt").write_bytes(b"\xff\xfe")
    assert "wnids.txt: damaged: not UTF-8 text at byte 0" in message(TinyImagenet(), tmp_path)
    shutil.rmtree(base)
    assert "tiny-imagenet-200/train: no such folder" in message(TinyImagenet(), tmp_path)


def write_ham(base: Path, separator: str = ",", name: str = "HAM10000_metadata.csv") -> None:
    base.mkdir(parents=True)
    rows = [["lesion_id", "image_id", "dx", "dx_type", "age"]]
    number = 0
    for dx in Ham10000.classes:
        for lesion in range(10):
            for _ in range(1 + lesion % 2):
                image = f"ISIC_{number:07}"
                rows.append([f"HAM_{dx}{lesion}", image, dx, "histo", "50"])
                part = 1 + number % 2
                (base / f"HAM10000_images_part_{part}").mkdir(exist_ok=True)
                picture(base / f"HAM10000_images_part_{part}/{image}.jpg")
                number += 1
    (base / name).write_text("".join(separator.join(row) + "\n" for row in rows))


@pytest.mark.parametrize(
    ("separator", "name"), [(",", "HAM10000_metadata.csv"), ("\t", "HAM10000_metadata")]
)
def test_ham10000_keeps_each_lesion_on_one_side(tmp_path: Path, separator: str, name: str) -> None:
    write_ham(tmp_path / "ham10000", separator, name)
    data = Ham10000(resolution=8).load(tmp_path)
    assert data.classes == Ham10000.classes
    assert data.train.labels.bincount().tolist() == [12] * 7  # lesions 0 to 7
    assert data.test.labels.bincount().tolist() == [3] * 7  # lesions 8 and 9
    path = tmp_path / "ham10000/HAM10000_images_part_1/ISIC_0000000.jpg"
    assert np.array_equal(data.train.inputs[0].numpy(), expected(path, 8))


HAM_DAMAGES: list[tuple[str, str, str]] = [
    (",mel,", ",mole,", "HAM10000_metadata.csv:62: expected an image_id and a dx among akiec, bcc"),
    ("lesion_id", "lesion", "expected columns lesion_id, image_id, dx, found"),
    ("ISIC_0000003", "ISIC_9999999", "ISIC_9999999.jpg: no such file, but HAM10000_metadata.csv"),
    (",vasc,", ",nv,", "expected 7 classes, found no 'vasc'"),
]


@pytest.mark.parametrize(("old", "new", "text"), HAM_DAMAGES)
def test_damage_to_ham10000_is_one_line(
    tmp_path: Path, old: str, new: str, text: str, message: Message
) -> None:
    write_ham(tmp_path / "ham10000")
    table = tmp_path / "ham10000/HAM10000_metadata.csv"
    table.write_text(table.read_text().replace(old, new))
    found = message(Ham10000(), tmp_path)
    assert text in found
    assert found.endswith("fetch ham10000` says where to get it")


def test_sun397_whole_and_by_the_authors_partition(tmp_path: Path, message: Message) -> None:
    base = tmp_path / "sun397"
    names = ["/a/abbey", "/a/apartment_building/outdoor"]
    names += [f"/c/class{n:03}" for n in range(395)]
    picture(tmp_path / "one.jpg", 16, 16)
    for name in names:
        folder = base / "SUN397" / name[1:]
        folder.mkdir(parents=True, exist_ok=True)
        for n in range(10 if name == "/a/abbey" else 2):
            (folder / f"sun_{n}.jpg").hardlink_to(tmp_path / "one.jpg")
    (base / "SUN397/ClassName.txt").write_text("\n".join(names) + "\n")
    whole = Sun397(resolution=8).load(tmp_path)
    assert whole.classes[:2] == ("abbey", "apartment_building/outdoor")
    assert (len(whole.train), whole.test.labels.tolist()) == (8 + 396 * 2, [0, 0])

    (base / "Partitions").mkdir()
    for word, n in (("Training", 1), ("Testing", 0)):
        rows = [f"{name}/sun_{n}.jpg\n" for name in names]
        (base / f"Partitions/{word}_03.txt").write_text("".join(rows))
    published = Sun397(resolution=8, partition=3).load(tmp_path)
    assert published.train.labels.tolist() == published.test.labels.tolist() == list(range(397))

    found = message(Sun397(partition=4), tmp_path)
    assert "Partitions/Training_04.txt: no such file" in found
    (base / "Partitions/Testing_03.txt").write_text("/a/abbey/sun_77.jpg\n/x/y/sun_1.jpg\n")
    assert "Testing_03.txt:2: '/x/y' is not a class of ClassName.txt" in message(
        Sun397(partition=3), tmp_path
    )
    (base / "SUN397/ClassName.txt").write_text("/a/abbey\n")
    assert "ClassName.txt: expected 397 lines" in message(Sun397(), tmp_path)
