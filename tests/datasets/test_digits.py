"""The embedded data set `digits`: its content, its disjoint parts, and damage to its packs."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
from fedbench_datasets import digits

SIZES = {
    "mnist": (4000, 1000),
    "optdigits": (1287, 510),
    "mnistm": (4000, 1000),
    "syn": (4000, 1000),
}
EACH = [(domain, split) for domain in digits.DOMAINS for split in digits.SPLITS]


@pytest.fixture(scope="module")
def loaded():
    return digits.load()


@pytest.fixture(scope="module")
def packs():
    return {domain: digits.read_pack(domain) for domain in digits.DOMAINS}


@pytest.fixture
def copied(tmp_path):
    folder = tmp_path / "packs"
    shutil.copytree(digits.PACKS_FOLDER, folder)
    return folder


def rows(array):
    """Return the items of an array as a set of byte strings."""
    return {item.tobytes() for item in array}


def test_domains_and_splits_come_in_order(loaded):
    assert tuple(loaded) == digits.DOMAINS == ("mnist", "optdigits", "mnistm", "syn")
    assert all(tuple(splits) == ("train", "test") for splits in loaded.values())
    assert tuple("0123456789") == digits.CLASSES


@pytest.mark.parametrize(("domain", "split"), EACH)
def test_shapes_types_and_counts(loaded, domain, split):
    images, labels = loaded[domain][split]
    count = SIZES[domain][digits.SPLITS.index(split)]
    assert images.shape == (count, 3, 32, 32)
    assert images.dtype == np.uint8
    assert images.flags.c_contiguous
    assert labels.shape == (count,)
    assert labels.dtype == np.int64
    assert images.min() == 0
    assert images.max() >= 250


@pytest.mark.parametrize(("domain", "split"), EACH)
def test_digests(loaded, domain, split):
    assert digits.digest(*loaded[domain][split]) == digits.SHA256[domain][split]


@pytest.mark.parametrize(("domain", "split"), EACH)
def test_classes_are_balanced(loaded, domain, split):
    counts = np.bincount(loaded[domain][split][1], minlength=10)
    assert len(counts) == 10
    if domain == "optdigits":
        assert counts.min() >= 0.9 * counts.max()
    else:
        assert len(set(counts.tolist())) == 1


@pytest.mark.parametrize(("domain", "split"), EACH)
def test_every_prefix_is_about_balanced(loaded, domain, split):
    labels = loaded[domain][split][1]
    share = np.bincount(labels, minlength=10) / len(labels)
    for length in range(1, len(labels) + 1, 7):
        counts = np.bincount(labels[:length], minlength=10)
        assert np.abs(counts - share * length).max() <= 2


def test_the_order_is_shuffled(loaded):
    labels = loaded["mnist"]["train"][1]
    assert len({tuple(block) for block in labels.reshape(-1, 10).tolist()}) > 300


def test_composing_twice_gives_the_same(loaded):
    again = digits.load()
    for domain, split in EACH:
        for first, second in zip(loaded[domain][split], again[domain][split], strict=True):
            np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("domain", ["mnist", "optdigits"])
def test_the_plain_domains_are_grey(loaded, domain):
    images = loaded[domain]["train"][0]
    assert (images[:, 0] == images[:, 1]).all()
    assert (images[:, 1] == images[:, 2]).all()


def test_optdigits_keeps_the_values_it_enlarges(packs):
    flat = {"digits": np.full((17, 8, 8), np.arange(17)[:, None, None], np.uint8)}
    images = digits.compose_optdigits(flat)
    expected = np.array([(value * 255 + 8) // 16 for value in range(17)])
    assert (images == expected[:, None, None, None]).all()
    assert packs["optdigits"]["train_digits"].max() == 16


def test_mnistm_is_the_difference_of_patch_and_stroke(packs, loaded):
    pack = packs["mnistm"]
    photos = digits.undo_photo_filter(pack["test_photos"]).astype(int)
    photo, top, left = pack["test_patches"][7].tolist()
    patch = photos[photo][:, top : top + 32, left : left + 32]
    stroke = np.pad(pack["test_strokes"][7].astype(int), 2)
    np.testing.assert_array_equal(loaded["mnistm"]["test"][0][7], np.abs(patch - stroke))


def test_the_photo_filter_loses_nothing():
    photos = np.random.RandomState(0).randint(0, 256, (2, 3, 9, 7)).astype(np.uint8)
    np.testing.assert_array_equal(digits.undo_photo_filter(digits.photo_filter(photos)), photos)


def test_no_stroke_is_used_twice(packs):
    parts = [
        packs[domain][f"{split}_strokes"]
        for domain in ("mnist", "mnistm")
        for split in digits.SPLITS
    ]
    assert len(set().union(*map(rows, parts))) == sum(map(len, parts)) == 10000


def test_strokes_of_mnist_and_mnistm_are_different_images_of_mnist(packs):
    for split in digits.SPLITS:
        one = set(packs["mnist"][f"{split}_source"].tolist())
        other = set(packs["mnistm"][f"{split}_source"].tolist())
        assert len(one) == len(other) == SIZES["mnist"][digits.SPLITS.index(split)]
        assert not one & other


def test_optdigits_is_cut_between_two_forms(packs):
    train, test = (packs["optdigits"][f"{split}_source"] for split in digits.SPLITS)
    assert sorted(train) == list(range(1287))
    assert sorted(test) == list(range(1287, 1797))
    # A form starts with 0..9 three times over: the cut is just before one.
    labels = np.empty(1797, int)
    labels[train] = packs["optdigits"]["train_labels"]
    labels[test] = packs["optdigits"]["test_labels"]
    np.testing.assert_array_equal(labels[1287:1317], np.tile(np.arange(10), 3))
    assert not rows(packs["optdigits"]["train_digits"]) & rows(packs["optdigits"]["test_digits"])


def test_photographs_of_train_and_test_are_disjoint(packs):
    pack = packs["mnistm"]
    assert not set(pack["train_photo_names"].tolist()) & set(pack["test_photo_names"].tolist())
    assert not rows(pack["train_photos"]) & rows(pack["test_photos"])
    for split in digits.SPLITS:
        count, _, height, width = pack[f"{split}_photos"].shape
        photo, top, left = pack[f"{split}_patches"].T
        assert set(photo.tolist()) == set(range(count))
        assert top.max() <= height - 32
        assert left.max() <= width - 32


def test_font_families_of_train_and_test_are_disjoint(packs):
    pack = packs["syn"]
    train, test = (
        set(pack["font_families"][pack[f"{split}_font"]].tolist()) for split in digits.SPLITS
    )
    assert len(train) > 80
    assert len(test) > 25
    assert not train & test


def test_the_table_of_fonts_is_the_one_of_the_pack(packs):
    table = Path(digits.__file__).parents[1] / "digits_fonts.tsv"
    if not table.is_file():
        pytest.skip("the table is in the source tree only")
    with table.open(encoding="utf-8", newline="") as lines:
        expected = [
            (row["family"], file)
            for row in csv.DictReader(lines, delimiter="\t")
            for file in row["files"].split("; ")
        ]
    found = zip(packs["syn"]["font_families"], packs["syn"]["font_files"], strict=True)
    assert list(found) == expected


def test_a_pack_holds_nothing_but_whole_numbers_and_names(packs):
    for pack in packs.values():
        assert {array.dtype.kind for array in pack.values()} <= {"u", "i", "U"}


def test_the_packs_are_small():
    size = sum(digits.pack_path(domain).stat().st_size for domain in digits.DOMAINS)
    assert size <= 6_000_000


def test_a_missing_pack_is_named(copied):
    path = digits.pack_path("syn", copied)
    path.unlink()
    with pytest.raises(digits.DigitsError) as caught:
        digits.load_domain("syn", copied)
    assert str(path) in str(caught.value)
    assert str(caught.value).endswith(": reinstall the package fedbench-toolkit")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("damage", ["empty", "truncated", "flipped", "longer"])
@pytest.mark.parametrize("domain", digits.DOMAINS)
def test_a_damaged_pack_is_refused(copied, domain, damage):
    path = digits.pack_path(domain, copied)
    raw = bytearray(path.read_bytes())
    if damage == "empty":
        raw.clear()
    elif damage == "truncated":
        del raw[len(raw) // 2 :]
    elif damage == "flipped":
        raw[len(raw) // 3] ^= 1
    else:
        raw.append(0)
    path.write_bytes(raw)
    with pytest.raises(digits.DigitsError) as caught:
        digits.load(copied)
    text = str(caught.value)
    assert str(path) in text
    assert digits.PACK_SHA256[domain] in text
    assert text.endswith(": reinstall the package fedbench-toolkit")
    assert "\n" not in text


def test_another_result_is_refused(monkeypatch):
    monkeypatch.setitem(digits.SHA256["optdigits"], "test", "0" * 64)
    with pytest.raises(
        digits.DigitsError, match=r"expected SHA-256 0{64} of the composed optdigits/test"
    ):
        digits.load_domain("optdigits")
