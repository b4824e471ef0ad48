"""Ray changes where clients run, but not a bit of the result, and no part of it outlives a run.

The module has one cluster: two nodes on this machine's loopback, each with its own processes.
Workers take seconds to start, so most tests reuse those of earlier tests. The file is over 400
lines long because the cluster is a module's fixture and takes too long to start for another module.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from fedbench import ClientContext, ConfigError, PerClass, Run, hookimpl
from fedbench.executors import ray as executor
from fedbench.executors.packing import pack, pack_data, unpack, unpack_data
from fedbench.executors.pool import WorkerDied
from fedbench.executors.ray import RayWorkers, Worker
from fedbench.executors.ray_guard import belongs
from fedbench.plugins.discovery import discover
from fedbench.plugins.registry import Registry
from fedbench.store.environment import versions
from fedbench.store.fingerprint import of_data, of_partition
from fedbench.testing import tiny_dataset
from fedbench.values import flatten, unflatten

needs_ray = pytest.mark.skipif(
    find_spec("ray") is None or not sys.platform.startswith("linux"),
    reason="needs Ray (pip install 'fedbench-toolkit[ray]') and Linux",
)
pytestmark = pytest.mark.long
HEAD, SECOND = "127.0.0.2", "127.0.0.3"
ROOT = Path(__file__).parents[2]


def on_ray(**options: Any) -> dict[str, Any]:
    """Three workers on two nodes, so that one node has two of them."""
    return {"name": "ray", "workers": 3, "cpus_per_client": 0.5, **options}


def alive(session: int) -> dict[int, str]:
    """Return the processes of a session, without zombies, and their command lines."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rsplit(")", 1)[1].split()
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] not in "ZX":
            found[int(folder.name)] = command
    return found


def end(session: int) -> None:
    """Kill a session's processes as a power cut would, the calling process last."""
    for pid in sorted(alive(session), key=lambda pid: pid == os.getpid()):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def until(true: Callable[[], bool]) -> bool:
    """Return whether ``true()`` becomes true within 30 seconds."""
    deadline = time.monotonic() + 30
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def gone(session: int, name: str = "") -> bool:
    """Return whether a session soon has no process with ``name`` in its command line."""
    return until(lambda: not any(name in command for command in alive(session).values()))


@dataclass
class Cluster:
    address: str
    head: int
    second: int


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Start two nodes with one CPU each; each `ray start` is a process in its own session."""
    with socket.socket() as probe:
        probe.bind((HEAD, 0))
        address = f"{HEAD}:{probe.getsockname()[1]}"
    paths = [str(ROOT), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    env = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(path for path in paths if path),
        "RAY_AUTH_MODE": "disabled",
        "RAY_health_check_initial_delay_ms": "0",
        "RAY_health_check_period_ms": "500",
        "RAY_health_check_failure_threshold": "4",
    }
    words = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--num-cpus=1"]
    words += ["--object-store-memory=80000000", "--disable-usage-stats"]
    words += ["--min-worker-port=0", "--max-worker-port=0"]
    nodes: list[subprocess.Popen[bytes]] = []

    def start(*more: str) -> subprocess.Popen[bytes]:
        node = subprocess.Popen(
            [*words, *more], env=env, start_new_session=True, stdout=log, stderr=log
        )
        nodes.append(node)
        return node

    with tempfile.TemporaryDirectory(prefix="fb-", dir="/tmp") as folder:
        with Path(folder, "log").open("wb") as log:
            port = address.split(":")[1]
            temporary = [f"--temp-dir={folder}", "--include-dashboard=false"]
            try:
                head = start("--head", f"--port={port}", f"--node-ip-address={HEAD}", *temporary)
                wait_for(address, head)
                second = start(f"--address={address}", f"--node-ip-address={SECOND}")
                yield Cluster(address, head.pid, second.pid)
            finally:
                for node in nodes:
                    end(node.pid)
                    node.wait()
        assert all(gone(node.pid) for node in nodes)


def wait_for(address: str, process: subprocess.Popen[bytes]) -> None:
    host, port = address.split(":")
    deadline = time.monotonic() + 60
    while True:
        assert process.poll() is None, "the head node ended"
        try:
            socket.create_connection((host, int(port)), timeout=5).close()
            return
        except OSError:
            assert time.monotonic() < deadline, "the head node does not answer"
            time.sleep(0.1)


@pytest.fixture(scope="module")
def connected(cluster: Cluster) -> Iterator[Any]:
    """Connect this process like a program that calls ``ray.init`` itself; wait for both nodes."""
    import ray

    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    deadline = time.monotonic() + 60
    while sum(node["Alive"] for node in ray.nodes()) < 2:
        assert time.monotonic() < deadline, "the second node did not join"
        time.sleep(0.1)
    yield ray
    ray.shutdown()


@pytest.fixture(scope="module")
def kept() -> list[Any]:
    return []


@pytest.fixture
def reused(connected: Any, kept: list[Any], monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Keep workers for the next test instead of stopping them; one that died is replaced."""
    free, new = list(kept), RayWorkers._new_worker

    def take(self: RayWorkers) -> Any:
        if free:
            return free.pop(0)
        kept.append(new(self))
        return kept[-1]

    monkeypatch.setattr(RayWorkers, "_new_worker", take)
    monkeypatch.setattr(RayWorkers, "_end", lambda self, worker: None)
    return kept


