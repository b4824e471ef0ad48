"""Folders of your own images: ``[domain/]split/class/...``, as people and tools name them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .caching import ReadError
from .folders import (
    MORE_EXTENSIONS,
    class_folders,
    files_below,
    ignored,
    is_image,
    subfolders,
    unwrapped,
)
from .listing import Entry
from .names import check_spellings, split_of
from .notices import some


@dataclass(frozen=True, eq=False)
class Layout:
    """What is in the folders.

    Args:
        entries: the images of all splits, by domain, split, class, folder and name.
        classes: the names of all class folders, sorted.
        domains: the names of the domain folders, sorted; the folder's own if there are none.
        left_out: paths of files and folders that have no place in the layout.
        doubt: why something else may be meant; empty if there is no reason to think so.
    """

    entries: Sequence[Entry]
    classes: Sequence[str]
    domains: Sequence[str]
    left_out: Sequence[str]
    doubt: str


def read_layout(place: Path) -> Layout:
    """Find the images in ``place``.

    Split folders are named ``train``, ``test`` or ``val``, or ``training``, ``testing``, ``valid``,
    ``validation`` or ``dev``, in any case. A folder that only wraps the others does not count. Not
    every class needs to be in every domain and split; the classes are those of all together.

    Raises:
        ReadError: when it is laid out in another way; it says which is expected.
    """
    base = unwrapped(place, split_of)
    top = class_folders(base)
    splits = [split_of(name) for name in top]
    left_out: list[str] = []
    if "train" in splits or all(splits):
        places = {Path(os.path.abspath(base)).name: base}
        left_out += [str(base / name) for name in top if not split_of(name)]
    else:
        places = {name: base / name for name in top}
    found = {domain: _split_folders(folder) for domain, folder in places.items()}
    tested = "test" if any("test" in folders for folders in found.values()) else "val"
    for domain, folders in found.items():
        _check_splits(places[domain], folders, tested)
    used = {"train", tested}
    between = ""
    if len(found) == 1:
        found, between = _with_domain_below(found, used)
    names = {
        folder: class_folders(folder)
        for folders in found.values()
        for split, several in folders.items()
        for folder in several
        if split in used
    }
    check_spellings("class", ({n: str(folder) for n in inside} for folder, inside in names.items()))
    entries: list[Entry] = []
    for domain, folders in found.items():
        for split, several in folders.items():
            for folder in several:
                entries += _images(folder, split, domain, left_out)
    classes = sorted({name for inside in names.values() for name in inside})
    _check_classes(classes, names, {entry.label for entry in entries if entry.split in used})
    return Layout(entries, classes, sorted(found), left_out, between or _doubt(names, classes))


def _split_folders(place: Path) -> dict[str, list[Path]]:
    """Return split -> the folders in ``place`` that are named so."""
    names = subfolders(place)
    found = {s: [place / n for n in names if split_of(n) == s] for s in ("train", "test", "val")}
    return {split: several for split, several in found.items() if several}


def _check_splits(place: Path, folders: dict[str, list[Path]], tested: str) -> None:
    for split in ("train", tested):
        several = folders.get(split, [])
        if len(several) > 1:
            both = " and ".join(folder.name for folder in several)
            raise ReadError(f"{place}: {both} could both be the {split} images; keep one of them")
        if not several:
            raise ReadError(
                f"{place / ('test' if split == 'val' else split)}: no such folder; expected "
                f"{place}/train/<class>/*.jpg and {place}/test/<class>/*.jpg, with a folder for "
                "each domain above train and test if there are several"
            )


def _with_domain_below(
    found: dict[str, dict[str, list[Path]]], used: set[str]
) -> tuple[dict[str, dict[str, list[Path]]], str]:
    """Read the only folder in each split as the domain if it holds only folders with images.

    As a class, it would be the only one.

    Args:
        found: the only domain -> split -> folders.
        used: the splits that count.

    Returns:
        ``found`` by the domain below the splits, and what to say about it; or unchanged, and "".
    """
    ((_, folders),) = found.items()
    counted = [folder for split in used for folder in folders[split]]
    names = {name for folder in counted for name in subfolders(folder)}
    if len(names) != 1:
        return found, ""
    (name,) = names
    inside = [folder / name for folder in counted]
    if not all(map(_holds_classes, inside)):
        return found, ""
    classes = sorted({inner for folder in inside for inner in subfolders(folder)})
    if len(classes) == 1:
        return found, ""
    below = {split: [folder / name for folder in several] for split, several in folders.items()}
    said = (
        f"{below['train'][0]} holds only folders with images, so {name} is read as the domain and "
        f"the folders ({some(classes)}) as the classes"
    )
    return {name: {s: [f for f in several if f.is_dir()] for s, several in below.items()}}, said


def _holds_classes(folder: Path) -> bool:
    """Return whether a folder holds folders with images, and no images next to them."""
    if not folder.is_dir() or any(is_image(n, MORE_EXTENSIONS) for n in os.listdir(folder)):
        return False
    inner = [files_below(folder / name) for name in subfolders(folder)]
    return bool(inner) and all(any(is_image(f, MORE_EXTENSIONS) for f in files) for files in inner)


def _images(folder: Path, split: str, domain: str, left_out: list[str]) -> list[Entry]:
    entries: list[Entry] = []
    for name in sorted(os.listdir(folder)):
        path = os.path.join(folder, name)
        if ignored(name):
            continue
        if not os.path.isdir(path):
            left_out.append(path)
            continue
        for file in files_below(Path(path)):
            if is_image(file, MORE_EXTENSIONS):
                entries.append(Entry(file, name, split, domain))
            else:
                left_out.append(file)
    return entries


def _doubt(names: Mapping[Path, Sequence[str]], everywhere: Sequence[str]) -> str:
    """Return a doubt if class folders look like domains.

    That is, all hold the same two or more folders, or there is a single class, which only holds
    folders with images.

    Args:
        names: folder of a split -> the class folders in it.
        everywhere: the classes of all together.
    """
    for folder, classes in names.items():
        inside = {tuple(subfolders(folder / name)) for name in classes}
        shared = inside.pop()
        if inside or len(shared) < 2:
            continue
        what = "each holds the same folders"
        if len(everywhere) == 1 and _holds_classes(folder / classes[0]):
            what = "it holds only folders"
        elif len(classes) == 1:
            continue
        return (
            f"the classes are the folders in {folder} ({some(classes)}), although {what} "
            f"({some(shared)}); domains belong above train and test"
        )
    return ""


def _check_classes(classes: Sequence[str], names: dict[Path, list[str]], filled: set[str]) -> None:
    for name in classes:
        if name not in filled:
            folder = next(folder for folder, inside in names.items() if name in inside)
            raise ReadError(f"{folder / name}: no image in this class folder")
