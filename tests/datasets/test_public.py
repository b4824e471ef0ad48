"""IDX files and the four digit domains, small, in their original formats; damage is one line."""

from __future__ import annotations

import bz2
import gzip
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fedbench_datasets import reading
from fedbench_datasets.caching import ReadError
from fedbench_datasets.public import FashionMnist, Mnist
from fedbench_datasets.public_domains import DigitsFull
from PIL import Image
from scipy.io import savemat

pytestmark = pytest.mark.usefixtures("own_cache")

RNG = np.random.default_rng(5)
Message = Callable[[Any, Path], str]

LABELS = {"train": list(range(10)) * 2, "test": list(range(10))[::-1]}


def pictures(count: int, *shape: int) -> np.ndarray:
    return RNG.integers(0, 256, (count, *shape), dtype=np.uint8)


def idx(array: np.ndarray) -> bytes:
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    return header + array.tobytes()


def write_idx(folder: Path, packed: bool = True) -> dict[str, np.ndarray]:
    """Write the four files of an MNIST-like set; return the images by split."""
    folder.mkdir(parents=True, exist_ok=True)
    images = {}
    for split, part in (("train", "train"), ("test", "t10k")):
        images[split] = pictures(len(LABELS[split]), 28, 28)
        labels = np.array(LABELS[split], dtype=np.uint8)
        for name, array in (("images-idx3", images[split]), ("labels-idx1", labels)):
            data = idx(array)
            path = folder / f"{part}-{name}-ubyte{'.gz' if packed else ''}"
            path.write_bytes(gzip.compress(data) if packed else data)
    return images


# IDX files


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize(
    ("cls", "inside"),
    [
        (Mnist, "mnist"),
        (Mnist, "mnist/raw"),
        (Mnist, "mnist/MNIST/raw"),
        (FashionMnist, "fashion-mnist"),
        (FashionMnist, "fashion-mnist/FashionMNIST/raw"),
    ],
)
def test_idx_files_are_read_byte_for_byte(
    tmp_path: Path, cls: type[Mnist], inside: str, packed: bool
) -> None:
    images = write_idx(tmp_path / inside, packed)
    data = cls().load(tmp_path)
    assert data.classes == cls.classes
    assert data.domains == (cls.name,)
    for split, examples in (("train", data.train), ("test", data.test)):
        assert examples.inputs.dtype == torch.uint8
        assert np.array_equal(examples.inputs.numpy(), images[split][:, None])
        assert examples.labels.tolist() == LABELS[split]
        assert examples.domains.unique().tolist() == [0]


def test_resizing_equals_torchvisions_on_the_image(tmp_path: Path) -> None:
    from torchvision.transforms import Resize

    images = write_idx(tmp_path / "mnist")["test"]
    data = Mnist(resolution=32, rgb=True).load(tmp_path)
    assert data.test.inputs.shape == (10, 3, 32, 32)
    for ours, original in zip(data.test.inputs.numpy(), images, strict=True):
        theirs = np.asarray(Resize((32, 32))(Image.fromarray(original)))
        assert all(np.array_equal(channel, theirs) for channel in ours)


def test_every_cut_of_an_idx_file_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "x"
    whole = idx(pictures(2, 3, 3))
    for data in (whole, gzip.compress(whole)):
        for end in range(len(data)):
            path.write_bytes(data[:end])
            with pytest.raises(ReadError) as raised:
                reading.idx(path, 3)
            assert str(raised.value).startswith(f"{path}: ")
            assert "\n" not in str(raised.value)


TRAIN = "train-images-idx3-ubyte.gz"


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        (TRAIN, None, f"mnist/{TRAIN}: no such file"),
        (TRAIN, b"<html>404</html>", f"{TRAIN}: not an IDX file"),
        (TRAIN, gzip.compress(idx(pictures(20, 28, 28)))[:-9], "truncated or damaged gzip file"),
        (
            TRAIN,
            gzip.compress(idx(pictures(20, 28, 28))[:-1]),
            f"{TRAIN}: truncated: expected 15696 bytes for 20 x 28 x 28, found 15695",
        ),
        (TRAIN, idx(pictures(20, 28, 28)) + b"x", "too long: expected 15696 bytes"),
        (TRAIN, idx(pictures(20)), "expected an IDX file of bytes (type 8) in 3 dimensions"),
        (TRAIN, idx(pictures(19, 28, 28)), "20 labels for 19 images in "),
        (
            "train-labels-idx1-ubyte.gz",
            idx(np.arange(20, dtype=np.uint8)),
            "train-labels-idx1-ubyte.gz: expected labels of 10 classes, found 0 to 19",
        ),
        (
            "t10k-labels-idx1-ubyte.gz",
            idx(np.arange(10, dtype=np.uint8) % 9),
            "t10k-labels-idx1-ubyte.gz: expected examples of 10 classes, found 9",
        ),
    ],
)
def test_a_bad_idx_file_is_named(
    tmp_path: Path, message: Message, name: str, content: bytes | None, expected: str
) -> None:
    write_idx(tmp_path / "mnist")
    path = tmp_path / "mnist" / name
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    text = message(Mnist(), tmp_path)
    assert text.startswith(f"mnist: {tmp_path}")
    assert expected in text
    assert text.endswith(f"; `fedbench data --data-root {tmp_path} fetch mnist` downloads it")