def same(*results: dict[str, Any]) -> bool:
    keys = ("weights_sha256", "metrics_sha256", "accuracy", "bytes", "config_hash")
    return all(result[key] == results[0][key] for result in results for key in keys)


@needs_ray
@pytest.mark.parametrize("method", ["fedavg", "fedhpro", "fedproto-aaai", "scaffold"])
def test_the_same_bits_inline_and_on_two_nodes(
    method: str, run_tiny: Callable[..., Run], reused: list[Any], connected: Any
) -> None:
    inline = run_tiny(method, rounds=2).result()
    assert same(inline, run_tiny(method, rounds=2, executor=on_ray()).result())
    hosts = [worker.__ray_call__.remote(host) for worker in reused]
    assert set(connected.get(hosts)) == {HEAD, SECOND}
    assert connected.is_initialized(), "a program's own connection stays"


@needs_ray
def test_what_is_observed_is_the_same_on_two_nodes(
    run_tiny: Callable[..., Run], reused: list[Any]
) -> None:
    given = {"rounds": 2, "extra": {"anchor_diagnostics": {"probe": 12}}}
    inline, here = (run_tiny("fedhpro", **given, **more) for more in ({}, {"executor": on_ray()}))
    assert same(inline.result(), here.result())
    assert [one.pictures for one in here.history] == [one.pictures for one in inline.history]
    assert "anchor_diagnostics.cka" in here.history[-1].metrics


def host(_: Worker) -> str:
    import ray

    return str(ray.util.get_node_ip_address())


def mapping(worker: Worker) -> tuple[str, str, str, int]:
    """Return where a worker's training images are: host, permissions, file and place in it."""
    place = worker._runtime.data.train.inputs.data_ptr()
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, permissions, offset, device, inode, *_ = line.split()
        low, high = (int(end, 16) for end in span.split("-"))
        if low <= place < high:
            where = place - low + int(offset, 16)
            return host(worker), permissions, f"{device} {inode}", where
    raise AssertionError("the data is not in any mapping")


@needs_ray
def test_the_workers_of_a_node_read_one_copy_of_the_data(
    run_tiny: Callable[..., Run], reused: list[Any], connected: Any
) -> None:
    run_tiny(rounds=1, executor=on_ray())
    places = connected.get([worker.__ray_call__.remote(mapping) for worker in reused])
    assert len(places) == 3
    assert all(permissions[3] == "s" for _, permissions, _, _ in places), "shared, not private"
    assert len(set(places)) == 2, "one place per node"


class Awkward(Exception):
    """An exception that cannot be unpickled."""

    def __init__(self, one: str, two: str) -> None:
        super().__init__(f"{one} and {two}")


