"""Data sets of arrays, read from small files in the original formats; every damage is one line.

Long, since every data set's original format is made here and broken here.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import pickle
import struct
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fedbench_datasets import reading, unpickling
from fedbench_datasets.caching import ReadError
from fedbench_datasets.public import Cifar10, Cifar100, FashionMnist, Mnist
from fedbench_datasets.public_domains import DigitsFull
from PIL import Image
from scipy.io import savemat

RNG = np.random.default_rng(5)
LABELS = {"train": list(range(10)) * 2, "test": list(range(10))[::-1]}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user-cache"))
    monkeypatch.delenv("FEDBENCH_DATA", raising=False)


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


# MNIST and its kin


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


def message(dataset: Any, root: Path) -> str:
    from fedbench import ConfigError

    with pytest.raises(ConfigError) as raised:
        dataset.load(root)
    text = str(raised.value)
    assert "\n" not in text
    return text


TRAIN = "train-images-idx3-ubyte.gz"


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        (TRAIN, None, f"mnist/{TRAIN}: no such file"),
        (TRAIN, b"<html>404</html>", f"{TRAIN}: is no IDX file"),
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
    tmp_path: Path, name: str, content: bytes | None, expected: str
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
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEDBENCH_DATA", str(tmp_path))
    assert "`fedbench data fetch mnist`" in message(Mnist(), tmp_path)


# CIFAR


def python2_pickle(batch: Mapping[str, Any]) -> bytes:
    """Pickle as Python 2's cPickle with protocol 2 did: byte strings, NumPy's old module names."""

    def string(text: bytes) -> bytes:
        if len(text) < 256:
            return b"U" + bytes([len(text)]) + text
        return b"T" + struct.pack("<i", len(text)) + text

    def put(value: Any) -> bytes:
        if isinstance(value, np.ndarray):
            kind = b"cnumpy\ndtype\n" + string(b"u1") + b"K\x00K\x01\x87R"
            state = b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
            shape = b"".join(b"M" + struct.pack("<H", n) for n in value.shape)
            return (
                b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
                + b"(K\x01("
                + shape
                + b"t"
                + kind
                + state
                + b"\x89"
                + string(value.tobytes())
                + b"tb"
            )
        if isinstance(value, list):
            return b"](" + b"".join(put(v) for v in value) + b"e"
        if isinstance(value, int):
            return b"K" + bytes([value])
        return string(value.encode("latin-1"))

    items = b"".join(string(k.encode()) + put(v) for k, v in batch.items())
    return b"\x80\x02}(" + items + b"u."


def python3_pickle(protocol: int) -> Callable[[Mapping[str, Any]], bytes]:
    return lambda batch: pickle.dumps(dict(batch), protocol=protocol)


PICKLERS = [python2_pickle, python3_pickle(2), python3_pickle(4)]


def cifar10_files(dump: Callable[[Mapping[str, Any]], bytes]) -> dict[str, bytes]:
    files = {}
    for name in (*Cifar10.batches["train"], *Cifar10.batches["test"]):
        files[name] = dump(
            {
                "batch_label": name,
                "labels": list(range(10)),
                "data": pictures(10, 3072),
                "filenames": [f"{n}.png" for n in range(10)],
            }
        )
    files["batches.meta"] = dump(
        {"num_cases_per_batch": 10, "label_names": [f"kind {n}" for n in range(10)]}
    )
    return files


def write_tar(path: Path, folder: str, files: Mapping[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(f"{folder}/{name}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


@pytest.mark.parametrize("dump", [python2_pickle, python3_pickle(4)])
def test_cifar10_from_the_archive_and_from_its_folder(
    tmp_path: Path, dump: Callable[[Mapping[str, Any]], bytes]
) -> None:
    files = cifar10_files(dump)
    write_tar(tmp_path / "a/cifar10/cifar-10-python.tar.gz", "cifar-10-batches-py", files)
    folder = tmp_path / "b/cifar10/cifar-10-batches-py"
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    packed, loose = Cifar10().load(tmp_path / "a"), Cifar10().load(tmp_path / "b")
    plain = pickle.loads(files["data_batch_2"], encoding="latin-1")
    assert np.array_equal(packed.train.inputs[10:20].reshape(10, 3072).numpy(), plain["data"])
    assert packed.train.inputs.shape == (50, 3, 32, 32)
    assert packed.test.inputs.shape == (10, 3, 32, 32)
    assert packed.classes == tuple(f"kind {n}" for n in range(10))
    assert torch.equal(packed.train.inputs, loose.train.inputs)
    assert torch.equal(packed.test.labels, torch.arange(10))


def test_cifar100(tmp_path: Path) -> None:
    def batch() -> dict[str, Any]:
        fine = list(range(100))
        data = pictures(100, 3072)
        return {"fine_labels": fine, "coarse_labels": [n // 5 for n in fine], "data": data}

    meta = {"fine_label_names": [f"f{n}" for n in range(100)], "coarse_label_names": ["c"] * 20}
    files = {"train": batch(), "test": batch(), "meta": meta}
    write_tar(
        tmp_path / "cifar100/cifar-100-python.tar.gz",
        "cifar-100-python",
        {name: python2_pickle(value) for name, value in files.items()},
    )
    data = Cifar100().load(tmp_path)
    assert len(data.classes) == 100
    assert data.train.labels.tolist() == list(range(100))
    assert np.array_equal(
        data.test.inputs.numpy().reshape(100, 3072), np.asarray(files["test"]["data"])
    )


@pytest.mark.parametrize(
    ("name", "change", "expected"),
    [
        ("data_batch_3", {"data": pictures(9, 3072)}, "data_batch_3: expected 'data' (n, 3072)"),
        ("data_batch_3", {"data": pictures(10, 3071)}, "data_batch_3: expected 'data' (n, 3072)"),
        ("data_batch_3", {"data": [1, 2]}, "data_batch_3: expected 'data' (n, 3072)"),
        (
            "test_batch",
            {"labels": [10] * 10},
            "test_batch: expected labels of 10 classes, found 10",
        ),
        (
            "test_batch",
            {"labels": [3] * 10},
            "test_batch: expected examples of 10 classes, found 1",
        ),
        ("batches.meta", {"label_names": ["a", "b"]}, "names of 10 classes, found 2"),
    ],
)
def test_a_wrong_cifar_batch_is_named(
    tmp_path: Path, name: str, change: dict[str, Any], expected: str
) -> None:
    files = cifar10_files(python3_pickle(2))
    files[name] = pickle.dumps({**pickle.loads(files[name]), **change}, protocol=2)
    write_tar(tmp_path / "cifar10/cifar-10-python.tar.gz", "cifar-10-batches-py", files)
    assert expected in message(Cifar10(), tmp_path)


def test_a_cut_or_incomplete_cifar_archive_is_named(tmp_path: Path) -> None:
    path = tmp_path / "cifar10/cifar-10-python.tar.gz"
    assert "cifar-10-python.tar.gz: no such file" in message(Cifar10(), tmp_path)
    files = cifar10_files(python2_pickle)
    del files["data_batch_4"]
    write_tar(path, "cifar-10-batches-py", files)
    assert "truncated, or another archive: no cifar-10-batches-py/data_batch_4" in message(
        Cifar10(), tmp_path
    )
    write_tar(path, "cifar-10-batches-py", cifar10_files(python2_pickle))
    path.write_bytes(path.read_bytes()[:2000])
    assert f"{path}: truncated or damaged archive" in message(Cifar10(), tmp_path)
    path.write_bytes(b"not an archive")
    assert f"{path}: truncated or damaged archive" in message(Cifar10(), tmp_path)


# pickles


@pytest.mark.parametrize("dump", PICKLERS)
def test_arrays_and_containers_come_out_of_a_pickle(dump: Any) -> None:
    batch = {"data": pictures(2, 3), "labels": [1, 2], "name": "é"}
    found = unpickling.loads(dump(batch))
    assert np.array_equal(found.pop("data"), batch.pop("data"))
    assert found == batch


def test_dtypes_orders_and_shapes_survive() -> None:
    arrays = [
        np.arange(6, dtype=">i4").reshape(2, 3),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.array([True, False]),
        np.zeros((0, 4), dtype=np.int64),
    ]
    for found, array in zip(
        unpickling.loads(pickle.dumps(arrays, protocol=4)), arrays, strict=True
    ):
        assert found.dtype == array.dtype
        assert np.array_equal(found, array)


class Calls:
    """Pickles as a call of a function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


