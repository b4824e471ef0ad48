"""Readers of randomly damaged files: each file is read or refused in one line, nothing else."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedbench.config.model import KEYS, RunConfig
from fedbench.config.resolve import load_config, resolve
from fedbench.config.yamlfile import Document
from fedbench.engine.run import Run
from fedbench.errors import FedbenchError
from fedbench.plugins.registry import Registry
from fedbench.store import checkpoint, digests
from fedbench.store.directory import RunDirectory
from fedbench.study import records

Mutation = Callable[[bytes], bytes]

SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8),
    st.sampled_from(["digits", "cnn", "pool", "accuracy", "last_k", "../x", "a" * 300]),
)  # fmt: skip
KEYS = st.one_of(
    st.sampled_from([*KEYS, "recipe", "card", "name", "sgd", "lr", "policy", "k", "rule"]),
    st.text(max_size=6),
)
TREES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


@st.composite
def mutations(draw: st.DrawFn) -> Mutation:
    """Draw a change of bytes: a flip, a cut, an insertion or a repeated part."""
    place = draw(st.floats(0, 1))
    kind = draw(st.sampled_from(["flip", "cut", "insert", "double"]))
    byte, junk = draw(st.integers(1, 255)), draw(st.binary(min_size=1, max_size=12))

    def change(data: bytes) -> bytes:
        at = min(int(place * len(data)), max(0, len(data) - 1))
        if kind == "flip" and data:
            return data[:at] + bytes([data[at] ^ byte]) + data[at + 1 :]
        if kind == "cut":
            return data[:at]
        if kind == "insert":
            return data[:at] + junk + data[at:]
        return data[:at] + data[at : at + 40] + data[at:]

    return change


def one_line(error: FedbenchError) -> None:
    text = str(error)
    assert text, "an error that says nothing"
    assert "\n" not in text, text


@given(document=st.dictionaries(KEYS, TREES, max_size=6))
def test_a_config_is_resolved_or_refused(installed: Registry, document: dict[str, Any]) -> None:
    try:
        config = resolve(installed, file=Document(document, "any.yaml"))
    except FedbenchError as error:
        one_line(error)
    else:
        assert isinstance(config, RunConfig)


@given(document=st.dictionaries(KEYS, TREES, max_size=3))
def test_what_changes_a_method_is_resolved_or_refused(
    installed: Registry, document: dict[str, Any]
) -> None:
    given = {k: v for k, v in document.items() if k not in ("recipe", "card")}
    try:
        config = resolve(installed, "fedavg", file=Document(given, "any.yaml"))
    except FedbenchError as error:
        one_line(error)
    else:
        assert isinstance(config, RunConfig)


@pytest.fixture(scope="module")
def run(
    installed: Registry,
    tiny_config: Callable[..., RunConfig],
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, Path]:
    """Make a finished run, and one with client states, interrupted after its second round."""
    folder = tmp_path_factory.mktemp("readers")
    config = tiny_config(installed, "moon", rounds=3)
    Run(config, folder / "whole", registry=installed).run()
    rounds = Run(config, folder / "part", registry=installed, checkpoint_rounds=1).rounds()
    next(rounds), next(rounds)
    rounds.close()
    assert (folder / "part" / "checkpoint" / "checkpoint.json").is_file()
    return folder / "whole", folder / "part"


def damaged(original: Path, scratch: Path, name: str, change: Mutation) -> Path:
    """Return a copy of a run with one file changed."""
    copy = scratch / "copy"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(original, copy)
    file = copy / name
    file.write_bytes(change(file.read_bytes()))
    return copy


STEADY = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@STEADY
@given(name=st.sampled_from(["rounds.jsonl", "digests.jsonl", "result.json"]), change=mutations())
def test_a_damaged_run_is_read_or_refused(
    run: tuple[Path, Path], installed: Registry, tmp_path: Path, name: str, change: Mutation
) -> None:
    path = damaged(run[0], tmp_path, name, change)
    for read in (
        lambda: RunDirectory(path).cut_rounds(3),
        lambda: digests.read(path),
        lambda: records.read(installed, path),
    ):
        try:
            read()
        except FedbenchError as error:
            one_line(error)
    assert [p.name for p in tmp_path.iterdir()] == ["copy"], "something was written outside"


@STEADY
@given(choice=st.integers(0, 10**6), change=mutations())
def test_a_damaged_checkpoint_is_refused_or_whole(
    run: tuple[Path, Path], installed: Registry, tmp_path: Path, choice: int, change: Mutation
) -> None:
    part = run[1]
    files = sorted(p for p in (part / "checkpoint").iterdir() if p.is_file())
    name = files[choice % len(files)].relative_to(part)
    path = damaged(part, tmp_path, str(name), change)
    try:
        found = checkpoint.read(path, load_config(installed, path / "config.yaml"))
    except FedbenchError as error:
        one_line(error)
    else:
        # Only changes without effect may pass: white space, or a key that is never read.
        before = json.loads((part / "checkpoint" / "checkpoint.json").read_bytes())
        after = json.loads((path / "checkpoint" / "checkpoint.json").read_bytes())
        assert {
            k: after[k] for k in ("round", "file", "sha256", "config_hash", "owners", "clients")
        } == {k: before[k] for k in ("round", "file", "sha256", "config_hash", "owners", "clients")}
        assert found.state.round == before["round"]
    assert [p.name for p in tmp_path.iterdir()] == ["copy"], "something was written outside"
