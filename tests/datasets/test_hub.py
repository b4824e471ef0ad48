"""`hf` on small local files, as the library `datasets` writes them; nothing needs the network."""

from __future__ import annotations

import importlib
import io
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fedbench_datasets.hub import PRINTABLE, Hub, character_ids, grey, held_out
from fedbench_datasets.natural import Natural
from PIL import Image

pytestmark = pytest.mark.usefixtures("own_cache")

Message = Callable[[Any, Path], str]
Load = Callable[..., Any]

WRITERS = ["f10", "f9", "f9", "f10", "f2", "f9"]
PIXELS = np.random.default_rng(3).integers(0, 256, (6, 28, 28), dtype=np.uint8)


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    # Without the library, the repository's own folder datasets/ can be imported under its name.
    pytest.importorskip("datasets.load", reason="no datasets: pip install -e '.[hf]'")
    found = importlib.import_module("datasets")
    monkeypatch.setattr(found.config, "HF_HUB_OFFLINE", True)
    found.disable_progress_bars()
    return found


def png(pixels: np.ndarray) -> dict[str, Any]:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return {"bytes": file.getvalue(), "path": None}


def letters(library: Any, **columns: Any) -> Any:
    """FEMNIST as it is on the hub, small: images, classes by name, writers; one split."""
    features = library.Features(
        image=library.Image(),
        character=library.ClassLabel(names=["a", "b"]),
        writer_id=library.Value("string"),
    )
    values = {"image": [png(p) for p in PIXELS], "character": [0, 1] * 3, "writer_id": WRITERS}
    return library.Dataset.from_dict({**values, **columns}, features=features)


FEMNIST = {"label": "character", "client": "writer_id", "resolution": 28}


@pytest.fixture
def hub_folder(library: Any, tmp_path: Path) -> Path:
    """A repository of the hub as it is downloaded: one parquet file for each split."""
    for split in ("train", "test"):
        path = tmp_path / f"letters/data/{split}-00000-of-00001.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        letters(library).to_parquet(path)
    return tmp_path


# Images


def test_images_classes_and_writers_come_from_the_named_columns(hub_folder: Path) -> None:
    data = Hub("letters", **FEMNIST).load(hub_folder)
    assert data.classes == ("a", "b")
    assert data.domains == ("letters",)
    assert data.clients == ("f10", "f2", "f9")
    for examples in (data.train, data.test):
        assert examples.labels.tolist() == [0, 1, 0, 1, 0, 1]
        assert [data.clients[n] for n in examples.clients] == WRITERS
        assert examples.inputs.shape == (6, 3, 28, 28)
        assert np.array_equal(examples.inputs.numpy(), np.repeat(PIXELS[:, None], 3, axis=1))
    parts = Natural().partition(data=data, rng=np.random.default_rng(0))
    assert [part.tolist() for part in parts] == [[0, 3], [4], [1, 2, 5]]


def test_every_local_form_gives_the_same_data(library: Any, hub_folder: Path) -> None:
    one = letters(library)
    library.DatasetDict(train=one, test=one).save_to_disk(hub_folder / "saved")
    one.save_to_disk(hub_folder / "single")
    (arrow,) = (hub_folder / "single").glob("*.arrow")
    first = Hub("letters", **FEMNIST).load(hub_folder).train
    absolute = str(hub_folder / "letters/data/train-00000-of-00001.parquet")
    saved = Hub("saved", **FEMNIST).load(hub_folder)
    assert torch.equal(saved.train.inputs, first.inputs)
    for path in ("single", str(arrow), absolute):
        data = Hub(path, test=None, test_share=0.5, **FEMNIST).load(hub_folder)
        both = torch.cat([data.train.inputs, data.test.inputs])
        assert sorted(map(str, both.tolist())) == sorted(map(str, first.inputs.tolist()))


def test_without_a_test_split_a_share_of_every_client_is_held_out(
    library: Any, tmp_path: Path
) -> None:
    letters(library).to_parquet(tmp_path / "x.parquet")
    data = Hub("x.parquet", test=None, test_share=0.5, **FEMNIST).load(tmp_path)
    assert Counter(data.clients[n] for n in data.test.clients) == {"f10": 1, "f9": 1}
    assert Counter(data.clients[n] for n in data.train.clients) == {"f10": 1, "f9": 2, "f2": 1}
    plain = Hub("x.parquet", test=None, test_share=0.5, label="character").load(tmp_path)
    assert (len(plain.train), len(plain.test)) == (3, 3)
    assert plain.clients == ()
    assert plain.train.clients is None


def test_grey_images_keep_their_values_and_colour_becomes_pillows_luma(hub_folder: Path) -> None:
    data = Hub("letters", rgb=False, **FEMNIST).load(hub_folder)
    assert np.array_equal(data.train.inputs.numpy(), PIXELS[:, None])
    colour = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    theirs = np.asarray(Image.fromarray(colour).convert("L"))
    assert np.array_equal(grey(colour.transpose(2, 0, 1)[None])[0, 0], theirs)


