"""Rotated MNIST and EMNIST, small, in the original formats; damage is one line."""

from __future__ import annotations

import gzip
import hashlib
import struct
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fedbench_datasets.partitions import Domains
from fedbench_datasets.public import Mnist
from fedbench_datasets.public_mnist import EMNIST_CLASSES, Emnist, MnistRotated, rotated

pytestmark = pytest.mark.usefixtures("own_cache")

RNG = np.random.default_rng(5)
Message = Callable[[Any, Path], str]


def idx(array: np.ndarray) -> bytes:
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    return header + array.tobytes()


def write(folder: Path, prefixes: tuple[str, str], labels: np.ndarray) -> dict[str, np.ndarray]:
    """Write gzipped images and labels of both splits; return the images by split."""
    folder.mkdir(parents=True, exist_ok=True)
    images = {}
    for split, prefix in zip(("train", "test"), prefixes, strict=True):
        images[split] = RNG.integers(0, 256, (len(labels), 28, 28), dtype=np.uint8)
        for name, array in (("images-idx3", images[split]), ("labels-idx1", labels)):
            path = folder / f"{prefix}-{name}-ubyte.gz"
            path.write_bytes(gzip.compress(idx(array.astype(np.uint8))))
    return images


def write_mnist(folder: Path) -> dict[str, np.ndarray]:
    return write(folder, ("train", "t10k"), np.arange(60) % 10)


# Rotated MNIST


@pytest.mark.parametrize("folder", ["mnist-rotated", "mnist", "mnist/MNIST/raw"])
def test_each_digit_is_in_the_domain_of_one_angle(tmp_path: Path, folder: str) -> None:
    images = write_mnist(tmp_path / folder)["train"]
    data = MnistRotated(angles=(0, 90, 180)).load(tmp_path)
    assert data.domains == ("0", "90", "180")
    assert data.train.domains.bincount().tolist() == [20, 20, 20]
    for domain, turn in enumerate((0, 1, 2)):
        here = data.train[(data.train.domains == domain).nonzero().flatten()]
        assert here.labels.tolist() == [n % 10 for n in range(domain, 60, 3)]
        turned = np.rot90(images[domain::3], turn, axes=(1, 2))  # counter-clockwise
        assert np.array_equal(here.inputs.numpy(), turned[:, None])


def test_other_angles_leave_black_corners() -> None:
    turned = rotated(np.full((2, 28, 28), 200, np.uint8), 45.0)
    assert turned.shape == (2, 28, 28)
    assert turned[:, 0, 0].tolist() == [0, 0]
    assert turned[:, 14, 14].tolist() == [200, 200]


def test_names_of_domains_are_the_angles_and_clients_get_one_each(tmp_path: Path) -> None:
    write_mnist(tmp_path / "mnist")
    data = MnistRotated(angles=(-7.5, 7.5), resolution=32, rgb=True).load(tmp_path)
    assert data.domains == ("-7.5", "7.5")
    assert data.train.inputs.shape == (60, 3, 32, 32)
    parts = Domains(clients_per_domain=2).partition(data=data, rng=np.random.default_rng(0))
    assert [data.train.domains[part].unique().tolist() for part in parts] == [[0], [0], [1], [1]]


def test_an_angle_that_is_listed_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="an angle is listed twice"):
        MnistRotated(angles=(15.0, 30.0, 15.0))


def test_missing_files_are_those_of_the_data_sets_own_folder(
    tmp_path: Path, message: Message
) -> None:
    text = message(MnistRotated(), tmp_path)
    assert f"{tmp_path}/mnist-rotated/train-images-idx3-ubyte.gz: no such file" in text
    assert text.endswith("fetch mnist-rotated` downloads it")
    assert MnistRotated.downloads == Mnist.downloads


# EMNIST


def write_emnist(folder: Path, split: str, first: int = 0) -> dict[str, np.ndarray]:
    labels = np.arange(len(EMNIST_CLASSES[split])) + first
    return write(folder, (f"emnist-{split}-train", f"emnist-{split}-test"), labels)


@pytest.mark.parametrize("split", EMNIST_CLASSES)
@pytest.mark.parametrize("inside", ["", "gzip", "raw", "EMNIST/raw"])
def test_every_split_is_read_upright_with_its_classes(
    tmp_path: Path, split: Any, inside: str
) -> None:
    images = write_emnist(tmp_path / "emnist" / inside, split, first=int(split == "letters"))
    data = Emnist(split).load(tmp_path)
    assert data.classes == EMNIST_CLASSES[split]
    for name, examples in (("train", data.train), ("test", data.test)):
        assert examples.labels.tolist() == list(range(len(data.classes)))
        assert np.array_equal(examples.inputs.numpy()[:, 0], images[name].transpose(0, 2, 1))


def test_classes_are_those_that_torchvision_names() -> None:
    from torchvision.datasets import EMNIST

    for split, classes in EMNIST_CLASSES.items():
        theirs = [name for name in EMNIST.classes_split_dict[split] if name != "N/A"]
        assert list(classes) == theirs
    (download,) = Emnist.downloads
    assert download.urls == (EMNIST.url,)
    assert download.checksum == f"md5:{EMNIST.md5}"


def test_letters_are_numbered_from_one_in_their_files(tmp_path: Path, message: Message) -> None:
    write_emnist(tmp_path / "emnist", "letters", first=0)
    text = message(Emnist("letters"), tmp_path)
    assert "expected labels of 26 classes, found -1 to 24" in text


def test_another_split_than_the_files_is_named(tmp_path: Path, message: Message) -> None:
    write_emnist(tmp_path / "emnist", "digits")
    text = message(Emnist("balanced"), tmp_path)
    assert "emnist/emnist-balanced-train-images-idx3-ubyte.gz: no such file" in text
    assert text.endswith("fetch emnist` downloads it")


def test_the_archive_is_fetched_and_unpacked_with_all_splits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = {split: write_emnist(tmp_path / "gzip", split) for split in ("digits", "mnist")}
    archive = tmp_path / "gzip.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        for file in sorted((tmp_path / "gzip").iterdir()):
            packed.write(file, f"gzip/{file.name}")
    md5 = hashlib.md5(archive.read_bytes(), usedforsecurity=False).hexdigest()
    published = replace(Emnist.downloads[0], urls=(archive.as_uri(),), checksum=f"md5:{md5}")
    monkeypatch.setattr(Emnist, "downloads", (published,))
    root = tmp_path / "data"
    Emnist().fetch(root, lambda what, done, total: None)
    for split in ("digits", "mnist"):
        data = Emnist(split).load(root)  # type: ignore[arg-type]
        assert np.array_equal(
            data.test.inputs.numpy()[:, 0], images[split]["test"].transpose(0, 2, 1)
        )
