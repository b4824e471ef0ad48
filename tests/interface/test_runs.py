"""`fedbench.run`, `resume` and `load`: the commands' runs, as objects."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from click.testing import CliRunner

import fedbench
from fedbench import ConfigError, FedbenchError, RoundResult, RunResult
from fedbench.cli import main
from fedbench.engine.run import Run


def test_a_run_has_what_its_directory_holds(small: RunResult) -> None:
    kept = json.loads((small.directory / "result.json").read_text())
    assert small.result.to_dict() == kept
    assert small.accuracy.mean == kept["accuracy"]["mean"]
    assert small.accuracy.mean == fmean(small.accuracy.domains.values())
    assert [one.round for one in small.rounds] == [1, 2]
    assert small.config.method == "fedavg"
    assert small.finished
    assert small.reproducible


def test_it_is_the_run_of_the_command_line(small: RunResult, few: dict[str, Any]) -> None:
    sets = [word for key, value in few["set"].items() for word in ("--set", f"{key}={value}")]
    words = ["run", "fedavg", "--rounds", "2", "--executor", "inline", *sets, "--json"]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0, done.output
    typed = json.loads(done.stdout)
    assert typed["config_hash"] == small.config.hash
    for digest in ("weights_sha256", "metrics_sha256"):
        assert typed[digest] == getattr(small.result, digest)


def test_a_paused_run_continues_to_the_same_bits(small: RunResult, few: dict[str, Any]) -> None:
    paused = fedbench.run("fedavg", rounds=2, until=1, out="paused", quiet=True, **few)
    assert not paused.finished
    assert [one.round for one in paused.rounds] == [1]
    done = fedbench.run("fedavg", rounds=2, until=2, out="paused", quiet=True, **few)
    assert done.finished
    assert done.result.weights_sha256 == small.result.weights_sha256
    assert done.result.metrics_sha256 == small.result.metrics_sha256


def test_the_command_says_how_a_paused_run_continues(few: dict[str, Any]) -> None:
    sets = [word for key, value in few["set"].items() for word in ("--set", f"{key}={value}")]
    words = ["run", "fedavg", "--rounds", "2", "--executor", "inline", *sets, "--until", "1"]
    done = CliRunner().invoke(main, [*words, "--out", "paused"])
    assert done.exit_code == 0, done.output
    assert done.stdout.endswith("Paused after round 1; `fedbench resume paused` continues\n")
    done = CliRunner().invoke(main, ["run", "paused/config.yaml", "--out", "paused", "--json"])
    assert json.loads(done.stdout)["rounds"] == 2


def test_without_a_directory_it_is_kept_where_the_command_keeps_it(few: dict[str, Any]) -> None:
    for name in ("fedavg-digits-s0", "fedavg-digits-s0-2"):
        found = fedbench.run("fedavg", rounds=1, quiet=True, **few)
        assert found.directory == Path("runs", name)
        assert Path("runs", name, "result.json").is_file()


def test_a_config_repeats_its_run(small: RunResult) -> None:
    again = fedbench.run(small.config, out="again", quiet=True)
    assert again.config.hash == small.config.hash
    assert again.result.weights_sha256 == small.result.weights_sha256
    with pytest.raises(ConfigError, match=r"a config and --config x\.yaml: give one of them"):
        fedbench.run(small.config, config="x.yaml")


def test_options_plugins_and_the_seed_reach_the_config(few: dict[str, Any]) -> None:
    few["set"]["fedprox.mu"] = 0.5
    found = fedbench.run("fedavg", rounds=1, seed=3, with_="fedprox", quiet=True, **few)
    assert found.config.plugins["fedprox"]["mu"] == 0.5
    assert found.config.seed == 3
    without = fedbench.run(found.config, without="fedprox", out="without", quiet=True)
    assert "fedprox" not in without.config.plugins


@pytest.fixture
def interrupt(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Let the next run be interrupted after some rounds."""

    def after(number: int) -> None:
        kept = Run._keep

        def keep(run: Run, rounds: Any, state: Any, result: RoundResult) -> None:
            kept(run, rounds, state, result)
            if result.round == number:
                monkeypatch.setattr(Run, "_keep", kept)
                raise KeyboardInterrupt

        monkeypatch.setattr(Run, "_keep", keep)

    return after


def test_an_interrupted_run_says_how_to_go_on_and_does(
    few: dict[str, Any], interrupt: Callable[[int], None]
) -> None:
    whole = fedbench.run("fedavg", rounds=3, out="whole", quiet=True, **few)
    interrupt(2)
    with pytest.raises(KeyboardInterrupt) as interrupted:
        fedbench.run("fedavg", rounds=3, out="part", quiet=True, **few)
    (note,) = interrupted.value.__notes__
    assert note.startswith("Interrupted after 2 of 3 rounds; they are in part.")
    part = fedbench.load("part")
    assert not part.finished
    assert len(part.rounds) == 2
    with pytest.raises(
        FedbenchError, match=r"part is not finished: 2 of 3 .*fedbench.resume\('part'\)"
    ):
        part.accuracy  # noqa: B018
    assert "2 of 3 rounds" in repr(part)
    assert "2 of 3 rounds" in part._repr_html_()
    done = fedbench.resume("part", quiet=True)
    assert done.result.weights_sha256 == whole.result.weights_sha256
    assert done.result.metrics_sha256 == whole.result.metrics_sha256


def test_load_names_what_reads_a_folder_of_runs(small: RunResult) -> None:
    folder = small.directory.parent
    with pytest.raises(ConfigError, match=r"1 below it; fedbench.load_comparison\('.*'\)"):
        fedbench.load(folder)
    with pytest.raises(ConfigError, match="holds no run"):
        fedbench.load("nothing")


def test_a_data_frame_has_a_row_per_scored_round(few: dict[str, Any]) -> None:
    pytest.importorskip("pandas")
    few["set"]["evaluate_every"] = 2
    found = fedbench.run("fedavg", rounds=3, quiet=True, **few)
    table = found.to_pandas()
    assert list(table["round"]) == [2, 3]
    scored = found.rounds[1:]
    means = [one.scores["classifier"]["accuracy"].mean for one in scored]
    assert list(table["mean"]) == means
    assert list(table["domain.syn"]) == [
        one.scores["classifier"]["accuracy"].domains["syn"] for one in scored
    ]
    assert list(table["bytes_up"]) == [sum(one.bytes_up.values()) for one in scored]
    assert "loss.cross_entropy" in table.columns


def test_a_notebook_shows_its_accuracy_as_html_in_which_nothing_is_markup(
    small: RunResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    html = small._repr_html_()
    assert f"{100 * small.accuracy.mean:.2f}" in html
    assert "optdigits" in html
    monkeypatch.setattr(type(small.config), "data_name", "<script>alert(1)</script>")
    assert "<script>" not in small._repr_html_()
    assert "&lt;script&gt;" in small._repr_html_()


def test_progress_is_printed_as_lines_off_a_terminal(
    few: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    fedbench.run("fedavg", rounds=1, **few)
    out = capsys.readouterr().out
    assert "round 1/1  mean " in out
    assert "\x1b" not in out