@dataclass(frozen=True, eq=False)
class Fails:
    """Raises in client 2."""

    known: bool = True

    @hookimpl(wrapper=True)
    def client_update(self, ctx: ClientContext) -> Any:
        if ctx.client == 2:
            raise ConfigError("a plain reason") if self.known else Awkward("one", "two")
        return (yield)


@needs_ray
def test_an_error_in_a_client_is_the_same_error_here(
    run_tiny: Callable[..., Run], add: Callable[..., None], reused: list[Any]
) -> None:
    add(fails=Fails)
    with pytest.raises(ConfigError, match="a plain reason") as caught:
        run_tiny(executor=on_ray(), extra={"fails": {}})
    assert caught.value.__notes__ == ["in round 1, client 2"]
    with pytest.raises(RuntimeError, match="Awkward: one and two"):
        run_tiny(executor=on_ray(), extra={"fails": {"known": False}})


@needs_ray
def test_a_client_that_is_skipped_is_skipped_here_too(
    run_tiny: Callable[..., Run], add: Callable[..., None], reused: list[Any]
) -> None:
    add(fails=Fails)
    given = {"extra": {"fails": {"known": False}}, "failures": {"policy": "skip"}}
    inline = run_tiny(**given)
    there = run_tiny(executor=on_ray(), **given)
    assert same(inline.result(), there.result())
    assert [f.client for f in there.history[0].failures] == [2]


@needs_ray
def test_clients_own_models_are_scored_on_two_nodes_as_here(
    run_tiny: Callable[..., Run], reused: list[Any]
) -> None:
    given = {"rounds": 2, "clients": {"test": 0.25, "validation": 0.25}}
    inline = run_tiny("fedproto-aaai", **given)
    there = run_tiny("fedproto-aaai", executor=on_ray(), **given)
    assert same(inline.result(), there.result())
    assert inline.history[-1].client_scores == there.history[-1].client_scores != {}


@needs_ray
def test_the_same_clients_are_faulty_on_two_nodes(
    run_tiny: Callable[..., Run], reused: list[Any]
) -> None:
    rates = {"drop": 0.2, "crash": 0.2, "delay": 0.2}
    given = {"extra": {"faults": rates}, "failures": {"policy": "skip"}, "rounds": 3}
    inline, there = run_tiny(**given), run_tiny(executor=on_ray(), **given)
    assert same(inline.result(), there.result())
    failed, again = ([one.failures for one in run.history] for run in (inline, there))
    assert any(failed)
    assert failed == again


@dataclass(frozen=True, eq=False)
class Dies:
    """Kills its process whenever client 1 trains; with a marker, only until that file exists."""

    marker: str = ""

    @hookimpl(wrapper=True)
    def client_update(self, ctx: ClientContext) -> Any:
        if ctx.client == 1 and not (self.marker and Path(self.marker).exists()):
            if self.marker:
                Path(self.marker).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return (yield)


@needs_ray
def test_a_worker_that_dies_is_replaced_and_its_client_runs_again(
    run_tiny: Callable[..., Run], add: Callable[..., None], reused: list[Any], tmp_path: Path
) -> None:
    add(dies=Dies)
    marker = tmp_path / "died"
    extra = {"dies": {"marker": str(marker)}}
    result = run_tiny(executor=on_ray(), extra=extra).result()
    assert result["weights_sha256"] == run_tiny().result()["weights_sha256"]
    assert marker.exists()


