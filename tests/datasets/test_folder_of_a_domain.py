"""Folders of your own images whose only domain, or all of them, is below the splits."""

from __future__ import annotations

from pathlib import Path

import pytest
from fedbench_datasets.image_folder import ImageFolder
from PIL import Image

from fedbench.types import Dataset, Examples

pytestmark = pytest.mark.usefixtures("own_cache")


def tree(base: Path, *folders: str) -> Path:
    """Write two images into each folder below ``base``."""
    for number, folder in enumerate(folders):
        (base / folder).mkdir(parents=True, exist_ok=True)
        for n in range(2):
            Image.new("RGB", (9, 9), (number, n, 0)).save(base / folder / f"{n}.png")
    return base


def load(path: Path) -> Dataset:
    return ImageFolder(path=str(path), resolution=8).load(path.parent / "root")


def held(data: Dataset, examples: Examples) -> dict[str, int]:
    """Return class -> how many examples."""
    counts = examples.labels.bincount(minlength=len(data.classes)).tolist()
    return {name: count for name, count in zip(data.classes, counts, strict=True) if count}


@pytest.mark.parametrize("test", ["test", "val"])
def test_the_only_folder_below_the_splits_is_the_domain(
    tmp_path: Path, test: str, capsys: pytest.CaptureFixture[str]
) -> None:
    base = tree(tmp_path / "mine", "train/ink/cat", "train/ink/dog/deep", f"{test}/ink/dog")
    data = load(base)
    assert data.domains == ("ink",)
    assert data.classes == ("cat", "dog")
    assert held(data, data.train) == {"cat": 2, "dog": 2}
    assert held(data, data.test) == {"dog": 2}
    said = capsys.readouterr().err.splitlines()
    assert said[0] == (
        f"image-folder: {base}/train/ink holds only folders with images, so ink is read as the "
        "domain and the folders (cat, dog) as the classes"
    )


@pytest.mark.parametrize(
    "folders",
    [
        ("train/cat/2020", "train/cat/2021", "train/cat", "test/cat"),  # images next to folders
        ("train/cat/deep", "test/cat/deep"),  # still a single class
        ("train/cat/2020", "train/cat/2021", "train/dog", "test/cat/2020"),
    ],
)
def test_a_class_that_is_more_than_a_folder_of_folders_is_a_class(
    tmp_path: Path, folders: tuple[str, ...]
) -> None:
    data = load(tree(tmp_path / "mine", *folders))
    assert data.domains == ("mine",)
    assert "cat" in data.classes


def test_a_single_class_of_folders_in_every_domain_is_doubted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = [f"{d}/{s}/all/{c}" for d in ("ink", "oil") for s in ("train", "test") for c in "ab"]
    base = tree(tmp_path / "mine", *places)
    assert load(base).classes == ("all",)
    assert capsys.readouterr().err == (
        f"image-folder: the classes are the folders in {base}/ink/train (all), although it holds "
        "only folders (a, b); domains belong above train and test\n"
    )
