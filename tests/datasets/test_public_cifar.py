"""CIFAR from its published pickles; a file that is not the published one is never unpickled."""

from __future__ import annotations

import builtins
import hashlib
import io
import os
import pickle
import struct
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fedbench_datasets.public import Cifar10, Cifar100

pytestmark = pytest.mark.usefixtures("own_cache")

RNG = np.random.default_rng(5)
ARCHIVE = "cifar10/cifar-10-python.tar.gz"
FOLDER = "cifar10/cifar-10-batches-py"

Batch = Mapping[str, Any]
Message = Callable[[Any, Path], str]


def pictures(count: int) -> np.ndarray:
    return RNG.integers(0, 256, (count, 3072), dtype=np.uint8)


def python2_pickle(batch: Batch) -> bytes:
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


def cifar10_batches() -> dict[str, Batch]:
    batches: dict[str, Batch] = {
        name: {
            "batch_label": name,
            "labels": list(range(10)),
            "data": pictures(10),
            "filenames": [f"{n}.png" for n in range(10)],
        }
        for name in (*Cifar10.batches["train"], *Cifar10.batches["test"])
    }
    names = [f"kind {n}" for n in range(10)]
    batches["batches.meta"] = {"num_cases_per_batch": 10, "label_names": names}
    return batches


