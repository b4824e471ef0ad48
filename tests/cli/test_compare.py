"""``fedbench compare`` as it is typed; what it runs and computes is tested in tests/study."""

from __future__ import annotations

import pytest

from fedbench.study.execute import Progress


@pytest.fixture
def compare(fedbench, monkeypatch):
    """Call ``fedbench compare`` without running anything."""

    def execute(planned, **more):
        planned[0].path.parent.mkdir(parents=True, exist_ok=True)
        return Progress(len(planned))

    monkeypatch.setattr("fedbench.study.comparison.execute", execute)
    return lambda *words: fedbench("compare", "fedavg", "--trust-old", *words)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--seeds", "10"], "10 seeds, 0 to 9\n"),
        (["--seeds", "1"], "1 seed, 0\n"),
        ([], "3 seeds, 0 to 2\n"),
        (["--seeds", "10,"], ""),
        (["--seeds", "3,5"], ""),
        (["--seeds", "10", "--quiet"], ""),
    ],
    ids=str,
)
def test_a_number_of_seeds_says_which_ones(compare, words, line):
    done = compare(*words)
    assert done.stdout == line
    assert done.stderr == "Error: there is no run to report\n"


def test_files_and_changes_are_methods(compare, fedbench, tmp_path):
    (tmp_path / "mine.yaml").write_text(fedbench("config", "fedhpro").stdout)
    done = compare("mine.yaml:-hpal", "fedprox:+faults:faults.drop=0.2", "--quiet")
    assert done.stderr == "Error: there is no run to report\n"


def test_a_dry_run_says_what_would_be_run_and_writes_nothing(fedbench, tmp_path):
    done = fedbench("compare", "fedavg", "fedprox", "--rounds", "4", "--dry-run")
    assert done.stdout == (
        "data digits, card digits\n"
        "fedavg: 3 to run\nfedprox: 3 to run\n6 in all: 6 to run; 24 rounds to go\n"
    )
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_names_data_and_a_card_that_is_for_others(fedbench, tmp_path):
    (tmp_path / "grid.yaml").write_text("methods: [fedavg]\ncards: [fashion-mnist-quick, digits]\n")
    done = fedbench("compare", "--config", "grid.yaml", "--data", "digits", "--dry-run")
    assert done.stdout.splitlines()[:3] == [
        "data digits, card fashion-mnist-quick, which is for fashion-mnist",
        "data digits, card digits",
        "fedavg: 6 to run",
    ]
    lines = fedbench("config", "fedavg", "--data", "digits").stdout.splitlines()
    own = "\n".join(line for line in lines if not line.startswith("  card"))
    (tmp_path / "own.yaml").write_text(own)
    done = fedbench("compare", "own.yaml", "--dry-run")
    assert done.stdout.startswith("data digits, no card\n"), done.stderr