def test_the_hint_names_the_root_only_when_it_is_not_the_default(
    tmp_path: Path, message: Message, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEDBENCH_DATA", str(tmp_path))
    assert "`fedbench data fetch mnist`" in message(Mnist(), tmp_path)


# the four original digit domains


def libsvm(labels: list[int], values: int = 256) -> bytes:
    rows = []
    for label in labels:
        pixels = RNG.uniform(-1, 1, values)
        text = " ".join(f"{n}:{value:.6f}" for n, value in enumerate(pixels, 1))
        rows.append(f"{label + 1} {text} \n")
    return bz2.compress("".join(rows).encode())


def mat(path: Path, labels: list[int], **change: Any) -> np.ndarray:
    images = pictures(len(labels), 32, 32, 3).transpose(1, 2, 3, 0)
    numbers = np.array([[n or 10] for n in labels], dtype=np.uint8)
    savemat(path, {"X": images, "y": numbers, **change}, format="5", do_compression=True)
    return images


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    base = tmp_path / "digits-full"
    write_idx(base / "MNIST")
    for name in ("USPS", "SVHN"):
        (base / name).mkdir()
    (base / "USPS/usps.bz2").write_bytes(libsvm(LABELS["train"]))
    (base / "USPS/usps.t.bz2").write_bytes(libsvm(LABELS["test"]))
    for split in ("train", "test"):
        mat(base / f"SVHN/{split}_32x32.mat", LABELS[split])
        for digit in range(10):
            folder = base / "SYN" / split / str(digit)
            folder.mkdir(parents=True)
            for n in range(2):
                Image.fromarray(pictures(1, 32, 32, 3)[0]).save(folder / f"{n}.png")
    return tmp_path


def test_digits_full_has_four_domains_in_one_shape(digits: Path) -> None:
    images = mat(digits / "digits-full/SVHN/test_32x32.mat", LABELS["test"])
    data = DigitsFull().load(digits)
    assert data.domains == ("mnist", "usps", "svhn", "syn")
    assert data.classes == tuple("0123456789")
    assert data.train.inputs.shape == (80, 3, 32, 32)
    assert data.train.domains.bincount().tolist() == [20, 20, 20, 20]
    assert data.test.domains.bincount().tolist() == [10, 10, 10, 20]
    svhn = data.test[(data.test.domains == 2).nonzero().flatten()]
    assert svhn.labels.tolist() == LABELS["test"]
    assert np.array_equal(svhn.inputs.numpy(), images.transpose(3, 2, 0, 1))
    syn = data.test[(data.test.domains == 3).nonzero().flatten()]
    with Image.open(digits / "digits-full/SYN/test/7/1.png") as picture:
        assert np.array_equal(syn.inputs[15].numpy(), np.asarray(picture).transpose(2, 0, 1))
    assert syn.labels[15] == 7


def test_usps_is_read_as_torchvision_reads_it(digits: Path) -> None:
    from torchvision.datasets import USPS
    from torchvision.transforms import Resize

    data = DigitsFull().load(digits)
    original = USPS(str(digits / "digits-full/USPS"), train=True)
    first = np.asarray(Resize((32, 32))(Image.fromarray(original.data[0])))
    usps = data.train[(data.train.domains == 1).nonzero().flatten()]
    assert np.array_equal(usps.inputs[0].numpy(), np.stack([first] * 3))
    assert usps.labels.tolist() == LABELS["train"]


def test_mnist_and_the_test_folder_may_be_elsewhere(digits: Path) -> None:
    before = DigitsFull().load(digits)
    base = digits / "digits-full"
    (base / "MNIST").rename(digits / "mnist")
    (base / "SYN/test").rename(base / "SYN/val")
    after = DigitsFull().load(digits)
    assert torch.equal(before.train.inputs, after.train.inputs)
    assert torch.equal(before.test.inputs, after.test.inputs)


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


DAMAGES: list[tuple[str, Callable[[Path], object], str]] = [
    ("USPS/usps.bz2", lambda p: p.unlink(), "USPS/usps.bz2: no such file"),
    (
        "USPS/usps.bz2",
        lambda p: p.write_bytes(cut(p.read_bytes())),
        "usps.bz2: truncated or damaged: expected bzip2 lines",
    ),
    (
        "USPS/usps.t.bz2",
        lambda p: p.write_bytes(libsvm(LABELS["test"], values=255)),
        "usps.t.bz2: truncated or damaged",
    ),
    (
        "USPS/usps.t.bz2",
        lambda p: p.write_bytes(bz2.compress(bz2.decompress(p.read_bytes())[:-700])),
        "usps.t.bz2: truncated or damaged",
    ),
    (
        "USPS/usps.bz2",
        lambda p: p.write_bytes(libsvm([1, 2, 3])),
        "usps.bz2: expected examples of 10 classes, found 3",
    ),
    ("SVHN/test_32x32.mat", lambda p: p.unlink(), "SVHN/test_32x32.mat: no such file"),
    (
        "SVHN/test_32x32.mat",
        lambda p: p.write_bytes(cut(p.read_bytes())),
        "test_32x32.mat: truncated or damaged .mat file",
    ),
    ("SVHN/test_32x32.mat", lambda p: p.write_bytes(b"x" * 300), "truncated or damaged .mat file"),
    (
        "SVHN/test_32x32.mat",
        lambda p: mat(p, LABELS["test"], y=np.ones((3, 1))),
        "expected X (32, 32, 3, n) of bytes and y (n, 1)",
    ),
    (
        "SVHN/test_32x32.mat",
        lambda p: savemat(p, {"X": np.zeros((32, 32, 3, 1), np.uint8)}),
        "expected X (32, 32, 3, n) of bytes and y (n, 1)",
    ),
    (
        "SVHN/test_32x32.mat",
        lambda p: mat(p, [1, 2]),
        "test_32x32.mat: expected examples of 10 classes, found 2",
    ),
    (
        "SYN/train/4",
        lambda p: p.rename(p.with_name("four")),
        "SYN/train: expected class folders 0 to 9, found 0, 1, 2, 3, 5, 6, 7, 8, 9, four",
    ),
    (
        "SYN/train/4",
        lambda p: p.rename(p.parents[1] / "4"),
        "SYN/train: expected 10 class folders, found 9: 0, 1,",
    ),
    (
        "SYN/test/3/0.png",
        lambda p: p.write_bytes(cut(p.read_bytes())),
        "SYN/test/3/0.png: truncated or damaged image (",
    ),
    ("SYN/train", lambda p: p.rename(p.with_name("t")), "SYN/train: no such folder"),
]


@pytest.mark.parametrize(("name", "damage", "expected"), DAMAGES)
def test_damage_to_digits_full_is_one_line(
    digits: Path,
    message: Message,
    name: str,
    damage: Callable[[Path], object],
    expected: str,
) -> None:
    damage(digits / "digits-full" / name)
    text = message(DigitsFull(), digits)
    assert expected in text
    assert text.endswith("fetch digits-full` downloads what it can and says where to get the rest")


def test_every_cut_of_a_mat_file_is_one_kind_of_error(tmp_path: Path) -> None:
    path = tmp_path / "x.mat"
    mat(path, LABELS["test"])
    whole = path.read_bytes()
    for end in (*range(0, 400, 7), *range(400, len(whole) - 1, len(whole) // 15)):
        path.write_bytes(whole[:end])
        with pytest.raises(ReadError) as raised:
            reading.mat_digits(path)
        assert str(raised.value).startswith(f"{path}: ")


def test_a_flipped_bit_in_a_gzip_file_is_found(tmp_path: Path) -> None:
    path = tmp_path / "x.gz"
    whole = bytearray(gzip.compress(idx(pictures(4, 3, 3))))
    for place in range(12, len(whole)):
        changed = whole.copy()
        changed[place] ^= 1
        path.write_bytes(changed)
        with pytest.raises(ReadError):
            reading.idx(path, 3)
