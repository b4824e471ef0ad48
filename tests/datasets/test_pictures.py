"""Image files of every kind: converted rightly to 8-bit RGB, or refused by file and mode."""

from __future__ import annotations

import os
import struct
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from fedbench_datasets import caching, pictures
from fedbench_datasets.caching import ReadError, Source, Writer
from PIL import Image, ImageFile, ImageOps

from fedbench.types import Dataset

pytestmark = pytest.mark.usefixtures("own_cache")

RNG = np.random.default_rng(5)
COLOURS = RNG.integers(0, 256, (12, 16, 3), dtype=np.uint8)
GREYS = RNG.integers(0, 65536, (12, 16)).astype(np.uint16)
RGB = Image.fromarray(COLOURS)


def read(path: Path) -> np.ndarray:
    """Return the pixels (height, width, 3) of a file, not resized: its squares are 12 x 12."""
    return pictures.image(str(path), 12, "crop").pixels.transpose(1, 2, 0)


def square(pixels: np.ndarray) -> np.ndarray:
    """Return the middle (12, 12) of pixels (12, 16)."""
    return pixels[:, 2:14]


def refused(path: Path) -> str:
    with pytest.raises(ReadError) as raised:
        read(path)
    text = str(raised.value)
    assert text.startswith(f"{path}: ")
    assert "\n" not in text
    return text


# ordinary files


@pytest.mark.parametrize("name", ["x.png", "x.jpg", "x.bmp", "x.ppm", "x.tif", "x.webp"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_8_bit_files_have_the_bytes_that_torchvision_reads(
    tmp_path: Path, name: str, mode: str
) -> None:
    from torchvision.datasets.folder import default_loader

    RGB.convert(mode).save(tmp_path / name)
    assert np.array_equal(
        read(tmp_path / name), square(np.asarray(default_loader(tmp_path / name)))
    )


@pytest.mark.parametrize("mode", ["1", "P"])
def test_one_bit_and_palettes_keep_their_colours(tmp_path: Path, mode: str) -> None:
    RGB.convert(mode).save(tmp_path / "x.png")
    with Image.open(tmp_path / "x.png") as picture:
        assert picture.mode == mode
    right = np.asarray(RGB.convert(mode).convert("RGB"))
    assert np.array_equal(read(tmp_path / "x.png"), square(right))


# 16 bits


def rounded(grey: np.ndarray) -> np.ndarray:
    """Return 16-bit values on the scale of 8 bits, in three channels."""
    return np.repeat(np.rint(grey / 257).astype(np.uint8)[..., None], 3, axis=2)


@pytest.mark.parametrize("name", ["x.png", "x.tif", "x.pgm"])
def test_16_bit_grey_is_divided_by_257(tmp_path: Path, name: str) -> None:
    Image.fromarray(GREYS).save(tmp_path / name)
    assert np.array_equal(read(tmp_path / name), square(rounded(GREYS)))


def test_16_bit_grey_in_a_compressed_big_endian_tiff_is_divided_by_257(tmp_path: Path) -> None:
    Image.fromarray(GREYS).save(tmp_path / "x.tif", compression="tiff_lzw")
    assert np.array_equal(read(tmp_path / "x.tif"), square(rounded(GREYS)))
    Image.fromarray(GREYS.astype(">u2")).save(tmp_path / "y.tif")
    assert np.array_equal(read(tmp_path / "y.tif"), square(rounded(GREYS)))


def test_16_bit_tiff_whose_zero_is_white_is_inverted(tmp_path: Path) -> None:
    Image.fromarray(GREYS).save(tmp_path / "x.tif", tiffinfo={262: 0})
    assert np.array_equal(read(tmp_path / "x.tif"), square(rounded(65535 - GREYS)))


def png(path: Path, pixels: np.ndarray, kind: int) -> None:
    """Write a 16-bit PNG (height, width, channels) of a colour type that Pillow can't write."""

    def chunk(name: bytes, data: bytes) -> bytes:
        checksum = zlib.crc32(name + data)
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", checksum)

    height, width, _ = pixels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    head = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)
    parts = [chunk(b"IHDR", head), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))


def test_16_bit_colour_keeps_its_upper_bytes(tmp_path: Path) -> None:
    deep = COLOURS.astype(np.uint16) * 256 + 77
    png(tmp_path / "x.png", deep, 2)
    assert np.array_equal(read(tmp_path / "x.png"), square(COLOURS))


