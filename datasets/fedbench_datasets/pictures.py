"""Image files and arrays: decoded to 8-bit RGB and resized with Pillow.

Pillow resizes with integer arithmetic, so every machine gives the same bytes, and for ordinary
8-bit files the same as torchvision's loader and ``Resize`` give. What other files become:

- An EXIF orientation is applied, so that pictures are upright.
- 16-bit grey is divided by 257 and rounded; 16-bit colour keeps its upper bytes. If no 16-bit
  picture of a split reaches 4,096 of 65,535 (12-bit values, say), they are refused.
- Transparent pictures are put on white. One that is not plain, but would be plain on white, is
  refused.
- Palettes, 1-bit, CMYK and YCbCr are converted by Pillow, without colour profiles.
- Of animations and files with several pages the first picture is used.
- Floating-point, 32-bit and Lab pictures have no agreed range and are refused.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import islice
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile, UnidentifiedImageError

from fedbench.device import cores

from .caching import ReadError, Writer, why
from .folders import Item

U8 = npt.NDArray[np.uint8]
I64 = npt.NDArray[np.int64]

Fit = Literal["stretch", "crop"]
CHUNK = 256
PIXELS = 89_478_485
"""Most pixels of an image file, Pillow's own limit; a larger one could fill the memory."""

FORMATS = frozenset(
    (
        *("AVIF", "BMP", "DIB", "GIF", "ICO", "JPEG", "JPEG2000", "PCX", "PNG", "PPM", "TGA"),
        *("TIFF", "WEBP"),
    )
)
"""What is opened. Other formats of Pillow start programs (EPS) or hold measurements (FITS)."""

PLAIN = frozenset(("1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr", "HSV"))
ALPHA = frozenset(("LA", "La", "PA", "RGBA", "RGBa"))
DEEP = frozenset(("I;16", "I;16L", "I;16B", "I;16N"))
SHALLOW = 4096
WHITE_IS_ZERO = 0
PHOTOMETRIC, ORIENTATION = 262, 274
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation -> what makes the picture upright."""


@dataclass(frozen=True, eq=False)
class Picture:
    """A decoded file: ``pixels`` (3, resolution, resolution).

    ``several`` says whether the file holds other pictures too; ``peak`` is the largest value of a
    16-bit file, else ``None``.
    """

    pixels: U8
    several: bool = False
    peak: int | None = None


def image(
    path: str, resolution: int, fit: Fit = "stretch", content: bytes | None = None
) -> Picture:
    """Read an image file as RGB, resized with Pillow's bilinear filter.

    Args:
        path: a file in one of `FORMATS`; see the module for how it is converted.
        resolution: pixels of each side.
        fit: ``stretch`` changes the aspect ratio, as torchvision's ``Resize((r, r))`` does;
            ``crop`` takes the largest central square.
        content: what the file holds, if it is not to be read; ``path`` then only names it.

    Raises:
        ReadError: when it cannot be read or converted; the text names the file.
    """
    try:
        with (
            open(path, "rb") if content is None else io.BytesIO(content) as file,
            Image.open(file, formats=_formats()) as picture,
        ):
            if picture.width * picture.height > PIXELS:
                raise Image.DecompressionBombError
            several = picture.format != "MPO" and getattr(picture, "is_animated", False)
            deep = ";16" in str(getattr(picture, "tile", ""))
            picture.load()
            rgb = _upright(picture, _rgb(picture))
            peak = _peak(picture) if deep or picture.mode in DEEP else None
    except ReadError as error:
        raise ReadError(f"{path}: {error}") from None
    except FileNotFoundError:
        raise ReadError(f"{path}: no such file") from None
    except UnidentifiedImageError:
        raise ReadError(f"{path}: truncated or damaged image (unknown format)") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ReadError(f"{path}: more than {PIXELS:,} pixels; make it smaller first") from None
    except Exception as error:  # Pillow fails in many ways on a damaged file
        if isinstance(error, OSError) and error.errno is not None:
            raise ReadError(f"{path}: {error.strerror}") from error
        raise ReadError(f"{path}: truncated or damaged image ({why(error)})") from error
    return Picture(_resized(rgb, resolution, fit).transpose(2, 0, 1), several, peak)


@cache
def _formats() -> list[str]:
    Image.init()
    return sorted(FORMATS & set(Image.OPEN))


def _rgb(picture: Image.Image) -> Image.Image:
    """Return a loaded picture as 8-bit RGB; see the module for how."""
    mode, transparent = picture.mode, "transparency" in picture.info
    scaled = mode == "I" and picture.format in ("PNG", "PPM")  # 16 bits in a wider type
    if (mode in DEEP or scaled) and not transparent:
        return Image.fromarray(_grey(picture)).convert("RGB")
    if mode in ALPHA or (mode in PLAIN and transparent):
        return _on_white(picture)
    if mode in PLAIN:
        return picture.convert("RGB")
    what = f"{mode} with a transparent colour" if transparent else mode
    raise ReadError(
        f"pixels of mode {what} have no agreed values in 8-bit RGB; convert the file first"
    )


def _grey(picture: Image.Image) -> U8:
    """Return 16-bit grey (height, width) as 8 bits: v / 257, rounded."""
    values = np.asarray(picture).astype(np.int64)
    tags = getattr(picture, "tag_v2", {})  # of a TIFF; Pillow inverts other depths itself
    if tags.get(PHOTOMETRIC) == WHITE_IS_ZERO:
        values = 65535 - values
    return ((values + 128) // 257).astype(np.uint8)


def _peak(picture: Image.Image) -> int:
    """Return the largest value of a loaded picture, on the scale of 16 bits."""
    values = np.asarray(picture)
    if picture.mode in ALPHA:
        values = values[..., :-1]
    return int(values.max()) * (257 if values.dtype == np.uint8 else 1)


def _on_white(picture: Image.Image) -> Image.Image:
    premultiplied = {"La": "LA", "RGBa": "RGBA"}.get(picture.mode, picture.mode)
    colours = picture.convert(premultiplied).convert("RGBA")
    alpha = colours.getchannel("A").getextrema()
    if alpha == (255, 255):
        return colours.convert("RGB")
    white = Image.new("RGBA", colours.size, "white")
    flat = Image.alpha_composite(white, colours).convert("RGB")
    if _is_plain(flat) and not _is_plain(colours):
        raise ReadError(
            f"nothing of this transparent picture (mode {picture.mode}) can be seen on white; "
            "put it on a background first"
        )
    return flat


def _is_plain(picture: Image.Image) -> bool:
    return all(band.getextrema()[0] == band.getextrema()[1] for band in picture.split())


def _upright(picture: Image.Image, rgb: Image.Image) -> Image.Image:
    """Turn ``rgb`` as the file's EXIF orientation says; Pillow has already turned a TIFF."""
    try:
        orientation = picture.getexif().get(ORIENTATION)
    except Exception:  # damaged EXIF data, which does not damage the pixels
        return rgb
    turn = UPRIGHT.get(orientation) if isinstance(orientation, int) else None
    return rgb if turn is None else rgb.transpose(turn)


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
    """Read image files and add them in order; see `decoded` for the errors."""
    found = list(items)
    labels = iter([label for _, label in found])
    for images in decoded(out, ((path, None) for path, _ in found), resolution, fit):
        out.add(split, images, list(islice(labels, len(images))), domain)