def test_decoded_images_are_cached_until_a_file_changes(library: Any, hub_folder: Path) -> None:
    before = Hub("letters", **FEMNIST).load(hub_folder)
    assert len(list((hub_folder / ".cache/hf").glob("*/train.clients.npy"))) == 1
    other = letters(library, writer_id=["x"] * 6)
    other.to_parquet(hub_folder / "letters/data/train-00000-of-00001.parquet")
    after = Hub("letters", **FEMNIST).load(hub_folder)
    assert after.clients == (*before.clients, "x")


# Texts


def test_characters_are_numbered_after_padding_in_front() -> None:
    assert character_ids(["cab", "xa", "", "abcabc"], "abc", 4).tolist() == [
        [0, 4, 2, 3],
        [0, 0, 1, 2],
        [0, 0, 0, 0],
        [2, 3, 4, 2],
    ]
    assert len(PRINTABLE) == 96
    assert character_ids(["\n ~"], PRINTABLE, 3).tolist() == [[2, 3, 97]]


def test_shakespeare_is_read_with_its_characters_as_clients(library: Any, tmp_path: Path) -> None:
    lines = library.Dataset.from_dict(
        {"character_id": [7, 11, 7], "x": ["to be", "or", "not"], "y": [" ", "n", " "]}
    )
    library.DatasetDict(train=lines, test=lines).save_to_disk(tmp_path / "shakespeare")
    columns = {"input": "x", "label": "y", "client": "character_id"}
    data = Hub("shakespeare", length=5, characters="abeno rt", **columns).load(tmp_path)
    assert data.classes == (" ", "n")
    assert data.clients == ("7", "11")
    assert data.train.inputs.dtype == torch.int64
    assert data.train.inputs.tolist() == [[9, 6, 7, 2 + 1, 4], [0, 0, 0, 6, 8], [0, 0, 5, 6, 9]]
    assert data.train.labels.tolist() == [0, 1, 0]


# Held-out examples


def test_the_held_out_share_is_drawn_in_each_client_and_always_the_same() -> None:
    clients = np.random.default_rng(0).integers(0, 7, 500)
    drawn = held_out(clients, 0.2)
    assert np.array_equal(drawn, held_out(clients, 0.2))
    sizes, tested = np.bincount(clients), np.bincount(clients[drawn], minlength=7)
    assert tested.tolist() == (sizes * 0.2).astype(int).tolist()
    assert not np.array_equal(np.flatnonzero(drawn), np.arange(drawn.sum()))


# Errors


def test_without_the_library_it_says_what_to_install(
    tmp_path: Path, message: Message, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    text = message(Hub(), tmp_path)
    assert text == (
        "data set 'hf' needs the library datasets; install it: pip install 'fedbench-toolkit[hf]'"
    )


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"label": "charcter"}, "letters: train: no column 'charcter' (did you mean 'character'?)"),
        ({"client": "who"}, "no column 'who' (known: character, image, writer_id)"),
        ({"input": "character"}, "column 'character' holds ClassLabel("),
        ({"test": "validation"}, "no split 'validation'; there are train, test; test: null"),
        ({"train": "all"}, "no split 'all'; there are train, test"),
        ({"path": "no folder"}, "no folder: no such file or folder"),
        ({"path": "letters/data/notes.txt"}, "notes.txt: expected a file .parquet or .arrow"),
    ],
)
def test_what_is_missing_is_named(
    hub_folder: Path, message: Message, options: dict[str, Any], text: str
) -> None:
    (hub_folder / "letters/data/notes.txt").write_text("x")
    found = message(Hub(**{"path": "letters", **FEMNIST, **options}), hub_folder)
    assert text in found
    assert found.startswith("hf: ")


def test_a_missing_value_is_an_error_that_names_its_row(
    library: Any, tmp_path: Path, message: Message
) -> None:
    for column, values, text in (
        ("character", [0, 1, -1, 0, 1, 0], "train, row 2: character is -1, expected one of 2"),
        ("character", [0, None, 1, 0, 1, 0], "train, row 1: character is None, expected one of 2"),
        ("writer_id", ["a", None, *"bcde"], "row 1: writer_id is None, expected text"),
        ("image", [png(p) for p in PIXELS[:5]] + [None], "train, row 5: no image"),
        ("image", [png(PIXELS[0])] * 5 + [{"bytes": b"GIF8", "path": None}], "row 5: truncated"),
    ):
        letters(library, **{column: values}).to_parquet(tmp_path / "x.parquet")
        assert text in message(Hub("x.parquet", test=None, **FEMNIST), tmp_path)


def test_a_damaged_file_is_one_line(hub_folder: Path, message: Message) -> None:
    path = hub_folder / "letters/data/test-00000-of-00001.parquet"
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], b"PAR1"):
        path.write_bytes(content)
        assert message(Hub("letters", **FEMNIST), hub_folder).startswith("hf: letters")


def test_a_name_on_the_hub_without_network_says_so(
    library: Any, tmp_path: Path, message: Message, capsys: pytest.CaptureFixture[str]
) -> None:
    text = message(Hub("nobody/nothing"), tmp_path)
    assert text.startswith("hf: nobody/nothing: ")
    assert text.endswith(f"and there is no {tmp_path}/nobody/nothing")
    assert "looking for 'nobody/nothing' on the hub" in capsys.readouterr().err


def test_a_character_that_is_listed_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="a character is listed twice"):
        Hub(characters="aba")