def decode(paths: list[Path]) -> Dataset:
    """Decode files into a cache, as data sets do; each is in both splits."""

    def run(out: Writer) -> tuple[list[str], list[str]]:
        for split in ("train", "test"):
            pictures.add_images(out, split, [(str(path), 0) for path in paths], 12)
        return ["a"], ["x"]

    source = Source(paths[0].parent, paths, run)
    return caching.load(source, paths[0].parent / "root", "x", {})


def dark(path: Path, peak: int, channels: int = 1) -> Path:
    values = np.linspace(0, peak, 12 * 16 * channels).astype(np.uint16)
    if channels == 1:
        Image.fromarray(values.reshape(12, 16)).save(path)
    else:
        png(path, values.reshape(12, 16, channels), 2 if channels == 3 else 6)
    return path


@pytest.mark.parametrize(("channels", "peak"), [(1, 4095), (3, 1023), (4, 15)])
def test_12_bit_values_in_16_bit_files_are_refused(
    tmp_path: Path, channels: int, peak: int
) -> None:
    path = dark(tmp_path / "x.png", peak, channels)
    if channels == 4:  # its alpha channel is what it is
        values = np.zeros((12, 16, 4), np.uint16)
        values[..., :3] = np.arange(192).reshape(12, 16, 1) * 20
        values[..., 3] = 65535
        png(path, values, 6)
    with pytest.raises(ReadError, match=r"x.png: its 16-bit values reach \d+ of 65,535"):
        decode([path])


def test_a_dark_16_bit_file_among_others_is_read(tmp_path: Path) -> None:
    decode([dark(tmp_path / "x.png", 900), dark(tmp_path / "y.png", 60_000)])


# modes without agreed values


def test_what_has_no_agreed_range_is_refused_by_file_and_mode(tmp_path: Path) -> None:
    Image.fromarray(GREYS.astype(np.float32)).save(tmp_path / "f.tif")
    assert "f.tif: pixels of mode F have no agreed values" in refused(tmp_path / "f.tif")
    Image.fromarray(GREYS.astype(np.int32)).save(tmp_path / "i.tif")
    assert "i.tif: pixels of mode I have no agreed values" in refused(tmp_path / "i.tif")
    (tmp_path / "p.ppm").write_bytes(b"Pf\n2 2\n-1.0\n" + bytes(16))
    assert "p.ppm: pixels of mode F have no agreed values" in refused(tmp_path / "p.ppm")
    Image.new("LAB", (16, 12)).save(tmp_path / "l.tif")
    assert "l.tif: pixels of mode LAB have no agreed values" in refused(tmp_path / "l.tif")


def test_16_bits_with_a_transparent_grey_are_refused(tmp_path: Path) -> None:
    Image.fromarray(GREYS).save(tmp_path / "x.png", transparency=7)
    assert "mode I;16 with a transparent colour" in refused(tmp_path / "x.png")


def test_formats_that_start_programs_are_not_opened(tmp_path: Path) -> None:
    RGB.save(tmp_path / "x.eps")
    (tmp_path / "x.eps").rename(tmp_path / "x.png")
    assert "unknown format" in refused(tmp_path / "x.png")


# print colours


def test_cmyk_is_converted_also_where_adobe_inverts_it(tmp_path: Path) -> None:
    Image.new("RGB", (12, 12), (200, 60, 20)).convert("CMYK").save(tmp_path / "x.jpg", quality=100)
    assert b"Adobe" in (tmp_path / "x.jpg").read_bytes()  # so its values are inverted
    right = np.full((12, 12, 3), (200, 60, 20))
    assert np.abs(read(tmp_path / "x.jpg").astype(int) - right).max() <= 3
    RGB.convert("CMYK").save(tmp_path / "x.tif")
    assert np.abs(read(tmp_path / "x.tif").astype(int) - square(COLOURS)).max() <= 1


# transparency


def with_alpha(alpha: np.ndarray, colours: np.ndarray = COLOURS) -> Image.Image:
    return Image.fromarray(np.dstack([colours, alpha]))


HALF = np.where(np.arange(16) < 8, 255, 0).astype(np.uint8)[None].repeat(12, axis=0)


