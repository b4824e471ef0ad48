"""The embedded data set `digits`: four domains of handwritten and printed digits, 32x32 RGB.

The packs next to this module hold the ingredients (strokes, glyph masks, photograph regions and
every random parameter). `load` composes the images from them with integer arithmetic only, so
that every machine and every NumPy version gives the same bytes, and checks the SHA-256 of the
result. `datasets/README.md` names the sources and licences; `datasets/build_digits.py` builds
the packs.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

U8 = npt.NDArray[np.uint8]
I64 = npt.NDArray[np.int64]
Arrays = Mapping[str, npt.NDArray[np.generic]]
Split = tuple[U8, I64]

DOMAINS = ("mnist", "optdigits", "mnistm", "syn")
SPLITS = ("train", "test")
CLASSES = tuple("0123456789")
SIDE = 32

PACKS_FOLDER = Path(__file__).parent / "packs"

# SHA-256 of each pack file. `build_digits.py` prints this block and the next one.
PACK_SHA256 = {
    "mnist": "f238316e00a0f851e3406c5736f0fa372d95eabf4cf8162f423bb318541e4d00",
    "optdigits": "b9fd12a95c49e92a9240df9c626aac839d5fe1f6701c5e59a5dda8c95b154e4c",
    "mnistm": "6991bf86f986e3285341fd1179f11c3f8948a011242f7fdd82cc07ac7951434a",
    "syn": "83cb4215896f4f75ad70730e10d3e86e042369e9ba270bb07f69d02d5a46ae33",
}

# SHA-256 of each composed split: the bytes of the images (C order), then those of the labels
# (little-endian 64-bit).
SHA256 = {
    "mnist": {
        "train": "232adf10f12430322987f6a20f2f8ffa046acb59aa7406ea8e5c86eb6ed2a958",
        "test": "a03c645c6e08b1969b46f271be37fa93c20e6f26f171ad49376048a1fdb5fa0c",
    },
    "optdigits": {
        "train": "8a3bdeeb672f9413327eafb3b64063c9014449a502e79a6805bf816dce58ec40",
        "test": "755c5ea034a657d460c743b5cc210ecca9c4dc86ecfdd8e1a36c2c7f6241e5e8",
    },
    "mnistm": {
        "train": "c032137862ddfbf9b8afe156c87083bb7c099974c53f58153eaf42252d83ed38",
        "test": "d95b892667b3aa7363d785841933e54aeffd7365d6242f2d3e984933a9b55d01",
    },
    "syn": {
        "train": "0ef402d4bdbca20e53a69c31a8484f7182378775705857e08fbd47ef9697f118",
        "test": "d3e970b044d48a6615093af09234372c4d07b6bb5dde17d4417100012241b5a7",
    },
}

# Images composed at a time: few enough that the intermediate arrays stay in the CPU's cache.
CHUNK = 128


class DigitsError(ValueError):
    """A pack is missing or damaged, or its composed images are not the published ones."""


def pack_path(domain: str, folder: Path = PACKS_FOLDER) -> Path:
    """Return the path of the pack that holds the ingredients of `domain`."""
    return folder / f"digits_{domain}.npz"


def digest(images: U8, labels: I64) -> str:
    """Return the SHA-256 (hex) of one composed split, as listed in `SHA256`."""
    sha = hashlib.sha256(np.ascontiguousarray(images).data)
    sha.update(np.ascontiguousarray(labels.astype("<i8")).data)
    return sha.hexdigest()


def read_pack(domain: str, folder: Path = PACKS_FOLDER) -> dict[str, npt.NDArray[np.generic]]:
    """Return the arrays of one pack after checking its digest.

    Raises:
        DigitsError: when the pack is missing or damaged.
    """
    path = pack_path(domain, folder)
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise DigitsError(
            f"{path}: cannot read this pack of the data set digits"
            f" ({error.strerror or error}): reinstall the package fedbench-toolkit"
        ) from error
    found = hashlib.sha256(raw).hexdigest()
    if found != PACK_SHA256[domain]:
        raise DigitsError(
            f"{path}: damaged pack: expected SHA-256 {PACK_SHA256[domain]}, found {found}"
            f" ({len(raw)} bytes): reinstall the package fedbench-toolkit"
        )
    # No pickle: a pack holds arrays only. Nothing is parsed before the digest has matched.
    with np.load(io.BytesIO(raw), allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


def load(folder: Path = PACKS_FOLDER) -> dict[str, dict[str, Split]]:
    """Return every domain and split: `load()["syn"]["train"] == (images, labels)`.

    Images are uint8 of shape (N, 3, 32, 32), RGB, 0..255; labels are int64 of shape (N,), 0..9.
    Domains come in the order of `DOMAINS`.

    Raises:
        DigitsError: when a pack is missing or damaged, or the images are not the published ones.
    """
    return {domain: load_domain(domain, folder) for domain in DOMAINS}


def load_domain(domain: str, folder: Path = PACKS_FOLDER) -> dict[str, Split]:
    """Return both splits of one domain, composed and checked; see `load`."""
    pack = read_pack(domain, folder)
    out: dict[str, Split] = {}
    for split in SPLITS:
        images, labels = compose(domain, split, pack)
        found = digest(images, labels)
        if found != SHA256[domain][split]:
            raise DigitsError(
                f"{pack_path(domain, folder)}: expected SHA-256 {SHA256[domain][split]} of the"
                f" composed {domain}/{split}, found {found}: report this with your NumPy version"
                f" ({np.__version__})"
            )
        out[split] = (images, labels)
    return out


def compose(domain: str, split: str, pack: Arrays) -> Split:
    """Compose one split from the arrays of its pack; return (images, labels), unchecked."""
    # The names of a split's arrays begin with the split's name; other arrays serve both.
    part = {name.removeprefix(f"{split}_"): array for name, array in pack.items()}
    images = COMPOSERS[domain](part)
    return images, part["labels"].astype(np.int64)


def compose_mnist(part: Arrays) -> U8:
    """Place 28x28 strokes in the middle of a black 32x32 image, grey in all three channels."""
    grey = _centred(part["strokes"])
    return np.repeat(grey[:, None], 3, axis=1)


def compose_optdigits(part: Arrays) -> U8:
    """Enlarge 8x8 digits of values 0..16 four times by integer bilinear interpolation."""
    weights = _bilinear_weights(8)
    small = part["digits"].astype(np.int64)
    # Each axis multiplies by 8, so white (16) becomes 16 * 64 before it is scaled to 255.
    large = weights @ small @ weights.T
    grey = ((large * 255 + 512) // 1024).astype(np.uint8)
    return np.repeat(grey[:, None], 3, axis=1)


def compose_mnistm(part: Arrays) -> U8:
    """Return |photograph patch - stroke| per channel, the stroke padded to 32x32.

    `patches` has one row (photograph, top, left) per image.
    """
    photos = undo_photo_filter(part["photos"].astype(np.uint8))
    patches = part["patches"].astype(np.int64)
    out = np.empty((len(patches), 3, SIDE, SIDE), np.uint8)
    for image, (photo, top, left) in zip(out, patches.tolist(), strict=True):
        image[:] = photos[photo, :, top : top + SIDE, left : left + SIDE]
    strokes = _centred(part["strokes"])[:, None]
    return np.asarray(np.maximum(out, strokes) - np.minimum(out, strokes), dtype=np.uint8)


def compose_syn(part: Arrays) -> U8:
    """Print digits on synthetic backgrounds; see `_syn_background` and `_syn_finish`."""
    count = len(part["labels"])
    out = np.empty((count, 3, SIDE, SIDE), np.uint8)
    for start in range(0, count, CHUNK):
        rows = slice(start, start + CHUNK)
        chunk = {name: part[name][rows] for name in SYN_FIELDS}
        out[rows] = _syn_finish(chunk, _syn_background(chunk))
    return out


# Per image: `mask` (32, 32) ink of all the digits, 0..15; `ink` (3,) its colour; `ground` (2, 3)
# two background colours; `slope` (2,) direction of the gradient between them; `bars` (3, 5)
# rows (normal x, normal y, offset, half width, opacity) in 1/32 pixel; `bar_colours` (3, 3);
# `blur` number of passes; `blotch` and `noise` amplitudes; `seed` of both.
SYN_FIELDS = (
    "mask",
    "ink",
    "ground",
    "slope",
    "bars",
    "bar_colours",
    "blur",
    "blotch",
    "noise",
    "seed",
)


def _syn_background(part: Arrays) -> U8:
    """Draw the backgrounds of `syn` images: a gradient, up to three bars, soft blotches."""
    axis = 2 * np.arange(SIDE, dtype=np.int16) - (SIDE - 1)
    x, y = axis[None, None, :], axis[None, :, None]
    slope = part["slope"].astype(np.int16)[..., None, None]
    mix = np.clip(128 + slope[:, 0] * x + slope[:, 1] * y, 0, 255).astype(np.uint16)
    ground = part["ground"].astype(np.uint16)
    image = _blend(ground[:, 0, :, None, None], ground[:, 1, :, None, None], mix[:, None])
    bars = part["bars"].astype(np.int16)[..., None, None]
    colours = part["bar_colours"].astype(np.uint16)[..., None, None]
    for index in range(bars.shape[1]):
        normal_x, normal_y, offset, half, opacity = (bars[:, index, k] for k in range(5))
        distance = np.abs(normal_x * x + normal_y * y - offset)
        # 32 units are a pixel: the edge rises from nothing to full over one pixel.
        cover = np.clip(half - distance + 16, 0, 32).astype(np.uint16)
        alpha = (cover * opacity.astype(np.uint16) >> np.uint16(5)).astype(np.uint16)
        image = _blend(image, colours[:, index], alpha[:, None])
    nodes = _hash(part["seed"], 5 * 5, 1).reshape(-1, 5, 5).astype(np.int64)
    weights = _lattice_weights()
    blotch = (weights @ nodes @ weights.T) >> 6
    shift = (blotch * part["blotch"].astype(np.int64)[:, None, None]) >> 7
    return np.clip(image + shift[:, None].astype(np.int16), 0, 255).astype(np.uint8)


def _syn_finish(part: Arrays, background: U8) -> U8:
    """Put the ink of `syn` images on their backgrounds, blur them, and add pixel noise."""
    alpha = part["mask"].astype(np.uint16) * 17
    ink = part["ink"].astype(np.uint16)[..., None, None]
    image = _blend(background.astype(np.uint16), ink, alpha[:, None])
    passes = part["blur"].astype(np.int64)
    for step in range(int(passes.max())):
        chosen = passes > step
        image[chosen] = _blurred(image[chosen])
    words = _hash_words(part["seed"], SIDE * SIDE, 2).reshape(-1, SIDE, SIDE)
    amplitude = part["noise"].astype(np.int16)[:, None, None]
    out = np.empty(image.shape, np.uint8)
    for channel in range(3):
        noise = ((words >> np.uint32(8 * channel)) & np.uint32(255)).astype(np.int16) - 128
        noisy = image[:, channel].astype(np.int16) + (noise * amplitude >> 7)
        out[:, channel] = np.clip(noisy, 0, 255)
    return out


def _blend(
    under: npt.NDArray[np.uint16], over: npt.NDArray[np.uint16], alpha: npt.NDArray[np.uint16]
) -> npt.NDArray[np.uint16]:
    """Return `under` with `over` on top; all are 0..255, so that no term exceeds 16 bits."""
    mixed = under * (np.uint16(255) - alpha) + over * alpha
    return np.asarray((mixed + np.uint16(127)) // np.uint16(255), dtype=np.uint16)


def _blurred(image: npt.NDArray[np.uint16]) -> npt.NDArray[np.uint16]:
    """Blur with (1, 2, 1) / 4 along both axes, repeating the border."""
    for axis in (2, 3):
        pad = [(0, 0)] * 4
        pad[axis] = (1, 1)
        wide = np.pad(image, pad, mode="edge")
        low, mid, high = (np.moveaxis(wide, axis, 0)[k : SIDE + k] for k in range(3))
        image = np.moveaxis((low + 2 * mid + high + np.uint16(2)) >> np.uint16(2), 0, axis)
    return image


def _hash_words(seeds: npt.NDArray[np.generic], count: int, stream: int) -> npt.NDArray[np.uint32]:
    """Return `count` pseudo-random 32-bit words per seed, by a stateless integer hash."""
    index = np.arange(count, dtype=np.uint32) * np.uint32(0x9E3779B1)
    start = seeds.astype(np.uint32) * np.uint32(0x85EBCA77) + np.uint32(stream * 0x27D4EB2F)
    word = start[:, None] ^ index
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        word ^= word >> np.uint32(shift)
        word *= np.uint32(factor)
    word ^= word >> np.uint32(16)
    return word


def _hash(seeds: npt.NDArray[np.generic], count: int, stream: int) -> npt.NDArray[np.int16]:
    """Return `count` pseudo-random numbers in -128..127 per seed."""
    words = _hash_words(seeds, count, stream)
    return (words & np.uint32(255)).astype(np.int16) - np.int16(128)


def _bilinear_weights(size: int) -> I64:
    """Return (32, 8) weights in eighths; output pixel i has its centre at (2 i + 1) / 8 - 1 / 2."""
    out = np.zeros((SIDE, size), np.int64)
    for row in range(SIDE):
        low, rest = divmod(2 * row + 1 - 4, 8)
        # Beyond the outermost centres, the border value continues.
        out[row, min(max(low, 0), size - 1)] += 8 - rest
        out[row, min(max(low + 1, 0), size - 1)] += rest
    return out


def _lattice_weights() -> I64:
    """Return (32, 5) weights in eighths, from five nodes eight pixels apart to 32 pixels."""
    out = np.zeros((SIDE, 5), np.int64)
    for row in range(SIDE):
        low, rest = divmod(row, 8)
        out[row, low] = 8 - rest
        out[row, low + 1] = rest
    return out


def _centred(strokes: npt.NDArray[np.generic]) -> U8:
    """Place (N, 28, 28) strokes in the middle of (N, 32, 32)."""
    border = (SIDE - strokes.shape[-1]) // 2
    return np.pad(strokes.astype(np.uint8), ((0, 0), (border, border), (border, border)))


def photo_filter(photos: U8) -> U8:
    """Filter (P, 3, H, W) photographs, without loss, so that they compress better.

    Red and blue become differences from green; then each pixel becomes the difference from a guess
    made from its left, upper and upper left neighbours (all modulo 256). `undo_photo_filter` is the
    inverse.
    """
    out = photos.copy()
    out[:, 0] -= photos[:, 1]
    out[:, 2] -= photos[:, 1]
    out[:, :, 1:] -= out[:, :, :-1].copy()
    out[:, :, :, 1:] -= out[:, :, :, :-1].copy()
    return out


def undo_photo_filter(filtered: U8) -> U8:
    """Return the photographs that `photo_filter` was given."""
    out = np.cumsum(filtered, axis=3, dtype=np.uint8)
    out = np.cumsum(out, axis=2, dtype=np.uint8)
    out[:, 0] += out[:, 1]
    out[:, 2] += out[:, 1]
    return out


COMPOSERS: Mapping[str, Callable[[Arrays], U8]] = {
    "mnist": compose_mnist,
    "optdigits": compose_optdigits,
    "mnistm": compose_mnistm,
    "syn": compose_syn,
}
