"""Plugins that look at a run: before its first round, after each round, at its end."""

from __future__ import annotations

import re
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from fedbench import ConfigError, Run, hookimpl
from fedbench.engine.verify import Kept
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


# --- the end -------------------------------------------------------------------------------------


@pytest.fixture
def ends(add) -> list[tuple]:
    """What ``run_end`` of the plugin ``last`` was given, call by call, and what was there then."""
    seen: list[tuple] = []

    @dataclass(frozen=True, eq=False)
    class Last:
        @hookimpl
        def run_end(self, status, error, directory):
            kept = directory is not None and (directory / "result.json").exists()
            seen.append((status, error, kept))

    add(last=Last)
    return seen


def break_in_round_2(add, error: BaseException) -> None:
    """Register ``bad``, whose clients raise ``error`` in round 2."""

    @dataclass(frozen=True, eq=False)
    class Bad:
        @hookimpl
        def after_backward(self, ctx):
            if ctx.round == 2:
                raise error

    add(bad=Bad)


def test_a_finished_run_ends_once_its_result_is_written(run_tiny, ends, tmp_path):
    run_tiny(directory=tmp_path / "run", extra={"last": {}})
    assert ends == [("finished", None, True)]


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ConfigError("this\ncannot work"), "this cannot work in round 2, client 0"),
        (ZeroDivisionError("by hand"), "ZeroDivisionError: by hand in round 2, client 0"),
    ],
    ids=["for the user", "any other"],
)
def test_a_failed_run_ends_with_its_error_and_notes_as_one_line(run_tiny, ends, add, error, text):
    break_in_round_2(add, error)
    with pytest.raises(type(error)):
        run_tiny(extra={"bad": {}, "last": {}})
    assert ends == [("failed", text, False)]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3)], ids=repr)
def test_ctrl_c_and_exit_interrupt_a_run(run_tiny, ends, add, error):
    break_in_round_2(add, error)
    with pytest.raises(type(error)):
        run_tiny(extra={"bad": {}, "last": {}})
    assert ends == [("interrupted", None, False)]


def test_leaving_the_loop_over_the_rounds_interrupts_a_run(registry, tiny_config, ends, tmp_path):
    config = tiny_config(registry, extra={"last": {}})
    with closing(Run(config, tmp_path / "run", registry=registry).rounds()) as rounds:
        next(rounds)
        assert not ends
    assert ends == [("interrupted", None, False)]
    Run.resume(tmp_path / "run", registry=registry).run()
    assert ends[1:] == [("finished", None, True)]


def test_a_run_that_is_refused_ends_too(run_tiny, ends, add):
    @dataclass(frozen=True, eq=False)
    class Never:
        @hookimpl
        def run_start(self):
            raise ConfigError("not today")

    add(never=Never)
    with pytest.raises(ConfigError, match=r"^not today$"):
        run_tiny(extra={"never": {}, "last": {}})
    assert ends == [("failed", "not today", False)]


@pytest.fixture
def broken_end(add) -> None:
    """Register ``worst``, whose ``run_end`` raises."""

    @dataclass(frozen=True, eq=False)
    class Worst:
        @hookimpl
        def run_end(self):
            raise OSError("no server")

    add(worst=Worst)


NOTE = "(plugin 'worst', run_end: OSError: no server)"


@pytest.mark.usefixtures("broken_end")
def test_an_observer_that_fails_at_the_end_does_not_hide_the_runs_error(
    run_tiny, ends, add, registry, tmp_path
):
    break_in_round_2(add, ZeroDivisionError("by hand"))
    extra = {"bad": {}, "worst": {}, "last": {}}
    with pytest.raises(ZeroDivisionError) as caught:
        run_tiny(directory=tmp_path / "run", extra=extra)
    assert caught.value.__notes__ == ["in round 2, client 0", NOTE]
    assert [status for status, *_ in ends] == ["failed"]  # the others are told nevertheless
    assert Run.resume(tmp_path / "run", registry=registry).history  # nobody holds the lock


@pytest.mark.usefixtures("broken_end")
def test_an_observer_that_fails_at_the_end_does_not_lose_the_result(run_tiny, ends, tmp_path):
    with pytest.warns(RuntimeWarning, match=re.escape(f"the run is finished {NOTE}")):
        run = run_tiny(directory=tmp_path / "run", extra={"worst": {}, "last": {}})
    assert ends == [("finished", None, True)]
    assert run.result()["rounds"] == 2


def test_the_second_run_of_verify_is_observed_by_nobody(run_tiny, registry, starts, ends, tmp_path):
    run_tiny(directory=tmp_path / "run", extra={"eyes": {}, "last": {}})
    assert Kept(registry, tmp_path / "run").verify().difference is None
    assert (len(starts), len(ends)) == (1, 1)