def test_transparent_pixels_are_white(tmp_path: Path) -> None:
    with_alpha(HALF).save(tmp_path / "x.png")
    right = np.where(HALF[..., None] == 255, COLOURS, 255)
    assert np.array_equal(read(tmp_path / "x.png"), square(right))
    with_alpha(HALF).save(tmp_path / "x.webp", lossless=True)
    assert np.array_equal(read(tmp_path / "x.webp"), square(right))


def test_half_transparent_pixels_are_mixed_with_white(tmp_path: Path) -> None:
    with_alpha(np.full((12, 16), 128, np.uint8)).save(tmp_path / "x.png")
    right = 255 - (255 - COLOURS.astype(float)) * 128 / 255
    assert np.abs(read(tmp_path / "x.png") - square(right)).max() <= 1


def test_a_shape_that_is_only_in_the_alpha_channel_is_seen(tmp_path: Path) -> None:
    with_alpha(HALF, np.zeros_like(COLOURS)).save(tmp_path / "x.png")
    assert np.array_equal(read(tmp_path / "x.png")[..., 0], square(255 - HALF))


def test_grey_and_palettes_with_transparency_are_put_on_white(tmp_path: Path) -> None:
    with_alpha(HALF).convert("LA").save(tmp_path / "la.png")
    assert (read(tmp_path / "la.png")[:, 6:] == 255).all()
    stripes = Image.fromarray((HALF // 255) * 3)
    stripes.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 110, 120])
    stripes.save(tmp_path / "p.png", transparency=0)
    found = read(tmp_path / "p.png")
    assert (found[:, :6] == (100, 110, 120)).all()
    assert (found[:, 6:] == 255).all()
    stripes.save(tmp_path / "p.gif", transparency=0)
    assert np.array_equal(read(tmp_path / "p.gif"), found)


