"""The run directory: whole files or none, nothing overwritten, and a run that can be repeated."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from fedbench.engine.run import Run
from fedbench.errors import ConfigError
from fedbench.store.directory import RunDirectory, find, free_name
from fedbench.store.files import append, default_data_root, json_ready, write_atomic
from fedbench.types import Scores, sha256


@pytest.fixture
def finished(run_tiny, tmp_path) -> Run:
    return run_tiny(directory=tmp_path / "runs" / "one", rounds=3)


def test_a_finished_run_leaves_these_files_and_no_others(finished):
    names = {p.name for p in finished.directory.path.iterdir()} - {".lock"}
    assert names == {
        "config.yaml",
        "rounds.jsonl",
        "result.json",
        "model.safetensors",
        "environment.json",
        "partition.json",
        "digests.jsonl",
    }


def test_the_files_hold_what_the_run_says(finished):
    path = finished.directory.path
    assert json.loads((path / "result.json").read_text()) == finished.result()
    lines = [json.loads(line) for line in (path / "rounds.jsonl").read_text().splitlines()]
    assert lines == [json_ready(result) for result in finished.history]
    assert [line["round"] for line in lines] == [1, 2, 3]
    assert sha256(load_file(path / "model.safetensors")) == finished.result()["weights_sha256"]
    environment = json.loads((path / "environment.json").read_text())
    assert environment["versions"]["torch"] == torch.__version__.split("+")[0] or environment[
        "versions"
    ]["torch"] == str(torch.__version__)
    assert environment["device"] == "cpu"
    assert environment["threads_per_client"] == 1
    assert environment["config_hash"] == finished.config.hash


def test_the_partition_is_written_by_client_domain_and_class(finished):
    table = json.loads((finished.directory.path / "partition.json").read_text())
    assert table["classes"] == ["circle", "square", "star"]
    assert table["domains"] == ["ink", "chalk"]
    assert [list(c) for c in table["counts"].values()] == [["ink"], ["ink"], ["chalk"], ["chalk"]]
    total = torch.tensor([c for one in table["counts"].values() for c in one.values()]).sum(0)
    assert total.tolist() == [24, 24, 24]


def test_running_config_yaml_again_repeats_the_run_to_the_bit(finished, registry, tmp_path):
    path = finished.directory.path
    second = Run(path / "config.yaml", tmp_path / "again", registry=registry)
    result = second.run()
    for key in ("weights_sha256", "metrics_sha256", "config_hash", "accuracy"):
        assert result[key] == finished.result()[key]
    one, two = (d / "model.safetensors" for d in (path, tmp_path / "again"))
    assert one.read_bytes() == two.read_bytes()
    assert (path / "config.yaml").read_bytes() == (tmp_path / "again/config.yaml").read_bytes()


def test_each_round_is_on_disk_before_it_is_yielded(registry, tiny_config, tmp_path):
    run = Run(tiny_config(registry, rounds=3), tmp_path / "r", registry=registry)
    for result in run.rounds():
        lines = (tmp_path / "r" / "rounds.jsonl").read_text().splitlines()
        assert len(lines) == result.round
        assert not (tmp_path / "r" / "result.json").exists()
    assert (tmp_path / "r" / "result.json").exists()


@pytest.mark.parametrize("content", ["file", "folder"])
def test_an_existing_directory_is_refused_and_left_as_it_is(
    registry, tiny_config, tmp_path, content
):
    path = tmp_path / "mine"
    if content == "file":
        path.write_text("precious")
    else:
        path.mkdir()
        (path / "notes.txt").write_text("precious")
    before = {p: p.stat().st_mtime_ns for p in (path, *tmp_path.rglob("*"))}
    text = f"{path} already exists; choose another --out, or remove it first"
    with pytest.raises(ConfigError, match=f"^{re.escape(text)}$"):
        Run(tiny_config(registry), path, registry=registry)
    assert {p: p.stat().st_mtime_ns for p in (path, *tmp_path.rglob("*"))} == before


def test_an_empty_directory_is_taken(registry, tiny_config, tmp_path):
    Run(tiny_config(registry), tmp_path, registry=registry)
    assert (tmp_path / "config.yaml").is_file()


@pytest.mark.parametrize("parent", ["a file", "/proc"])
def test_a_directory_that_cannot_be_made(registry, tiny_config, tmp_path, parent):
    if parent == "a file":
        (tmp_path / "file").write_text("")
        path = tmp_path / "file" / "run"
    else:
        path = Path("/proc/fedbench/run")
    with pytest.raises(ConfigError, match=f"^{path} cannot be written: [A-Z][a-z ]+$"):
        Run(tiny_config(registry), path, registry=registry)


# --- atomic files --------------------------------------------------------------------------------


def test_a_file_is_replaced_whole(tmp_path):
    write_atomic(tmp_path / "x", b"one")
    write_atomic(tmp_path / "x", b"two")
    assert (tmp_path / "x").read_bytes() == b"two"
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_failure_leaves_the_old_file_and_no_temporary(tmp_path, monkeypatch, step):
    write_atomic(tmp_path / "x", b"old")

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(OSError, match="disk full"):
        write_atomic(tmp_path / "x", b"new")
    assert (tmp_path / "x").read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_the_umask_decides_who_may_read_a_file(tmp_path, umask):
    before = os.umask(umask)
    try:
        write_atomic(tmp_path / "whole", b"")
        append(tmp_path / "lines", "")
    finally:
        os.umask(before)
    for name in ("whole", "lines"):
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o666 & ~umask


# --- links and pipes -----------------------------------------------------------------------------


@pytest.mark.parametrize("there", [True, False], ids=["a file", "nothing"])
def test_nothing_is_appended_through_a_link(tmp_path, there):
    precious = tmp_path / "precious"
    if there:
        precious.write_text("precious")
    (tmp_path / "lines").symlink_to(precious)
    with pytest.raises(ConfigError, match="lines is a link; a run writes only into its own folder"):
        append(tmp_path / "lines", "more")
    assert precious.exists() is there
    assert not there or precious.read_text() == "precious"


@pytest.mark.parametrize("reader", [True, False])
def test_a_pipe_is_not_waited_for(tmp_path, reader):
    os.mkfifo(tmp_path / "lines")
    end = os.open(tmp_path / "lines", os.O_RDONLY | os.O_NONBLOCK) if reader else None
    error = ConfigError if reader else OSError
    with pytest.raises(error, match="lines is not a plain file" if reader else "lines"):
        append(tmp_path / "lines", "more")
    if end is not None:
        os.close(end)


def test_a_link_is_replaced_not_followed(tmp_path):
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "x").symlink_to(tmp_path / "precious")
    write_atomic(tmp_path / "x", b"new")
    assert (tmp_path / "precious").read_text() == "precious"
    assert not (tmp_path / "x").is_symlink()


@pytest.mark.parametrize("inner", ["rounds.jsonl", "digests.jsonl"])
def test_a_run_ends_rather_than_append_through_a_link(registry, tiny_config, tmp_path, inner):
    run = Run(tiny_config(registry), tmp_path / "run", registry=registry)
    (tmp_path / "run" / inner).symlink_to(tmp_path / "outside")
    with pytest.raises(ConfigError, match=f"{inner} is a link"):
        run.run()
    assert not (tmp_path / "outside").exists()


@pytest.mark.parametrize("inner", ["round-000001", "round-000001/clients"])
def test_a_checkpoint_is_not_kept_through_a_link(registry, tiny_config, tmp_path, inner):
    run = Run(
        tiny_config(registry), tmp_path / "run", registry=registry,
        checkpoint_rounds=1, keep_checkpoints=True,
    )  # fmt: skip
    link = tmp_path / "run" / "checkpoints" / inner
    link.parent.mkdir(parents=True)
    (tmp_path / "outside").mkdir()
    link.symlink_to(tmp_path / "outside")
    with pytest.raises(ConfigError, match=f"{inner} is a link"):
        run.run()
    assert list((tmp_path / "outside").iterdir()) == []


# --- names ---------------------------------------------------------------------------------------


def test_the_first_free_name_is_numbered(tmp_path):
    assert free_name(tmp_path, "run", "hash") == tmp_path / "run"
    (tmp_path / "run").mkdir()
    assert free_name(tmp_path, "run", "hash") == tmp_path / "run-2"
    (tmp_path / "run-2").write_text("a file counts too")
    assert free_name(tmp_path, "run", "hash") == tmp_path / "run-3"


def test_an_unfinished_run_of_the_same_config_is_taken_up_again(registry, tiny_config, tmp_path):
    config = tiny_config(registry)
    RunDirectory.create(tmp_path / "run", config)
    assert free_name(tmp_path, "run", config.hash) == tmp_path / "run"
    assert free_name(tmp_path, "run", "another") == tmp_path / "run-2"
    (tmp_path / "run" / "result.json").write_text("{}")
    assert free_name(tmp_path, "run", config.hash) == tmp_path / "run-2"


def test_what_a_comparison_has_set_aside_is_found_only_by_name(tmp_path):
    for place in ("runs/a", "replaced/a-1"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "config.yaml").touch()
    assert find([tmp_path]) == [tmp_path / "runs" / "a"]
    aside = tmp_path / "replaced" / "a-1"
    assert (
        find([tmp_path / "replaced"]) == find([aside]) == find([aside / "config.yaml"]) == [aside]
    )


def test_where_data_sets_look_for_files(monkeypatch, tmp_path):
    monkeypatch.setenv("FEDBENCH_DATA", str(tmp_path / "data"))
    assert default_data_root() == tmp_path / "data"
    monkeypatch.delenv("FEDBENCH_DATA")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert default_data_root() == tmp_path / "cache" / "fedbench"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_data_root() == Path.home() / ".cache" / "fedbench"
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", "~/cache")
    assert default_data_root() == tmp_path / "cache" / "fedbench"
    monkeypatch.setenv("FEDBENCH_DATA", "~/data")
    assert default_data_root() == tmp_path / "data"


def test_results_become_plain_json():
    value = {1: Scores({"a": 0.5}, 0.5, 0.5, 0.0), "t": (1, 2)}
    assert json_ready(value) == {
        "1": {"domains": {"a": 0.5}, "mean": 0.5, "worst": 0.5, "std": 0.0},
        "t": [1, 2],
    }
