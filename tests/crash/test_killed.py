"""kill -9 at named points: the resumed run ends with the same bits, and leaves nothing behind."""

from __future__ import annotations

import itertools
import json
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fedbench.plugins.discovery import discover
from fedbench.plugins.registry import Registry

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="forks, reads /proc")

ROUNDS, DIGESTS = 3, ("weights_sha256", "metrics_sha256")
# centralised has one client, so that some points never come; pfedme has no batches of sgd
RECIPES = sorted({*discover().names("recipe")} - {"centralised", "pfedme"})

IN_ROUNDS = [
    *(f"a client starts {k}" for k in (1, 4, 8)),
    *(f"a client ends {k}" for k in (1, 5, 9)),
    *(f"a backward pass {k}" for k in (1, 7, 17)),
    *(f"an optimiser's step {k}" for k in (3, 11)),
    *(f"a result is aggregated {k}" for k in (1, 3, 5, 9)),
    *(f"the weights are averaged {k}" for k in (1, 2, 3)),
    *(f"the server updates {k}" for k in (1, 2, 3)),
    *(f"evaluation starts {k}" for k in (1, 3)),
    *(f"a test batch {k}" for k in (1, 2, 4, 6)),
    *(f"evaluation ends {k}" for k in (1, 2, 3)),
    *(f"half a line of rounds.jsonl {k}" for k in (1, 2, 3)),
    *(f"a line of rounds.jsonl is written {k}" for k in (1, 2, 3)),
    *(f"states are committed {k}" for k in (1, 2, 4)),
]
IN_FILES = [
    *(f"{step} of state- {k}" for step in ("open", "half", "flush", "moved") for k in (1, 2)),
    *(f"{s} of checkpoint.json {k}" for s in ("open", "half", "flush", "moved") for k in (1, 3)),
    *(f"a checkpoint is written {k}" for k in (1, 2, 3)),
    *(f"old client files go {k}" for k in (1, 2)),
    *(f"client files have gone {k}" for k in (2, 3)),
    *(f"{step} of config.yaml 1" for step in ("open", "half", "moved")),
    *(f"{step} of environment.json 1" for step in ("half", "moved")),
    *(f"{step} of partition.json 1" for step in ("half", "moved")),
    *(f"{step} of model.safetensors 1" for step in ("half", "moved")),
    *(f"{step} of result.json 1" for step in ("half", "moved")),
    "the folder is tidied 1",
    "the folder is tidy 1",
]
POINTS = [*IN_ROUNDS, *IN_FILES]
PAIRS = list(
    dict.fromkeys(
        zip(
            itertools.cycle(POINTS),
            itertools.islice(itertools.cycle(RECIPES), max(len(POINTS), 3 * len(RECIPES))),
            strict=False,
        )
    )
)
"""Every point once, and every method at three points or more; a sixth of them without -m long."""


def test_there_are_enough_points_for_every_method() -> None:
    assert len(set(POINTS)) == len(POINTS) >= 60
    assert min([method for _, method in PAIRS].count(m) for m in RECIPES) >= 3


@pytest.fixture(scope="session")
def whole(
    installed: Registry, tiny_config: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], tuple[str, list[str], dict[str, Any]]]:
    """Return a method's config as YAML, and an undisturbed run's file names and result."""
    from fedbench.engine.run import Run

    made: dict[str, tuple[str, list[str], dict[str, Any]]] = {}

    def get(method: str) -> tuple[str, list[str], dict[str, Any]]:
        if method not in made:
            extra = {"uniform": {"fraction": 0.75}, "sgd": {"batch_size": 9}}
            config = tiny_config(installed, method, rounds=ROUNDS, extra=extra)
            folder = tmp_path_factory.mktemp("whole") / "run"
            result = Run(config, folder, registry=installed).run()
            made[method] = (config.to_yaml(), names(folder), result)
        return made[method]

    return get


def names(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*"))


@pytest.mark.parametrize(
    ("point", "method"),
    [
        pytest.param(*pair, id=", ".join(pair), marks=[pytest.mark.long] if i % 6 else [])
        for i, pair in enumerate(PAIRS)
    ],
)
def test_a_killed_run_is_resumed_to_the_same_bits(
    point: str,
    method: str,
    whole: Callable[..., Any],
    fork: Callable[..., Any],
    points: Any,
    processes: Callable[[int], bool],
    tmp_path: Path,
) -> None:
    config, files, result = whole(method)
    file, run = tmp_path / "mine.yaml", tmp_path / "run"
    file.write_text(config)
    words = ["run", file, "--out", run, "--checkpoint-rounds", 1]
    # The workers' parent passes the points outside clients too, so no process may be orphaned.
    if PAIRS.index((point, method)) % 5 == 0 and not point.startswith(("a client", "a back", "an")):
        words += ["--executor", "pool", "--workers", 2]
    killed = fork(words, lambda: points().set(point)).wait()
    assert killed.status == -signal.SIGKILL, killed
    assert "Traceback" not in killed.out + killed.err
    assert processes(killed.pid), "a process outlived its parent"

    if (run / "result.json").is_file():  # killed while tidying up: the result stands
        done = fork(["resume", run]).wait()
        assert done.status == 1
        assert done.err == f"Error: {run} is finished; `fedbench show {run}` prints it\n"
    else:
        again = ["resume", run] if (run / "config.yaml").is_file() else words
        done = fork(again).wait()
        assert done.status == 0, done
        assert "Traceback" not in done.out + done.err
    found = json.loads((run / "result.json").read_text())
    assert [found[key] for key in DIGESTS] == [result[key] for key in DIGESTS]
    assert found["accuracy"] == result["accuracy"]
    assert names(run) == files