def evil(target: Path) -> dict[str, bytes]:
    import builtins
    import os

    touch = f"open({str(target)!r}, 'w')"
    command = f"cposix\nsystem\n(S'touch {target}'\ntR.".encode()
    return {
        "os.system": pickle.dumps(Calls(os.system, f"touch {target}")),
        "eval": pickle.dumps({"data": Calls(builtins.eval, touch)}),
        "exec in a list": pickle.dumps([1, [Calls(builtins.exec, touch)]], protocol=2),
        "protocol 0": command,
        "getattr": pickle.dumps(Calls(builtins.getattr, "", "join")),
        "numpy.load": b"cnumpy\nload\n(S'" + str(target).encode() + b"'\ntR.",
        "a submodule": b"cnumpy.core.multiarray\nsomething\n.",
        "instance": b"(S'touch x'\nios\nsystem\n.",
        "stack global": b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x01x\x85R.",
        "array of objects": pickle.dumps(np.array([Path("x")], dtype=object)),
        "array of None": pickle.dumps(np.array([None])),
        "structured array": pickle.dumps(np.zeros(2, dtype=[("a", "i4")])),
        "dates": pickle.dumps(np.array(["2020-01-01"], dtype="datetime64[D]")),
        "array class": b"cnumpy\ndtype\n(S'O8'\nI0\nI1\ntR.",
        "attributes of a stand-in": b"cnumpy\nndarray\n(dS'a'\nI1\nsb.",
        "slots of a stand-in": b"cnumpy.core.multiarray\n_reconstruct\n(N}S'x'\nI1\nstb.",
        "array of another class": b"cnumpy.core.multiarray\n_reconstruct\n(I1\n(I0\ntS'b'\ntR.",
        "bare name": b"cnumpy\nndarray\n.",
        "persistent": b"Psomething\n.",
        "extension": b"\x80\x02\x82\x01.",
        "set": pickle.dumps({1, 2}, protocol=2),
        "object": pickle.dumps(Path("x")),
        "protocol 5": pickle.dumps(np.arange(3), protocol=5),
        "buffer out of band": pickle.dumps(
            np.zeros(4, np.uint8), protocol=5, buffer_callback=lambda buffer: None
        ),
    }


