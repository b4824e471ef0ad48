"""`fedbench run`, `show` and `config`: what is printed, what is kept, how it ends."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

from fedbench.config.resolve import load_config
from fedbench.plugins.discovery import discover
from fedbench.store.directory import RunDirectory


def result_of(directory: Path) -> dict:
    return json.loads((directory / "result.json").read_text())


class TestRun:
    def test_a_method_by_name(self, fedbench, few, tmp_path):
        done = fedbench("run", "fedavg", "--data", "digits", *few)
        assert done.exit_code == 0, done.output
        lines = done.stdout.splitlines()
        # plain lines off a terminal: a title, one line a round, the result, where it is kept
        assert "\x1b" not in done.output
        assert lines[0] == (
            "fedavg (domains.examples=20, sgd.epochs=1, "
            'model={"name": "cnn", "width": 2, "feature_size": 8}, rounds=1) on digits, seed 0'
        )
        assert re.match(
            r"round 1/1  mean \d+\.\d\d  mnist \d+\.\d\d  optdigits \d+\.\d\d  mnistm \d+\.\d\d  "
            r"syn \d+\.\d\d  train loss \d\.\d{3}  seconds \d+\.\d  left 0\.0 s$",
            lines[1],
        )
        assert "accuracy, last round" in done.stdout
        assert lines[-1] == "Kept in runs/fedavg-digits-s0"
        result = result_of(tmp_path / "runs/fedavg-digits-s0")
        assert f"weights {result['weights_sha256'][:16]}" in done.stdout
        assert f"{100 * result['accuracy']['mean']:.2f}" in done.stdout
        assert set(result["accuracy"]["domains"]) == {"mnist", "optdigits", "mnistm", "syn"}
        assert result["method"] == "fedavg"
        assert result["card"]["card"] == "digits"

    def test_a_second_run_gets_a_number_and_repeats_the_first(self, fedbench, few, tmp_path):
        for _ in range(2):
            assert fedbench("run", "fedavg", *few, "--quiet").exit_code == 0
        one, two = (result_of(tmp_path / f"runs/fedavg-digits-s0{n}") for n in ("", "-2"))
        assert one["weights_sha256"] == two["weights_sha256"]
        assert one["metrics_sha256"] == two["metrics_sha256"]

    def test_a_default_name_that_another_process_takes_meanwhile_is_passed_over(
        self, fedbench, few, tmp_path, monkeypatch
    ):
        create = RunDirectory.create

        def too_late(path, config, depends):
            monkeypatch.setattr(RunDirectory, "create", create)
            create(path, replace(config, seed=7))
            return create(path, config, depends)

        monkeypatch.setattr(RunDirectory, "create", too_late)
        done = fedbench("run", "fedavg", *few, "--quiet")
        assert done.stdout.splitlines()[-1] == "Kept in runs/fedavg-digits-s0-2"
        assert not (tmp_path / "runs/fedavg-digits-s0/rounds.jsonl").exists()

        monkeypatch.setattr(RunDirectory, "create", too_late)
        done = fedbench("run", "fedavg", *few, "--quiet", "--out", "here")
        assert done.exit_code == 1
        assert done.stderr == (
            "Error: here already exists; choose another --out, or remove it first\n"
        )

    def test_quiet_prints_the_result_alone(self, fedbench, few):
        done = fedbench("run", "fedavg", *few, "--quiet", "--out", "here")
        assert "round 1/1" not in done.stdout
        assert "mean over domains" in done.stdout
        assert done.stdout.splitlines()[-1] == "Kept in here"

    def test_json_prints_the_result_and_nothing_else(self, fedbench, few):
        done = fedbench("run", "fedavg", *few, "--json", "--out", "here")
        assert done.exit_code == 0
        assert json.loads(done.stdout) == result_of(Path("here"))

    def test_set_and_without_shape_the_run(self, fedbench, few):
        words = ("--set", "sgd.lr=0.05", "--without", "normalize", "--seed", "3")
        done = fedbench("run", "fedavg", *few, *words, "--json", "--out", "here")
        result = json.loads(done.stdout)
        assert result["seed"] == 3
        assert {"-normalize", "sgd.lr=0.05", "rounds=1"} <= set(result["changes"])
        kept = yaml.safe_load(Path("here/config.yaml").read_text())
        assert "normalize" not in kept["plugins"]
        assert kept["plugins"]["sgd"]["lr"] == 0.05

    def test_config_prints_a_file_that_runs_to_the_same_bits(self, fedbench, few):
        printed = fedbench("config", "fedavg", *few)
        assert printed.exit_code == 0
        Path("mine.yaml").write_text(printed.stdout)
        by_file = json.loads(fedbench("run", "mine.yaml", "--json", "--out", "one").stdout)
        by_name = json.loads(fedbench("run", "fedavg", *few, "--json", "--out", "two").stdout)
        for key in ("config_hash", "weights_sha256", "metrics_sha256", "changes", "card"):
            assert by_file[key] == by_name[key]
        # the kept file is the printed one, and flags win over a file
        assert Path("one/config.yaml").read_text() == printed.stdout
        again = fedbench("config", "mine.yaml", "--seed", "5")
        assert again.stdout == printed.stdout.replace("seed: 0", "seed: 5")

    def test_a_partial_file_with_a_recipe(self, fedbench):
        Path("part.yaml").write_text("recipe: fedhpro\nplugins:\n  hpcl: {temperature: 0.1}\n")
        found = yaml.safe_load(fedbench("config", "part.yaml", "--set", "hpcl.weight=2").stdout)
        assert found["plugins"]["hpcl"]["temperature"] == 0.1
        assert found["plugins"]["hpcl"]["weight"] == 2.0
        assert found["method"] == "fedhpro"

    def test_an_existing_directory_is_not_touched(self, fedbench, few, tmp_path):
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine" / "notes").write_text("precious")
        done = fedbench("run", "fedavg", *few, "--out", "mine")
        assert done.exit_code == 1
        assert done.stderr == (
            "Error: mine already exists; choose another --out, or remove it first\n"
        )
        assert [p.name for p in (tmp_path / "mine").iterdir()] == ["notes"]


class TestShow:
    def test_a_finished_run(self, fedbench, few):
        fedbench("run", "fedavg", *few, "--quiet", "--out", "here")
        done = fedbench("show", "here")
        assert done.exit_code == 0
        assert "accuracy, classifier inference" in done.stdout
        assert "loss, classifier inference" in done.stdout
        assert result_of(Path("here"))["weights_sha256"][:16] in done.stdout
        assert "not finished" not in done.stdout

    def test_an_unfinished_run(self, fedbench, few):
        fedbench("run", "fedavg", *few, "--quiet", "--out", "here")
        Path("here/result.json").unlink()
        done = fedbench("show", "here")
        assert done.exit_code == 0
        assert done.stdout.splitlines()[-1] == "1 rounds; the run is not finished"

    def test_a_directory_without_a_run(self, fedbench):
        done = fedbench("show", ".")
        assert (done.exit_code, done.stderr) == (1, "Error: . holds no run (no config.yaml)\n")

    def test_a_metric_that_is_not_installed_has_no_unit_to_show_it_in(self, fedbench, few):
        fedbench("run", "fedavg", *few, "--quiet", "--out", "here")
        rounds = Path("here/rounds.jsonl")
        rounds.write_text(rounds.read_text().replace('"loss": {', '"lost": {'))
        done = fedbench("show", "here")
        assert (done.exit_code, done.stderr) == (
            1,
            "Error: no metric 'lost' (did you mean 'loss'?)\n",
        )

    def test_a_damaged_run(self, fedbench, few):
        fedbench("run", "fedavg", *few, "--quiet", "--out", "here")
        Path("here/rounds.jsonl").write_text('{"round": 1,')
        done = fedbench("show", "here")
        assert done.exit_code == 1
        assert done.stderr.startswith(
            "Error: here/rounds.jsonl: damaged: 0 rounds, but the result has 1"
        )
        assert done.stderr.count("\n") == 1


# --- errors --------------------------------------------------------------------------------------

MISTAKES = [
    (["run", "fedavgg"], "no method 'fedavgg' (did you mean 'fedavg'?)"),
    (["run", "fedavg", "--data", "digitz"], "no data set 'digitz' (did you mean 'digits'?)"),
    (["run", "fedavg", "--model", "cnnn"], "command line: model: no model 'cnnn' (did you mean"),
    (["run", "fedavg", "--rounds", "0"], "command line: rounds: input should be greater than or "),
    (["run", "fedavg", "--set", "sgd.lrr=1"], "--set sgd.lrr=1: plugins.sgd.lrr: unknown option "),
    (["run", "fedavg", "--set", "sgd.lr=-1"], "--set sgd.lr=-1: plugins.sgd.lr: input should be "),
    (["run", "fedavg", "--without", "sgd"], "no plugin implements 'train'; a run needs "),
    (["run", "fedavg", "--without", "hpal"], "--without hpal: it is not a plugin of this run"),
    (["run", "fedhpro", "--without", "hpall"], "--without hpall: it is not a plugin of this run "),
    (["run", "missing.yaml"], "missing.yaml: no such file"),
    (["run", "bad.yaml"], "bad.yaml:4: plugins.sgd.epochs: input should be a valid integer, got"),
    (["run", "two.yaml"], "two.yaml:4: plugins.second: implements 'aggregate', and so does 'mea"),
    (["run", "bad.yaml", "--config", "bad.yaml"], "bad.yaml and --config bad.yaml: give one file"),
    (["config", "fedhproo"], "no method 'fedhproo' (did you mean 'fedhpro'?)"),
    (["plugins", "show", "hpcll"], "nothing installed is called 'hpcll' (did you mean 'hpcl'?)"),
    (["data", "show", "digitz"], "no data set 'digitz' (did you mean 'digits'?)"),
    (["run", "fedavg", "--device", "cuda:99"], "device 'cuda:99' cannot be used here: "),
    (["run", "fedavg", "--out", "file/run"], "file/run cannot be written: Not a directory"),
]


@pytest.mark.parametrize(("words", "text"), MISTAKES, ids=[" ".join(w) for w, _ in MISTAKES])
def test_a_mistake_is_one_line_without_a_traceback(fedbench, words, text, install):
    Path("bad.yaml").write_text("recipe: fedavg\nplugins:\n  sgd:\n    epochs: many\n")
    Path("two.yaml").write_text("recipe: fedavg\nplugins:\n  mean: {}\n  second: {}\n")
    Path("file").write_text("")
    install("other", SECOND)
    install("broken", "1 / 0")
    done = fedbench(*words)
    assert done.exit_code == 1
    assert done.stdout == ""
    assert done.stderr.startswith(f"Error: {text}")
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.output


SECOND = """
from dataclasses import dataclass
from fedbench import hookimpl
fedbench_api = 1

