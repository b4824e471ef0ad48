"""What a result depends on besides its config: what changes the fingerprint, and what does not."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from xxhash import xxh3_64

from fedbench import ConfigError, Run, discover, resolve
from fedbench.engine.verify import Kept
from fedbench.plugins.registry import Registry
from fedbench.store import fingerprint
from fedbench.store.directory import RunDirectory
from fedbench.testing import tiny_dataset
from fedbench.values import checksum

PLUGIN = """
from dataclasses import dataclass
from fedbench import hookimpl
import {helper}

fedbench_api = 1

@dataclass(frozen=True, eq=False)
class Bit:
    "Adds a number to the loss."

    @hookimpl
    def local_loss(self, output):
        return {{"bit": output.logits.sum() * {helper}.FACTOR}}

@hookimpl
def register_plugins():
    return {{"bit": Bit}}
"""


@pytest.fixture
def package(install: Callable[..., Path]) -> Path:
    """A package of two lone modules; the plugin reads a number from the second one."""
    folder = install("fb_bit", PLUGIN.format(helper="fb_bit_helper"))
    (folder / "fb_bit_helper.py").write_text("FACTOR = 0.0\n")
    return folder


def of(registry: Registry, **more: Any) -> dict[str, str]:
    return fingerprint.of_run(registry, resolve(registry, "fedavg", plus=["bit"], **more))


@pytest.fixture
def again(package: Path) -> Callable[[], dict[str, str]]:
    """The fingerprint as another process would take it."""

    def take() -> dict[str, str]:
        fingerprint._source.cache_clear()
        fingerprint._statements.cache_clear()
        for name in ("fb_bit", "fb_bit_helper"):
            sys.modules.pop(name, None)
        return of(discover())

    return take


def test_nothing_changes_from_one_process_to_the_next(again: Callable[[], dict[str, str]]) -> None:
    assert fingerprint.changes(again(), again()) == []


@pytest.mark.parametrize("file", ["fb_bit.py", "fb_bit_helper.py"])
def test_a_plugins_source_and_what_it_imports_count(
    file: str, package: Path, again: Callable[[], dict[str, str]]
) -> None:
    before = again()
    with (package / file).open("a") as source:
        source.write("\nMORE = 1\n")
    assert fingerprint.changes(before, again()) == ["plugin bit: changed"]


@pytest.mark.parametrize(
    "statement",
    ["import {}", "from {} import FACTOR as f", "from . import {}", "from .{} import x"],
)
def test_what_is_imported_only_when_it_is_needed_counts(
    statement: str, package: Path, again: Callable[[], dict[str, str]]
) -> None:
    """Nothing has imported it when the fingerprint is taken."""
    inside = statement.startswith("from .")
    plugin = package / "fb_bit.py"
    if inside:
        (package / "fb_bit").mkdir()
        plugin = plugin.rename(package / "fb_bit" / "__init__.py")
        (package / "fb_bit_helper.py").rename(package / "fb_bit" / "later.py")
    line = statement.format("later" if inside else "fb_bit_helper")
    source = plugin.read_text().replace("import fb_bit_helper\n", "")
    source = re.sub(r"        return .*FACTOR}", f"        {line}\n        return {{}}", source)
    plugin.write_text(source)
    helper = package / ("fb_bit/later.py" if inside else "fb_bit_helper.py")
    before = again()
    helper.write_text("FACTOR = 1.0\n")
    assert fingerprint.changes(before, again()) == ["plugin bit: changed"]
    assert not {"fb_bit_helper", "fb_bit.later"} & {*sys.modules}


def test_a_file_that_no_plugin_imports_does_not_count(
    package: Path, again: Callable[[], dict[str, str]]
) -> None:
    before = again()
    (package / "fb_bit_notes.py").write_text("NOTE = 1\n")
    assert fingerprint.changes(before, again()) == []


def test_a_bundled_plugin_counts_by_its_own_file(registry: Registry) -> None:
    """Adding a method to the baselines must not make the runs of all others stale."""
    found = fingerprint.of_run(registry, resolve(registry, "moon", card="digits"))
    assert found["plugin mean"] != found["plugin moon"]
    assert found["plugin sgd"].startswith("fedbench-toolkit ")


def test_the_contents_of_a_file_that_an_option_names_count(
    registry: Registry, tmp_path: Path
) -> None:
    def take(*sets: str) -> dict[str, str]:
        return fingerprint.of_run(registry, resolve(registry, "fedavg", plus=["trace"], sets=sets))

    file = tmp_path / "devices.csv"
    file.write_text("speed,down,up\n100,1,1\n")
    before = take(f"trace.file={file}")
    assert fingerprint.changes(before, take(f"trace.file={file}")) == []
    file.write_text("speed,down,up\n50,1,1\n")
    assert fingerprint.changes(before, take(f"trace.file={file}")) == ["trace.file: changed"]
    file.unlink()
    assert fingerprint.changes(before, take(f"trace.file={file}")) == ["trace.file: changed"]
    assert "trace.file" not in take()


def test_the_processors_capability_and_the_variables_count(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = resolve(registry, "fedavg", card="digits")
    before = fingerprint.of_run(registry, config)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "NO AVX")
    capability = before["CPU capability"]
    assert fingerprint.changes(before, fingerprint.of_run(registry, config)) == [
        f"CPU capability: {capability} then, NO AVX now",
        "$ONEDNN_MAX_CPU_ISA: (not set) then, AVX2 now",
    ]


def test_every_byte_and_name_of_the_data_counts() -> None:
    data = tiny_dataset()
    before = fingerprint.of_data(data)
    assert fingerprint.of_data(tiny_dataset()) == before
    assert fingerprint.of_data(replace(data, classes=data.classes[::-1])) != before
    for split in ("train", "test"):
        for part in ("inputs", "labels", "domains"):
            other = tiny_dataset()
            flat = getattr(getattr(other, split), part).view(-1)
            flat[-1] += 1
            assert fingerprint.of_data(other) != before, (split, part)


def test_whom_an_example_comes_from_counts() -> None:
    data = tiny_dataset()
    others = (
        replace(data, train=replace(data.train, clients=3 - data.train.clients)),
        replace(data, test=replace(data.test, clients=3 - data.test.clients)),
        replace(data, test=replace(data.test, clients=None)),
        replace(data, clients=data.clients[::-1]),
    )
    assert len(set(map(fingerprint.of_data, (data, *others)))) == 5


def test_data_without_clients_keep_the_fingerprint_that_they_had_before_clients_existed() -> None:
    data = replace(tiny_dataset(), clients=())
    plain = [replace(split, clients=None) for split in (data.train, data.test)]
    found = fingerprint.of_data(replace(data, train=plain[0], test=plain[1]))
    digest = xxh3_64(repr((data.classes, data.domains)).encode())
    for split in plain:
        for tensor in (split.inputs, split.labels, split.domains):
            digest.update(checksum(tensor).encode())
    assert found == f"xxh3:{digest.hexdigest()}"


def test_which_examples_a_client_has_counts() -> None:
    parts = [torch.tensor([0, 1]), torch.tensor([2])]
    before = fingerprint.of_partition(parts)
    assert fingerprint.of_partition([*parts[::-1]]) != before
    assert fingerprint.of_partition([torch.tensor([0]), torch.tensor([1, 2])]) != before


# --- runs that keep it ---------------------------------------------------------------------------


@pytest.fixture
def cut(tiny_config: Callable[..., Any], registry: Registry, tmp_path: Path) -> Path:
    """A run that was interrupted after two of four rounds."""
    config = tiny_config(registry, rounds=4)
    rounds = Run(config, tmp_path / "run", registry=registry, checkpoint_rounds=1).rounds()
    next(rounds)
    next(rounds)
    rounds.close()
    return tmp_path / "run"


def tampered(path: Path, **changes: str) -> None:
    directory = RunDirectory(path)
    depends = {**directory.read_environment().depends, **changes}
    directory.write_depends(depends)


@pytest.mark.parametrize("name", [fingerprint.CORE, "plugin sgd", "switches", "CPU capability"])
def test_a_run_whose_code_or_arithmetic_changed_is_not_resumed(
    name: str, cut: Path, registry: Registry
) -> None:
    tampered(cut, **{name: "another"})
    with pytest.raises(ConfigError, match=rf"cannot be resumed, .*{name}: another then, "):
        Run.resume(cut, registry=registry)
    assert len(RunDirectory(cut).read_rounds()) == 2


@pytest.mark.parametrize("name", [fingerprint.DATA, fingerprint.PARTITION])
def test_a_run_whose_data_changed_is_not_resumed(name: str, cut: Path, registry: Registry) -> None:
    tampered(cut, **{name: "xxh3:0"})
    with pytest.raises(ConfigError, match=rf"cannot be resumed, .*{name}: changed\. Restore"):
        Run.resume(cut, registry=registry).run()


def test_a_run_without_a_checkpoint_begins_anew_under_todays_fingerprint(
    tiny_config: Callable[..., Any], registry: Registry, tmp_path: Path
) -> None:
    path = tmp_path / "run"
    Run(tiny_config(registry), path, registry=registry)
    tampered(path, **{"plugin sgd": "another"})
    Run.resume(path, registry=registry).run()
    assert RunDirectory(path).read_environment().depends["plugin sgd"] != "another"


def test_verify_names_changed_data_before_any_tensor(
    tiny_config: Callable[..., Any], registry: Registry, tmp_path: Path
) -> None:
    path = tmp_path / "run"
    Run(tiny_config(registry), path, registry=registry).run()
    assert Kept(registry, path).verify().difference is None
    tampered(path, **{fingerprint.DATA: "xxh3:0"})
    assert Kept(registry, path).verify().difference == "round 1: data: changed"