def test_a_transparent_colour_of_a_png_is_white(tmp_path: Path) -> None:
    Image.fromarray(HALF // 255 * 9).save(tmp_path / "l.png", transparency=0)
    assert (read(tmp_path / "l.png")[:, 6:] == 255).all()
    colours = np.where(HALF[..., None] == 255, COLOURS, (1, 2, 3)).astype(np.uint8)
    Image.fromarray(colours).save(tmp_path / "c.png", transparency=(1, 2, 3))
    assert (read(tmp_path / "c.png")[:, 6:] == 255).all()


def test_an_opaque_alpha_channel_changes_nothing(tmp_path: Path) -> None:
    with_alpha(np.full((12, 16), 255, np.uint8)).save(tmp_path / "x.png")
    assert np.array_equal(read(tmp_path / "x.png"), square(COLOURS))


@pytest.mark.parametrize(
    ("alpha", "colours"),
    [(HALF, np.full_like(COLOURS, 255)), (np.zeros_like(HALF), COLOURS)],
    ids=["white on transparent", "pictures behind alpha 0"],
)
def test_what_would_vanish_on_white_is_refused(
    tmp_path: Path, alpha: np.ndarray, colours: np.ndarray
) -> None:
    with_alpha(alpha, colours).save(tmp_path / "x.png")
    assert "(mode RGBA) can be seen on white" in refused(tmp_path / "x.png")


def test_an_empty_transparent_tile_is_white(tmp_path: Path) -> None:
    Image.new("RGBA", (12, 12)).save(tmp_path / "x.png")
    assert (read(tmp_path / "x.png") == 255).all()


# orientation


@pytest.mark.parametrize("name", ["x.jpg", "x.png", "x.tif", "x.webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_as_their_exif_data_say(
    tmp_path: Path, name: str, orientation: int
) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    RGB.save(tmp_path / name, exif=exif, quality=100)
    with Image.open(tmp_path / name) as picture:
        upright = ImageOps.exif_transpose(picture).convert("RGB")
    assert upright.size == ((12, 16) if orientation > 4 else (16, 12))
    right = upright.resize((8, 8), Image.Resampling.BILINEAR)
    found = pictures.image(str(tmp_path / name), 8).pixels
    assert np.array_equal(found, np.asarray(right).transpose(2, 0, 1))


@pytest.mark.parametrize("exif", [b"Exif\0\0MM\0*\0\0\0\x08\0", b"Exif\0\0nonsense", b""])
def test_damaged_exif_data_do_not_matter(tmp_path: Path, exif: bytes) -> None:
    RGB.save(tmp_path / "x.jpg", exif=exif, quality=100)
    RGB.save(tmp_path / "y.jpg", quality=100)
    with_exif, plain = decode([tmp_path / "x.jpg", tmp_path / "y.jpg"]).train.inputs
    assert np.array_equal(with_exif, plain)


# several pictures in one file


@pytest.mark.parametrize("name", ["x.gif", "x.png", "x.webp", "x.tif"])
def test_the_first_of_several_pictures_is_used(tmp_path: Path, name: str) -> None:
    first, second = Image.new("RGB", (12, 12), "red"), Image.new("RGB", (12, 12), "blue")
    more = {"lossless": True} if name.endswith("webp") else {}
    first.save(tmp_path / name, save_all=True, append_images=[second, first], **more)
    assert (read(tmp_path / name) == (255, 0, 0)).all()


def test_that_only_the_first_is_used_is_said_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [tmp_path / f"{n}.gif" for n in range(3)]
    for path in paths:
        RGB.save(path, save_all=True, append_images=[RGB.rotate(90)])
    RGB.save(tmp_path / "phone.jpg", "MPO", save_all=True, append_images=[RGB])  # one picture
    decode([*paths, tmp_path / "phone.jpg"])
    assert capsys.readouterr().err == (
        f"x: of several pictures in one file, only the first is used: {paths[0]} and 5 more\n"
    )  # three files, each in both splits


# damage and traps


TRAPS: list[tuple[Callable[[Path], object], str]] = [
    (lambda p: p.symlink_to("/dev/zero"), "a pipe, socket or device, not a file"),
    (os.mkfifo, "a pipe, socket or device, not a file"),
    (lambda p: p.symlink_to("/proc/self/mem"), "empty"),  # a file without an end
    (lambda p: p.write_bytes(b""), "truncated or damaged: empty"),
    (lambda p: p.mkdir(), "a folder, not a file"),
    (lambda p: p.symlink_to(p), "Too many levels of symbolic links"),
    (lambda p: p.symlink_to(p.parent / "gone"), "no such file"),
]


@pytest.mark.skipif(sys.platform != "linux", reason="needs pipes and /proc")
@pytest.mark.parametrize(("make", "text"), TRAPS)
def test_what_is_not_a_file_with_an_end_is_never_opened(
    tmp_path: Path,
    make: Callable[[Path], object],
    text: str,
) -> None:
    make(tmp_path / "x.png")
    with pytest.raises(ReadError) as raised:
        decode([tmp_path / "x.png"])
    assert str(raised.value).startswith(f"{tmp_path / 'x.png'}: ")
    assert text in str(raised.value)


def test_a_file_larger_than_any_picture_is_never_opened(tmp_path: Path) -> None:
    with (tmp_path / "x.png").open("wb") as file:
        file.truncate(caching.LARGEST + 1)  # takes no room on disk
    with pytest.raises(ReadError, match=r"x\.png: 4,294,967,297 bytes are too many"):
        decode([tmp_path / "x.png"])


@pytest.mark.parametrize("side", [9_500, 20_000, 60_000])
def test_a_picture_that_would_fill_the_memory_is_refused(tmp_path: Path, side: int) -> None:
    Image.new("1", (8, 8)).save(tmp_path / "x.png")
    data = bytearray((tmp_path / "x.png").read_bytes())
    data[16:24] = struct.pack(">II", side, side)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    (tmp_path / "x.png").write_bytes(data)
    assert "more than 89,478,485 pixels" in refused(tmp_path / "x.png")


@pytest.mark.parametrize("name", ["x.jpg", "x.png", "x.tif", "x.bmp", "x.webp"])
def test_a_truncated_file_is_refused_even_where_the_process_allows_it(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    RGB.save(tmp_path / name)
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[: len(content) // 2])
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with pytest.raises(ReadError, match=f"{name}: truncated or damaged"):
        decode([tmp_path / name])
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True


def test_files_are_read_in_as_many_threads_as_cores_are_allowed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[int] = []

    class Threads(pictures.ThreadPoolExecutor):
        def __init__(self, number: int) -> None:
            asked.append(number)
            super().__init__(number)

    monkeypatch.setattr(pictures, "ThreadPoolExecutor", Threads)
    for allowed, threads in ((1, 1), (3, 3), (64, 8)):
        monkeypatch.setattr(pictures, "cores", lambda allowed=allowed: allowed)
        pictures.add_images(Writer.__new__(Writer), "train", [], 8)
        assert asked.pop() == threads
