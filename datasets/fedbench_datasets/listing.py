"""A list of images with labels, splits and domains, from folders or an index: checked and sorted.

The same rules hold for both: what is tested on, what is left out, and what cannot be meant.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .caching import ReadError
from .folders import Item
from .notices import some

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Entry:
    """One image; ``where`` is its row in the index, or empty if it comes from a folder."""

    path: str
    label: str
    split: str
    domain: str
    where: str = ""

    @property
    def place(self) -> str:
        """What an error calls it by."""
        return self.where or self.path


@dataclass(frozen=True, eq=False)
class Listing:
    """Classes and domains by name, and for each domain the images of ``train`` and ``test``."""

    classes: Sequence[str]
    domains: Sequence[str]
    splits: Sequence[dict[str, list[Item]]]


def arranged(entries: Sequence[Entry], classes: Sequence[str], domains: Sequence[str]) -> Listing:
    """Return the images by domain and split, in the order of ``entries``, which are train or test.

    Raises:
        ReadError: when there is no test image, or a class has no training image.
    """
    numbers = {name: n for n, name in enumerate(classes)}
    splits: dict[str, dict[str, list[Item]]] = {d: {"train": [], "test": []} for d in domains}
    for entry in entries:
        splits[entry.domain][entry.split].append((entry.path, numbers[entry.label]))
    if not any(entry.split == "test" for entry in entries):
        raise ReadError("the files hold no test examples")
    trained = {entry.label for entry in entries if entry.split == "train"}
    untrained = [repr(name) for name in classes if name not in trained]
    if untrained:
        raise ReadError(
            f"expected {len(classes)} classes in the training examples, found {len(trained)}, "
            f"none of {some(untrained)}"
        )
    return Listing(classes, domains, list(splits.values()))


def without_validation(entries: Sequence[Entry], say: Say, may_replace_test: bool) -> list[Entry]:
    """Return the training and test images, without those of ``val``; what happens is said.

    Args:
        entries: images of any split.
        say: called with the line.
        may_replace_test: whether ``val`` is the test set where there is no ``test``, as in the
            folders of many published data sets.

    Raises:
        ReadError: when there is no test image, and ``val`` may not take its place.
    """
    held = [entry for entry in entries if entry.split == "val"]
    rest = [entry for entry in entries if entry.split != "val"]
    if not held:
        return rest
    count = f"{len(held)} image{'s' * (len(held) > 1)}"
    if any(entry.split == "test" for entry in rest):
        say(f"left out {count} of the split 'val'; 'test' is the test set")
        return rest
    if not may_replace_test:
        raise ReadError(
            f"no row has the split 'test', and the {count} of 'val' are never tested on; call the "
            "rows to test on 'test'"
        )
    say(f"no split 'test': the {count} of 'val' are the test set")
    return [
        Entry(e.path, e.label, "test", e.domain, e.where) if e.split == "val" else e
        for e in entries
    ]


def check_unique(entries: Sequence[Entry]) -> None:
    """Refuse a file that is listed twice, whatever its paths: links lead to the same file.

    Raises:
        ReadError: naming both places and what differs.
    """
    seen: dict[tuple[int, ...], Entry] = {}
    for entry in entries:
        found = os.stat(entry.path)
        # Numbers of files are not unique on every file system; size and time make them so.
        key = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
        other = seen.setdefault(key, entry)
        if other is not entry:
            pairs = (
                ("in two splits", other.split, entry.split),
                ("under two labels", other.label, entry.label),
                ("in two domains", other.domain, entry.domain),
            )
            how = " and ".join(f"{what}, {a!r} and {b!r}" for what, a, b in pairs if a != b)
            which = f": {entry.path}" if entry.where else ""
            raise ReadError(
                f"{other.place} and {entry.place}: one file is listed {how or 'twice'}{which}"
            )


def say_missing(listing: Listing, say: Say) -> None:
    """Say in one line which classes have no image in a domain's training or test images."""
    missing = []
    for domain, found in zip(listing.domains, listing.splits, strict=True):
        for split, items in found.items():
            present = {label for _, label in items}
            names = [repr(n) for label, n in enumerate(listing.classes) if label not in present]
            if names:
                missing.append(f"{some(names) if items else 'any class'} in {domain} ({split})")
    if missing:
        say(f"no images of {some(missing)}")
