"""Folders of images: which files and folders count, in which order, and where a layout begins."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from .caching import ReadError

Item = tuple[str, int]
"""An image file's path and label; the path is a plain string, since there may be 100,000."""

EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
"""How the names of images end, in upper or lower case; the list is torchvision's."""

MORE_EXTENSIONS = (*EXTENSIONS, ".avif", ".gif", ".jfif", ".jp2", ".jpe", ".pnm", ".tga")
"""Names of images in your own folders, for which no published order needs to be kept."""

SYSTEM = frozenset(
    (
        *("__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "lost+found"),
        *("$recycle.bin", "recycler", "system volume information", "@eadir", "@recycle"),
        *("#recycle", "#snapshot", ".ds_store", ".ipynb_checkpoints", ".git", ".svn", ".hg"),
        *(".spotlight-v100", ".trashes", ".fseventsd", ".thumbnails", ".@__thumb"),
        *(".appledouble", "__pycache__"),
    )
)
"""What systems and tools leave in folders, in lower case."""

DEEPEST = 3
"""How many folders may be around the one that a data set begins with."""


def is_system(name: str) -> bool:
    """Return whether a file or folder is one that a system or tool made, not a person."""
    return name.lower() in SYSTEM or name.startswith(("._", ".Trash-"))


def ignored(name: str) -> bool:
    """Return whether a file or folder is hidden or a system's: never a class, domain or example."""
    return name.startswith(".") or is_system(name)


def is_image(name: str, extensions: tuple[str, ...] = EXTENSIONS) -> bool:
    """Return whether a file is an image by its name."""
    return name.lower().endswith(extensions)


def subfolders(folder: Path) -> list[str]:
    """Return the names of the folders in ``folder``, sorted, without ignored ones.

    Raises:
        ReadError: when it is not a folder.
    """
    if not folder.is_dir():
        raise ReadError(f"{folder}: no such folder")
    return sorted(p.name for p in folder.iterdir() if not ignored(p.name) and p.is_dir())


def class_folders(folder: Path, expected: int | None = None) -> list[str]:
    """Return the names of the class folders in ``folder``, sorted.

    Raises:
        ReadError: when there are none, or not as many as ``expected``.
    """
    names = subfolders(folder)
    if not names or expected not in (None, len(names)):
        what = f"{expected} class folders" if expected else "a folder for each class"
        shown = ", ".join(names[:12]) + (" ..." if len(names) > 12 else "")
        raise ReadError(
            f"{folder}: expected {what}, found {len(names)}{': ' if names else ''}{shown}"
        )
    return names


def files_below(folder: Path) -> list[str]:
    """Return all files below ``folder`` in torchvision's order: by folder, then by name.

    Ignored files and folders are left out. Links to folders are followed, except back to a folder
    that the link is in.
    """
    found: list[tuple[str, list[str]]] = []

    def visit(path: str, above: frozenset[tuple[int, int]]) -> None:
        state = os.stat(path)
        here = (state.st_dev, state.st_ino)
        if here in above:
            return
        with os.scandir(path) as entries:
            seen = [(entry.name, entry.is_dir()) for entry in entries if not ignored(entry.name)]
        found.append((path, sorted(name for name, is_folder in seen if not is_folder)))
        for name, is_folder in seen:
            if is_folder:
                visit(os.path.join(path, name), above | {here})

    visit(str(folder), frozenset())
    return [os.path.join(path, name) for path, names in sorted(found) for name in names]


def folder_items(folder: Path, classes: Sequence[str]) -> list[Item]:
    """Return the images below each class folder in torchvision's order: by class, then by name.

    Raises:
        ReadError: when a class has no image.
    """
    items: list[Item] = []
    for number, name in enumerate(classes):
        images = [path for path in files_below(folder / name) if is_image(path)]
        if not images:
            raise ReadError(f"{folder / name}: no image in this class folder")
        items += [(path, number) for path in images]
    return items


def located(base: Path, name: str) -> Path:
    """Return the file or folder ``name`` below ``base``, even if it is written a bit otherwise.

    Of each part of the name, the case, spaces, ``-`` and ``_`` may differ; the exact name comes
    first. If there is none, the path that ``name`` says is returned.

    Raises:
        ReadError: when several differ from it only in that.
    """
    path = base
    for part in Path(name).parts:
        if not (path / part).exists():
            others = os.listdir(path) if path.is_dir() else []
            near = sorted(other for other in others if _plain(other) == _plain(part))
            if len(near) > 1:
                raise ReadError(
                    f"{path / part}: not found, and {' and '.join(near)} could be meant"
                )
            part = near[0] if near else part
        path = path / part
    return path


def _plain(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "").replace(" ", "")


def find(places: Sequence[Path], *names: str) -> Path:
    """Return the first file: any of ``names`` below the first place, then the next; see `located`.

    Raises:
        ReadError: when there is none.
    """
    for place in places:
        for name in names:
            path = located(place, name)
            if path.is_file():
                return path
    raise ReadError(f"{places[0] / names[0]}: no such file")


def find_folder(base: Path, *names: str) -> Path:
    """Return the first of ``names`` that is a folder below ``base``; see `located`.

    Raises:
        ReadError: when there is none.
    """
    for name in names:
        path = located(base, name)
        if path.is_dir():
            return path
    raise ReadError(f"{base / names[0]}: no such folder")


def holding(base: Path, names: Sequence[str]) -> Path | None:
    """Return the uppermost folder from ``base`` down that has all ``names`` in it, if any has.

    Raises:
        ReadError: when two on one level have them.
    """
    level = [base]
    for _ in range(DEEPEST + 1):
        found = [f for f in level if f.is_dir() and all(located(f, n).exists() for n in names)]
        if len(found) > 1:
            both = " and ".join(str(folder) for folder in found[:2])
            raise ReadError(f"{both} both hold {', '.join(names)}; keep one of them")
        if found:
            return found[0]
        level = [f / name for f in level if f.is_dir() for name in subfolders(f)]
    return None


def unwrapped(folder: Path, known: Callable[[str], object] = lambda name: False) -> Path:
    """Return ``folder``, or the folder in it that it only wraps.

    Args:
        folder: may hold a single folder, which again holds folders.
        known: whether a name has a meaning; such a folder is not a wrapping.
    """
    for _ in range(DEEPEST):
        inner = subfolders(folder)
        if len(inner) != 1 or known(inner[0]) or not subfolders(folder / inner[0]):
            break
        folder = folder / inner[0]
    return folder
