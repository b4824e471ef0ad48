"""Tables of examples per class, by data set and by client, with few classes and with many."""

from __future__ import annotations

import pytest
from PIL import Image

from fedbench.cli.counts import summarised

MANY_CLASSES = """
from dataclasses import dataclass
import torch
from fedbench import Dataset, Examples, hookimpl
fedbench_api = 1

@dataclass(frozen=True, eq=False)
class Many:
    '''So many classes.'''
    classes: int = 1

    def load(self, root):
        # Of the training examples, class 0 has one, class 1 has two, the others three.
        names = tuple(f"class-{n}" for n in range(self.classes))
        counts = torch.arange(1, self.classes + 1).clamp(max=3)
        labels = torch.arange(self.classes).repeat_interleave(counts)
        def examples(labels):
            return Examples(
                torch.zeros(len(labels), 3, 4, 4, dtype=torch.uint8),
                labels,
                torch.zeros(len(labels), dtype=torch.int64),
            )
        return Dataset(names, ("here",), examples(labels), examples(labels[:1]))

def many(n):
    return type(f"Many{n}", (Many,), {"load": lambda self, root: Many(n).load(root)})

@hookimpl
def register_datasets():
    return {f"many-{n}": dataclass(frozen=True, eq=False)(many(n)) for n in (1, 10, 200, 1500)}
"""


@pytest.fixture
def show(fedbench, install, monkeypatch):
    """Return a function that shows the data set with ``n`` classes: its printed lines."""
    install("many-classes", MANY_CLASSES)
    monkeypatch.setenv("COLUMNS", "80")

    def lines(classes: int) -> list[list[str]]:
        done = fedbench("data", "show", f"many-{classes}")
        assert done.exit_code == 0
        return [line.split() for line in done.stdout.splitlines() if line.strip()]

    return lines


def test_one_class_has_a_column(show) -> None:
    lines = show(1)
    assert ["domain", "split", "examples", "class-0"] in lines
    assert ["here", "train", "1", "1"] in lines


@pytest.mark.parametrize("classes", [10, 200, 1500])
def test_classes_that_do_not_fit_are_summarised(show, classes: int) -> None:
    lines = show(classes)
    assert ["domain", "split", "examples", "classes", "min", "median", "max"] in lines
    assert ["here", "train", str(3 * classes - 3), str(classes), "1", "3", "3"] in lines
    assert ["here", "test", "1", "1", "1", "1", "1"] in lines
    names = ", ".join(f"class-{n}" for n in range(5))
    said = f"{classes:,} classes: {names} and {classes - 5:,} more; min, median and max are the "
    assert any(" ".join(line).startswith(said) for line in lines)


def test_classes_that_fit_have_a_column_each(show, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "140")
    lines = show(10)
    assert ["here", "train", "27", "1", "2", *["3"] * 8] in lines


def test_a_contact_sheet_shows_the_first_of_very_many_classes(show, tmp_path) -> None:
    lines = show(1500)
    said = "(one row for each of the first 100 classes, 20 training images each)"
    assert " ".join(lines[-1]).endswith(said)
    with Image.open(tmp_path / "many-1500-here.png") as sheet:
        assert sheet.size == (20 * 6 + 2, 100 * 6 + 2)


EACH = "domains.examples=null"


def test_a_partition_is_summarised_too(fedbench, install, monkeypatch) -> None:
    install("many-classes", MANY_CLASSES)
    monkeypatch.setenv("COLUMNS", "80")
    done = fedbench("partition", "--data", "many-200", "--card", "digits", "--set", EACH)
    assert done.exit_code == 0, done.output
    rows = [line.split() for line in done.stdout.splitlines() if line.strip()]
    assert ["client", "domain", "examples", "classes", "min", "median", "max"] in rows
    assert any(row[:2] == ["0", "here"] and len(row) == 7 for row in rows)


@pytest.mark.parametrize(
    ("counts", "said"),
    [
        ([0, 0], ("0", "-", "-", "-")),
        ([0, 4], ("1", "4", "4", "4")),
        ([1, 2, 0, 7], ("3", "1", "2", "7")),
        ([1, 2], ("2", "1", "1.5", "2")),
    ],
)
def test_a_summary_is_over_the_classes_with_examples(counts, said) -> None:
    assert summarised(counts) == said
