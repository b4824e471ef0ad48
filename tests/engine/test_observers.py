"""Plugins that look at a run: before its first round, after each round, at its end."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from fedbench import Run, hookimpl
from fedbench.types import forward, sha256


@pytest.fixture
def starts(add) -> list[dict]:
    """What ``run_start`` of the plugin ``eyes`` was given, call by call."""
    seen: list[dict] = []

    @dataclass(frozen=True, eq=False)
    class Eyes:
        @hookimpl
        def run_start(self, ctx, model, inputs, history, directory):
            torch.rand(3)
            found = {"logits": forward(model, inputs).logits.shape, "history": history}
            seen.append({"ctx": ctx, "inputs": inputs, "directory": directory, **found})

    add(eyes=Eyes)
    return seen


def test_before_round_1_plugins_see_clients_model_and_an_example(run_tiny, starts, tmp_path):
    run = run_tiny(rounds=1, directory=tmp_path / "run", extra={"eyes": {}})
    (seen,) = starts
    assert (seen["ctx"].round, seen["ctx"].rounds) == (0, 1)
    assert seen["ctx"].client_sizes == (18, 18, 18, 18)
    assert seen["logits"] == (1, 3)
    raw = run.runtime.data.train.inputs[:1] / 255
    torch.testing.assert_close(seen["inputs"], (raw - 0.5) / 0.5)  # as `normalize` does by default
    assert seen["history"] == ()
    assert seen["directory"] == tmp_path / "run"


def test_a_run_that_keeps_nothing_has_no_directory(run_tiny, starts):
    run_tiny(rounds=1, extra={"eyes": {}})
    assert starts[0]["directory"] is None


def test_a_resumed_run_starts_with_the_rounds_so_far(registry, tiny_config, starts, tmp_path: Path):
    config = tiny_config(registry, rounds=3, extra={"eyes": {}})
    run = Run(config, tmp_path / "run", registry=registry)
    with closing(run.rounds()) as rounds:
        first = next(rounds)
    Run.resume(tmp_path / "run", registry=registry).run()
    assert [seen["ctx"].round for seen in starts] == [0, 1]
    assert [[r.round for r in seen["history"]] for seen in starts] == [[], [1]]
    assert starts[1]["history"][0].scores == first.scores


def test_what_is_drawn_before_round_1_changes_no_number(run_tiny, starts):
    watched, plain = run_tiny(extra={"eyes": {}}), run_tiny()
    assert starts
    assert sha256(watched.state.weights) == sha256(plain.state.weights)