@needs_ray
def test_a_client_that_kills_every_worker_ends_the_run_with_its_name(
    run_tiny: Callable[..., Run],
    add: Callable[..., None],
    reused: list[Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    add(dies=Dies)
    monkeypatch.setattr(executor, "ATTEMPTS", 2)  # each has to start a worker
    with pytest.raises(WorkerDied, match="round 1, client 1: its worker died 2 times"):
        run_tiny(executor=on_ray(), extra={"dies": {}})


@needs_ray
def test_a_cluster_without_room_is_reported(
    run_tiny: Callable[..., Run], connected: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match="room for 0 of 1 workers of 8 CPU and 0 GPU each"):
        run_tiny(executor={"name": "ray", "cpus_per_client": 8})
    monkeypatch.setattr(executor, "PATIENCE", 0.2)
    with pytest.raises(WorkerDied, match="no node of the cluster had room for a worker"):
        run_tiny(executor=on_ray(cpus_per_client=8))


@dataclass(frozen=True, eq=False)
class PowerCut:
    """Kills all processes of the second node during a client's turn in round 2."""

    marker: str = ""
    node: int = 0

    @hookimpl(wrapper=True)
    def client_update(self, ctx: ClientContext) -> Any:
        trained = yield
        if ctx.round == 2 and os.getsid(0) == self.node:
            Path(self.marker).touch()
            end(self.node)
        if ctx.round == 2:  # the first node waits until the second has had a client
            assert until(Path(self.marker).exists), "the second node got no client"
        return trained


@needs_ray
def test_a_lost_nodes_clients_run_again_and_no_worker_is_left(
    run_tiny: Callable[..., Run], add: Callable[..., None], cluster: Cluster, tmp_path: Path
) -> None:
    """Here the executor connects to the address itself, and the run has workers of its own."""
    import ray

    ray.shutdown()
    assert gone(cluster.head, "ray::Worker")
    add(power_cut=PowerCut)
    marker = tmp_path / "cut"
    extra = {"power_cut": {"marker": str(marker), "node": cluster.second}}
    options = on_ray(address=cluster.address, workers=2, cpus_per_client=1)
    result = run_tiny(rounds=3, executor=options, extra=extra).result()
    assert result["weights_sha256"] == run_tiny(rounds=3).result()["weights_sha256"]
    assert marker.exists()
    assert not alive(cluster.second)
    assert not ray.is_initialized()
    assert gone(cluster.head, "ray::Worker")


LOCAL = """
import sys
sys.path.insert(0, {root!r})
from tests import conftest
from fedbench import Run
from fedbench.plugins.discovery import discover

registry = discover()
registry.add(conftest.TINY, "tests")
executor = {{"name": "ray", "workers": 1}}
run = Run(conftest.make_config(registry, rounds={rounds}, executor=executor), registry=registry)
for _ in run.rounds():
    print("a round", flush=True)
print(run.result()["weights_sha256"], flush=True)
"""


def local(rounds: int, home: Path) -> subprocess.Popen[str]:
    """Start a run with its own Ray, in its own session."""
    home.mkdir(exist_ok=True)
    env = {**os.environ, "HOME": str(home), "TMPDIR": str(home)}
    return subprocess.Popen(
        [sys.executable, "-c", LOCAL.format(root=str(ROOT), rounds=rounds)],
        env=env,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@needs_ray
def test_two_runs_on_one_machine_never_meet_and_leave_nothing_behind(
    run_tiny: Callable[..., Run], tmp_path: Path
) -> None:
    """One ends cleanly, the other is killed, which Ray's processes would notice after a minute."""
    whole = local(2, tmp_path / "whole")
    killed = local(10_000, tmp_path / "killed")
    try:
        assert killed.stdout is not None
        assert killed.stdout.readline() == "a round\n"
        assert any("ray::Worker" in command for command in alive(killed.pid).values())
        folders = list((tmp_path / "killed").glob("fb-*")) or folders_of(killed.pid)
        assert len(folders) == 1
        killed.kill()
        killed.wait()
        killed.stdout.close()
        assert gone(killed.pid)
        assert until(lambda: not folders[0].exists())
        assert until(lambda: not any(belongs(p, str(folders[0])) for p in processes()))
        text = whole.communicate(timeout=120)[0]
        assert text.split()[-1] == run_tiny().result()["weights_sha256"]
        assert not alive(whole.pid), "after a clean end there is nothing to wait for"
    finally:
        for run in (whole, killed):
            end(run.pid)
            run.wait()


@needs_ray
def test_workers_run_no_code_from_the_current_folder(tmp_path: Path) -> None:
    here = tmp_path / "here"
    here.mkdir()
    for name in ("random", "queue", "torch", "numpy", "asyncio", "fedbench", "fedbench_baselines"):
        (here / f"{name}.py").write_text(f"open({str(tmp_path / 'hit')!r}, 'a').write('{name} ')")
    words = ["run", "fedavg", "--rounds", "1", "--executor", "ray", "--workers", "1", "--quiet"]
    sets = ("sgd.epochs=1", "domains.examples=20", "model.width=2")
    done = subprocess.run(
        [sys.executable, "-P", "-m", "fedbench", *words, *(w for s in sets for w in ("--set", s))],
        cwd=here,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "hit").exists()


def processes() -> list[Path]:
    return list(Path("/proc").glob("[0-9]*"))


def folders_of(session: int) -> list[Path]:
    """Return the folders that the session's Ray was started with."""
    words = " ".join(alive(session).values()).replace("=", " ").split()
    return list({Path(*Path(word).parts[:3]) for word in words if word.startswith("/tmp/fb-")})


def test_without_ray_the_error_says_what_to_install(
    run_tiny: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "ray" in discover().names("executor")
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"pip install 'fedbench-toolkit\[ray\]'$"):
        run_tiny(executor={"name": "ray"})


@needs_ray
def test_no_cluster_at_the_address_is_one_clear_line(
    run_tiny: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    def refused(**_: Any) -> None:
        raise ConnectionError("Failed to connect\nto far:1")

    monkeypatch.setattr(ray, "init", refused)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(
        ConfigError, match=r"^executor.address 'far:1': Failed to connect to far:1$"
    ):
        run_tiny(executor=on_ray(address="far:1"))


@needs_ray
def test_a_node_with_other_packages_is_refused(
    registry: Registry, tiny_config: Callable[..., Any]
) -> None:
    import ray

    config = tiny_config(registry)
    needed = {k: v for k, v in registry.entries.items() if k[0] != "recipe"}
    entries, missing = ray.cloudpickle.dumps(needed), b"cnot_installed\nPlugin\n."
    given = config.to_dict()
    with pytest.raises(ConfigError, match=r"node .* has torch .*, the main process has 0\.1$"):
        Worker().start(given, config.hash, {**versions(), "torch": "0.1"}, entries, None)
    with pytest.raises(ConfigError, match=r"lacks a plugin of this run .*not_installed"):
        Worker().start(given, config.hash, versions(), missing, None)
    with pytest.raises(ConfigError, match="reads this config differently"):
        Worker().start(given, "0" * 64, versions(), entries, None)


def test_packed_tensors_come_back_as_they_were() -> None:
    values = {
        "t": torch.arange(7, dtype=torch.float32).reshape(7, 1),
        "across": torch.arange(6).reshape(2, 3).T,
        "empty": torch.empty(0, 3, dtype=torch.int64),
        "scalar": torch.tensor(3, dtype=torch.int64),
        "half": torch.tensor([1.5], dtype=torch.bfloat16),
        "flag": torch.tensor([True, False]),
        "p": PerClass(torch.tensor([1]), torch.ones(1, 2), torch.tensor([4])),
    }
    for copy in (True, False):
        flat = unpack(pack(flatten(values)), copy)
        assert list(unflatten(flat)) == list(values)
        for name, tensor in flatten(values).items():
            assert torch.equal(flat[name], tensor)
            assert flat[name].dtype == tensor.dtype


@pytest.mark.parametrize("clients", [("ann", "bob"), ()])
def test_packed_data_come_back_as_they_were(clients: tuple[str, ...]) -> None:
    data = tiny_dataset()
    own = torch.arange(len(data.train)) % 2 if clients else None
    train, test = replace(data.train, clients=own), replace(data.test, clients=None)
    data = replace(data, train=train, test=test, clients=clients)
    parts = [torch.tensor([4, 0]), torch.tensor([1])]
    found, again = unpack_data(pack_data(data, parts))
    assert of_data(found) == of_data(data)
    assert found.clients == clients
    assert (found.train.clients is None) == (not clients)
    assert found.test.clients is None
    assert of_partition(again) == of_partition(parts)