@dataclass(frozen=True, eq=False)
class Second:
    @hookimpl
    def aggregate(self): ...

@hookimpl
def register_plugins():
    return {"second": Second}
"""


def test_an_unknown_name_tells_of_a_package_that_did_not_load(fedbench, install):
    install("other", SECOND)
    install("broken", "1 / 0")
    done = fedbench("config", "fedavgg")
    assert done.stderr == (
        "Error: no method 'fedavgg' (did you mean 'fedavg'?); not loaded: broken (broken): "
        "ZeroDivisionError: division by zero\n"
    )
    listed = fedbench("plugins").stdout
    assert "second" in listed
    assert "not loaded: broken (broken): ZeroDivisionError: division by zero" in listed


def test_a_run_directory_connects_to_nothing_that_is_not_repeated(fedbench, few, tmp_path):
    text = fedbench("config", "fedavg", *few).stdout
    config = load_config(discover(), write(tmp_path / "mine.yaml", text))
    far = {"name": "ray", "address": "evil:6379"}
    RunDirectory.create(tmp_path / "here", replace(config, executor=far))
    expected = "here/config.yaml:"
    for words, status in ((["resume"], 1), (["verify"], 2)):
        if words == ["verify"]:
            assert fedbench("resume", "here", "--executor", "inline", "--quiet").exit_code == 0
        done = fedbench(*words, "here", "--quiet")
        assert done.exit_code == status
        assert expected in done.stderr
        assert "executor.address: evil:6379 is not connected to unless you repeat it" in done.stderr
    done = fedbench("verify", "here", "--quiet", "--executor", "inline")
    assert done.exit_code == 0, done.stderr


def write(path, text):
    path.write_text(text)
    return path


def test_an_error_in_a_clients_turn_names_round_and_client(fedbench, few):
    done = fedbench(
        "run", "fedavg", *few, "--set", "sgd.lr=1e30", "--set", "sgd.batch_size=4", "--quiet"
    )
    assert done.exit_code == 1
    assert re.match(
        r"Error: plugin 'cross_entropy': loss term 'cross_entropy' is (nan|inf) in round \d, "
        r"client \d; try a smaller learning rate\n$",
        done.stderr,
    )


@pytest.mark.parametrize("executor", ["inline", "pool"])
def test_an_error_says_what_it_was_raised_from(fedbench, few, install, executor):
    install("lost-cause", LOST_CAUSE)
    done = fedbench("run", "fedavg", *few, "--with", "lost", "--executor", executor, "--quiet")
    assert done.stderr == (
        "Error: RuntimeError: nothing was sent (from KeyError: 'mine.key') in round 1, client 0 "
        "(--debug shows the traceback)\n"
    )


LOST_CAUSE = """
from dataclasses import dataclass
from fedbench import hookimpl
fedbench_api = 1

