"""A run directory decides nothing about which machines are connected to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from fedbench_baselines.trackers import Mlflow, Wandb

from fedbench import ConfigError, RoundResult, Run, hookimpl
from fedbench.config import yamlfile
from fedbench.config.kept import resolve_kept
from fedbench.config.model import RunConfig
from fedbench.engine.verify import Kept
from fedbench.executors.inline import InlineWorkers
from fedbench.executors.ray import Ray
from fedbench.plugins.facts import ExecutorFacts, PluginFacts, facts
from fedbench.plugins.registry import Registry
from fedbench.runtime import Runtime

CONNECTED: list[str | None] = []


@dataclass(frozen=True, eq=False)
class Far:
    """Runs clients here, and notes the address at which it would run them."""

    addresses: ClassVar[tuple[str, ...]] = ("address",)
    address: str | None = None
    workers: int | None = None

    def open(self, runtime: Runtime) -> InlineWorkers:
        CONNECTED.append(self.address)
        return InlineWorkers(runtime)


@dataclass(frozen=True, eq=False)
class Tells:
    """Notes the server that it would tell of rounds."""

    addresses: ClassVar[tuple[str, ...]] = ("server",)
    server: str | None = None

    @hookimpl
    def round_end(self, result: RoundResult, directory: Path | None) -> None:
        if directory:
            CONNECTED.append(self.server)


@pytest.fixture(autouse=True)
def _installed(registry: Registry, add: Callable[..., None]) -> None:
    def register_executors() -> Mapping[str, type]:
        return {"far": Far}

    registry.add(SimpleNamespace(register_executors=hookimpl(register_executors)), "tests")
    add(tells=Tells)
    CONNECTED.clear()


@pytest.fixture
def kept(
    registry: Registry, tiny_config: Callable[..., RunConfig], tmp_path: Path
) -> Callable[..., Path]:
    """Make a run directory whose config names addresses, interrupted after its first round."""

    def make(address: str | None, server: str | None = None) -> Path:
        executor = {"name": "far", "address": address}
        config = tiny_config(registry, executor=executor, extra={"tells": {"server": server}})
        rounds = Run(config, tmp_path / "run", registry=registry, checkpoint_rounds=1).rounds()
        next(rounds)
        rounds.close()
        CONNECTED.clear()
        return tmp_path / "run"

    return make


@pytest.fixture
def resolved(registry: Registry) -> Callable[..., RunConfig]:
    return lambda path, **given: resolve_kept(
        registry, yamlfile.read(path / "config.yaml"), **given
    )


def test_an_address_is_refused_until_it_is_repeated(
    kept: Callable[..., Path], resolved: Callable[..., RunConfig], registry: Registry
) -> None:
    path = kept("evil:6379")
    expected = (
        rf"^{path}/config.yaml:\d+: executor.address: evil:6379 is not connected to unless you "
        r"repeat it, because a run directory may come from someone else: "
        r"add --set executor.address=evil:6379, or choose another --executor$"
    )
    with pytest.raises(ConfigError, match=expected):
        Run.resume(path, registry=registry)
    with pytest.raises(ConfigError, match=expected):
        Kept(registry, path)
    assert CONNECTED == []
    config = resolved(path, sets=["executor.address=evil:6379"])
    assert len(Run.resume(path, config, registry=registry).run()["weights_sha256"]) == 64
    assert CONNECTED == ["evil:6379", None]


@pytest.mark.parametrize(
    ("given", "executor"),
    [
        ({"sets": ["executor.address=null"]}, {"name": "far", "address": None, "workers": None}),
        (
            {"sets": ["executor.address=mine:1"]},
            {"name": "far", "address": "mine:1", "workers": None},
        ),
        ({"executor": {"name": "inline"}}, {"name": "inline"}),
        (
            {"executor": {"address": "mine:1"}},
            {"name": "far", "address": "mine:1", "workers": None},
        ),
    ],
)
def test_the_executor_can_be_another_one(
    given: dict[str, Any], executor: dict[str, Any], kept: Callable[..., Path],
    resolved: Callable[..., RunConfig],
) -> None:  # fmt: skip
    assert resolved(kept("evil:6379"), **given).executor == executor


@pytest.mark.parametrize("executor", [{"workers": 2}, {"name": "far"}])
def test_naming_the_same_executor_repeats_no_address(
    executor: dict[str, Any], kept: Callable[..., Path], resolved: Callable[..., RunConfig]
) -> None:
    with pytest.raises(ConfigError, match="evil:6379 is not connected to"):
        resolved(kept("evil:6379"), executor=executor)


@pytest.mark.parametrize("sets", ["sgd.lr=0.5", "rounds=9", "seed=1"])
def test_only_the_executor_can_be_changed(
    sets: str, kept: Callable[..., Path], resolved: Callable[..., RunConfig]
) -> None:
    with pytest.raises(ConfigError, match="the run has another config; only its executor can be"):
        resolved(kept(None), sets=[sets])


def test_a_server_that_a_plugin_tells_of_rounds_is_an_address_too(
    kept: Callable[..., Path], resolved: Callable[..., RunConfig], registry: Registry
) -> None:
    path = kept(None, server="http://evil")
    with pytest.raises(ConfigError, match=r"tells.server: http://evil is not connected to unless"):
        Run.resume(path, registry=registry)
    Kept(registry, path).verify()
    assert CONNECTED == [None], "verifying tells nobody"
    config = resolved(path, sets=["tells.server=http://evil"])
    Run.resume(path, config, registry=registry).run()
    assert CONNECTED[-1] == "http://evil"


def test_a_config_that_the_user_gives_may_name_addresses(
    kept: Callable[..., Path], registry: Registry, tiny_config: Callable[..., RunConfig]
) -> None:
    path = kept("evil:6379")
    extra = {"tells": {}}
    mine = tiny_config(registry, executor={"name": "far", "address": "mine:1"}, extra=extra)
    Run.resume(path, mine, registry=registry).run()
    assert CONNECTED[0] == "mine:1"


def test_the_addresses_of_ray_and_of_trackers_are_stated() -> None:
    assert facts(ExecutorFacts, Ray).addresses == ("address",)
    assert facts(PluginFacts, Mlflow).addresses == ("uri",)
    assert facts(PluginFacts, Wandb).addresses == ("host",)


def test_another_config_is_not_resumed_as_the_run(
    kept: Callable[..., Path], registry: Registry, tiny_config: Callable[..., RunConfig]
) -> None:
    with pytest.raises(ConfigError, match="the run has another config"):
        Run.resume(kept(None), tiny_config(registry, seed=7), registry=registry)