def decoded(
    out: Writer,
    files: Iterable[tuple[str, bytes | None]],
    resolution: int,
    fit: Fit = "stretch",
) -> Iterator[U8]:
    """Read image files in up to eight threads; yield chunks (n, 3, resolution, resolution).

    Args:
        out: told what the user should know about a file.
        files: path and, if it is not to be read from there, content of each; see `image`.
        resolution: pixels of each side.
        fit: see `image`.

    Raises:
        ReadError: when a file cannot be read, or all 16-bit files are almost black.
    """
    stream = iter(files)
    peaks: list[tuple[int, str]] = []
    with _strict_pillow(), ThreadPoolExecutor(min(8, cores())) as pool:
        while chunk := list(islice(stream, CHUNK)):
            pictures = list(pool.map(lambda one: image(one[0], resolution, fit, one[1]), chunk))
            yield np.stack([p.pixels for p in pictures])
            for picture, (path, _) in zip(pictures, chunk, strict=True):
                if picture.several:
                    out.remark("of several pictures in one file, only the first is used", path)
                if picture.peak is not None:
                    peaks.append((picture.peak, path))
    if peaks and max(peaks)[0] < SHALLOW:
        peak, path = max(peaks)
        raise ReadError(
            f"{path}: its 16-bit values reach {peak} of 65,535, and those of the other 16-bit "
            "files no more: almost black; scale them to the full range first"
        )


@contextmanager
def _strict_pillow() -> Iterator[None]:
    """Refuse truncated files whatever the process allows, and keep silent about metadata.

    Pillow warns of damaged EXIF data, which do not matter here, and of sizes, which `image` checks.
    """
    lenient = ImageFile.LOAD_TRUNCATED_IMAGES
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"PIL\.")
            yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = lenient