@pytest.fixture
def publish(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Declare the checksums of small files the published ones: ``publish(cls, files)``."""

    def patch(cls: type[Cifar10], files: Mapping[str, bytes]) -> None:
        checksums = {name: hashlib.md5(content).hexdigest() for name, content in files.items()}
        assert set(checksums) == set(cls.checksums)
        monkeypatch.setattr(cls, "checksums", checksums)

    return patch


@pytest.fixture
def batches() -> dict[str, Batch]:
    return cifar10_batches()


@pytest.fixture
def files(batches: Mapping[str, Batch], publish: Callable[..., None]) -> dict[str, bytes]:
    """Return CIFAR-10's files with ten images per batch, declared the published ones."""
    found = {name: python2_pickle(batch) for name, batch in batches.items()}
    publish(Cifar10, found)
    return found


def write_tar(path: Path, folder: str, files: Mapping[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(f"{folder}/{name}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def write_archive(root: Path, files: Mapping[str, bytes]) -> str:
    """Write CIFAR-10's archive; return how an error names a file in it, before the name."""
    write_tar(root / ARCHIVE, "cifar-10-batches-py", files)
    return f"{root / ARCHIVE}: cifar-10-batches-py/"


def write_folder(root: Path, files: Mapping[str, bytes]) -> str:
    """Write the folder that unpacking leaves; return how an error names a file in it."""
    (root / FOLDER).mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (root / FOLDER / name).write_bytes(content)
    return f"{root / FOLDER}/"


FORMS = [(write_archive, ARCHIVE), (write_folder, FOLDER)]


@pytest.mark.parametrize("write", [write_archive, write_folder])
def test_cifar10_from_the_archive_and_from_its_folder(
    tmp_path: Path, batches: Mapping[str, Batch], files: dict[str, bytes], write: Callable[..., str]
) -> None:
    write(tmp_path, files)
    data = Cifar10().load(tmp_path)
    assert data.classes == tuple(f"kind {n}" for n in range(10))
    assert data.domains == ("cifar10",)
    assert data.train.inputs.shape == (50, 3, 32, 32)
    assert data.test.inputs.shape == (10, 3, 32, 32)
    for number in range(5):
        images = data.train.inputs[10 * number : 10 * number + 10].reshape(10, 3072).numpy()
        assert np.array_equal(images, batches[f"data_batch_{number + 1}"]["data"])
    assert np.array_equal(data.test.inputs.reshape(10, 3072).numpy(), batches["test_batch"]["data"])
    assert torch.equal(data.train.labels, torch.arange(10).repeat(5))
    assert torch.equal(data.test.labels, torch.arange(10))


def test_cifar100(tmp_path: Path, publish: Callable[..., None]) -> None:
    def batch() -> dict[str, Any]:
        fine = list(range(100))
        coarse = [n // 5 for n in fine]
        return {"fine_labels": fine, "coarse_labels": coarse, "data": pictures(100)}

    meta = {"fine_label_names": [f"f{n}" for n in range(100)], "coarse_label_names": ["c"] * 20}
    batches: dict[str, Batch] = {"train": batch(), "test": batch(), "meta": meta}
    files = {name: python2_pickle(value) for name, value in batches.items()}
    publish(Cifar100, files)
    write_tar(tmp_path / "cifar100/cifar-100-python.tar.gz", "cifar-100-python", files)
    data = Cifar100().load(tmp_path)
    assert data.classes == tuple(f"f{n}" for n in range(100))
    assert data.train.labels.tolist() == list(range(100))
    assert np.array_equal(data.test.inputs.numpy().reshape(100, 3072), batches["test"]["data"])


class Calls:
    """Pickles as a call of a function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


def evil(target: Path) -> dict[str, bytes]:
    """Return pickles that create the file ``target`` when they are opened."""
    touch = f"open({str(target)!r}, 'w').close()"
    return {
        "os.system": pickle.dumps(Calls(os.system, f"touch {target}")),
        "eval": pickle.dumps({"data": Calls(builtins.eval, touch)}),
        "exec in a list": pickle.dumps([1, [Calls(builtins.exec, touch)]], protocol=2),
        "protocol 0": f"cposix\nsystem\n(S'touch {target}'\ntR.".encode(),
        "instance": f"(S'touch {target}'\nios\nsystem\n.".encode(),
    }


@pytest.mark.parametrize("kind", list(evil(Path("x"))))
def test_the_hostile_pickles_of_these_tests_do_run_when_they_are_opened(
    tmp_path: Path, kind: str
) -> None:
    target = tmp_path / "executed"
    pickle.loads(evil(target)[kind])
    assert target.exists()


@pytest.mark.parametrize("kind", list(evil(Path("x"))))
@pytest.mark.parametrize("name", ["batches.meta", "data_batch_1", "test_batch"])
@pytest.mark.parametrize("write", [write_archive, write_folder])
def test_a_hostile_pickle_is_named_and_executes_nothing(
    tmp_path: Path,
    files: dict[str, bytes],
    message: Message,
    write: Callable[..., str],
    name: str,
    kind: str,
) -> None:
    target = tmp_path / "executed"
    files[name] = evil(target)[kind]
    before = write(tmp_path, files)
    assert f"cifar10: {before}{name}: expected MD5 " in message(Cifar10(), tmp_path)
    assert not target.exists()


@pytest.mark.parametrize(("write", "place"), FORMS)
def test_an_altered_batch_is_named_with_both_checksums_and_what_to_do(
    tmp_path: Path, files: dict[str, bytes], message: Message, write: Callable[..., str], place: str
) -> None:
    expected = hashlib.md5(files["data_batch_3"]).hexdigest()
    files["data_batch_3"] = files["data_batch_3"][:-1]
    found = hashlib.md5(files["data_batch_3"]).hexdigest()
    before = write(tmp_path, files)
    assert message(Cifar10(), tmp_path) == (
        f"cifar10: {before}data_batch_3: expected MD5 {expected}, found {found}: not the published "
        f"file, and only that one is safe to unpickle; remove {tmp_path / place} and get it again; "
        f"`fedbench data --data-root {tmp_path} fetch cifar10` downloads it"
    )
    assert not [path for path in (tmp_path / ".cache/cifar10").iterdir() if len(path.name) == 64]


def test_a_cut_or_incomplete_archive_or_folder_is_named(
    tmp_path: Path, files: dict[str, bytes], message: Message
) -> None:
    path = tmp_path / ARCHIVE
    assert f"{path}: no such file" in message(Cifar10(), tmp_path)
    fewer = {name: content for name, content in files.items() if name != "data_batch_4"}
    write_archive(tmp_path, fewer)
    assert "truncated, or another archive: no cifar-10-batches-py/data_batch_4" in message(
        Cifar10(), tmp_path
    )
    write_archive(tmp_path, files)
    path.write_bytes(path.read_bytes()[:2000])
    assert f"{path}: truncated or damaged archive" in message(Cifar10(), tmp_path)
    path.write_bytes(b"not an archive")
    assert f"{path}: truncated or damaged archive" in message(Cifar10(), tmp_path)
    write_folder(tmp_path, fewer)
    assert f"{tmp_path / FOLDER}/data_batch_4: no such file" in message(Cifar10(), tmp_path)