@pytest.mark.parametrize("kind", list(evil(Path("x"))))
def test_a_pickle_of_anything_else_is_refused_and_runs_nothing(tmp_path: Path, kind: str) -> None:
    target = tmp_path / "executed"
    with pytest.raises(pickle.UnpicklingError):
        unpickling.loads(evil(target)[kind])
    assert not target.exists()
    # and what was refused has left nothing behind
    assert unpickling.loads(pickle.dumps(np.arange(3), protocol=4)).tolist() == [0, 1, 2]


def test_a_malicious_batch_is_named_and_executes_nothing(tmp_path: Path) -> None:
    target = tmp_path / "executed"
    files = cifar10_files(python2_pickle)
    files["data_batch_1"] = evil(target)["os.system"]
    write_tar(tmp_path / "cifar10/cifar-10-python.tar.gz", "cifar-10-batches-py", files)
    text = message(Cifar10(), tmp_path)
    assert "data_batch_1: refused, not a data file: it names posix.system" in text
    assert not target.exists()


def test_every_cut_of_a_pickle_is_one_kind_of_error() -> None:
    whole = python2_pickle({"data": pictures(3, 5), "labels": [1, 2, 3]})
    for end in range(len(whole)):
        with pytest.raises(pickle.UnpicklingError):
            unpickling.loads(whole[:end])


def test_flipped_bytes_in_a_pickle_never_escape() -> None:
    whole = python2_pickle({"data": pictures(3, 5), "labels": [1, 2, 3]})
    for place in range(len(whole)):
        for value in (0x00, 0x2E, 0x52, 0x62, 0x63, 0xFF):
            changed = whole[:place] + bytes([value]) + whole[place + 1 :]
            with contextlib.suppress(pickle.UnpicklingError):
                unpickling.loads(changed)


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
    digits: Path, name: str, damage: Callable[[Path], object], expected: str
) -> None:
    damage(digits / "digits-full" / name)
    text = message(DigitsFull(), digits)
    assert expected in text
    assert text.endswith("fetch digits-full` downloads what it may and says where to get the rest")


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
