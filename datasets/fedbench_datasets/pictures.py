"""Image files: class folders in torchvision's order, decoded and resized with Pillow.

Pillow resizes with integer arithmetic, so every machine gives the same bytes, and the same as
torchvision's ``Resize`` gives for an image file.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from .caching import ReadError, Writer, why

U8 = npt.NDArray[np.uint8]
I64 = npt.NDArray[np.int64]
Item = tuple[str, int]
"""An image file's path and label; the path is a plain string, since there may be 100,000."""

Fit = Literal["stretch", "crop"]
CHUNK = 256


def class_folders(folder: Path, expected: int | None = None) -> list[str]:
    """Return the names of the class folders in ``folder``, sorted; hidden ones do not count.

    Raises:
        ReadError: when there are none, or not as many as ``expected``.
    """
    if not folder.is_dir():
        raise ReadError(f"{folder}: no such folder")
    names = sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    if not names or expected not in (None, len(names)):
        what = f"{expected} class folders" if expected else "a folder for each class"
        shown = ", ".join(names[:12]) + (" ..." if len(names) > 12 else "")
        raise ReadError(
            f"{folder}: expected {what}, found {len(names)}{': ' if names else ''}{shown}"
        )
    return names


def folder_items(folder: Path, classes: Sequence[str]) -> list[Item]:
    """Return the images below each class folder in torchvision's order: by class, then by name.

    Raises:
        ReadError: when a class has no image.
    """
    from torchvision.datasets.folder import IMG_EXTENSIONS, make_dataset  # slow to import

    numbers = {name: n for n, name in enumerate(classes)}
    found: list[Item] = make_dataset(
        str(folder), numbers, extensions=IMG_EXTENSIONS, allow_empty=True
    )
    missing = sorted(set(range(len(classes))) - {label for _, label in found})
    if missing:
        raise ReadError(f"{folder / classes[missing[0]]}: no image in this class folder")
    return found


def image(path: str, resolution: int, fit: Fit = "stretch") -> U8:
    """Read an image as RGB (3, resolution, resolution), resized with Pillow's bilinear filter.

    Args:
        path: any format that Pillow reads.
        resolution: pixels of each side.
        fit: ``stretch`` changes the aspect ratio, as torchvision's ``Resize((r, r))`` does;
            ``crop`` takes the largest central square.

    Raises:
        ReadError: when it cannot be read.
    """
    from torchvision.datasets.folder import pil_loader

    try:
        picture = pil_loader(path)
    except FileNotFoundError:
        raise ReadError(f"{path}: no such file") from None
    except UnidentifiedImageError:
        raise ReadError(f"{path}: truncated or damaged image (unknown format)") from None
    except Exception as error:  # Pillow fails in many ways on a damaged file
        raise ReadError(f"{path}: truncated or damaged image ({why(error)})") from error
    return _resized(picture, resolution, fit).transpose(2, 0, 1)


def _resized(picture: Image.Image, resolution: int, fit: Fit) -> U8:
    box = None
    if fit == "crop":
        side = min(picture.size)
        left, top = (picture.width - side) // 2, (picture.height - side) // 2
        box = (left, top, left + side, top + side)
    if box is None and picture.size == (resolution, resolution):
        return np.asarray(picture)
    return np.asarray(picture.resize((resolution, resolution), Image.Resampling.BILINEAR, box))


def resize(images: U8, resolution: int) -> U8:
    """Resize grey images (n, height, width) to (n, resolution, resolution), as `image` does."""
    if images.shape[1:] == (resolution, resolution):
        return images
    return np.stack([_resized(Image.fromarray(one), resolution, "stretch") for one in images])


def add_arrays(
    out: Writer, split: str, grey: U8, labels: I64, resolution: int, rgb: bool, domain: int = 0
) -> None:
    """Resize grey images (n, height, width) and add them, with three equal channels for ``rgb``."""
    for start in range(0, len(grey), CHUNK):
        chunk = resize(grey[start : start + CHUNK], resolution)[:, None]
        if rgb:
            chunk = np.repeat(chunk, 3, axis=1)
        out.add(split, chunk, labels[start : start + CHUNK], domain)


def add_images(
    out: Writer,
    split: str,
    items: Iterable[Item],
    resolution: int,
    fit: Fit = "stretch",
    domain: int = 0,
) -> None:
    """Read image files in up to eight threads and add them in order."""
    stream = iter(items)
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        while chunk := list(islice(stream, CHUNK)):
            pictures = list(pool.map(lambda item: image(item[0], resolution, fit), chunk))
            out.add(split, np.stack(pictures), [label for _, label in chunk], domain)