@dataclass(frozen=True, eq=False)
class Lost:
    'Hide the error behind another one.'
    @hookimpl
    def send_uploads(self, ctx, uploads):
        try:
            return {"mine.key": ctx.scratch["mine.key"]}
        except KeyError as error:
            raise RuntimeError("nothing was sent") from error

@hookimpl
def register_plugins():
    return {"lost": Lost}
"""


def test_an_unexpected_error_is_one_line_too(fedbench, few, monkeypatch):
    from fedbench_baselines.sgd import Sgd

    def broken(self, round, rounds):
        torch.nn.Linear(2, 1).load_state_dict({"weight": torch.ones(1, 2), "scale": torch.ones(1)})

    monkeypatch.setattr(Sgd, "learning_rate", broken)
    done = fedbench("run", "fedavg", *few, "--quiet")
    assert done.exit_code == 1
    assert done.stderr == (
        "Error: RuntimeError: Error(s) in loading state_dict for Linear: Missing key(s) in "
        'state_dict: "bias". Unexpected key(s) in state_dict: "scale". in round 1, client 0 '
        "(--debug shows the traceback)\n"
    )
    # --debug lets it through, notes and all
    raised = fedbench("run", "fedavg", *few, "--quiet", "--debug").exception
    assert isinstance(raised, RuntimeError)
    assert raised.__notes__ == ["in round 1, client 0"]


def command(*words: str, **more: object) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "fedbench", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **more,
    )


@pytest.mark.long
def test_python_m_runs_no_code_from_the_current_folder(tmp_path):
    for name in ("random", "signal", "threading", "typing", "click", "token"):
        (tmp_path / f"{name}.py").write_text("open('hit', 'a').write(__name__)")
    process = command("config", "fedavg", cwd=tmp_path)
    assert "fedavg" in process.communicate(timeout=120)[0]
    assert process.returncode == 0
    assert not (tmp_path / "hit").exists()


def test_debug_shows_the_traceback(tmp_path):
    process = command("plugins", "show", "hpcll", "--debug", cwd=tmp_path)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    assert errors.startswith("Traceback (most recent call last):")
    assert (
        errors.rstrip()
        .splitlines()[-1]
        .startswith("fedbench.errors.ConfigError: nothing installed is called 'hpcll'")
    )


# --- Ctrl-C --------------------------------------------------------------------------------------


def test_ctrl_c_keeps_the_finished_rounds_and_says_how_to_look_at_them(tmp_path, few, fedbench):
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    words = ["run", "fedavg", *few, "--executor", "pool", "--rounds", "10000", "--out", "here"]
    process = command(
        *words,
        cwd=tmp_path,
        env=environment,
        start_new_session=True,
        # Who starts the tests in the background passes an ignored SIGINT on.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        while not process.stdout.readline().startswith("round 1/"):
            assert process.poll() is None, process.stderr.read()
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "Traceback" not in output + errors
    match = re.fullmatch(
        r"Interrupted after (\d+) of 10000 rounds; they are in here\. `fedbench show here` prints "
        r"them, `fedbench resume here` resumes\.",
        errors.strip(),
    )
    assert match, errors
    done = len((tmp_path / "here/rounds.jsonl").read_text().splitlines())
    # a round may be on disk that was not yet counted when the signal came
    assert done - int(match[1]) in (0, 1)
    assert done >= 1
    assert not (tmp_path / "here/result.json").exists()
    shown = fedbench("show", "here")
    assert shown.stdout.splitlines()[-1] == f"{done} rounds; the run is not finished"
