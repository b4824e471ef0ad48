"""Executors change where clients run, but not a bit of the result."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from fedbench_baselines import fedavg

from fedbench import ClientContext, ConfigError, FedbenchError, PerClass, Run, hookimpl
from fedbench.executors.pool import Pool, WorkerDied
from fedbench.executors.shared import Buffer, Copies
from fedbench.plugins.registry import Registry
from fedbench.types import seal

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the pool forks")
INLINE = {"name": "inline"}


def pool(workers: int) -> dict[str, Any]:
    return {"name": "pool", "workers": workers}


@pytest.mark.every_method(slow=True)
def test_the_same_bits_inline_and_with_any_number_of_workers(
    method: str, run_tiny: Callable[..., Run]
) -> None:
    results = [
        run_tiny(method, rounds=3, executor=executor).result()
        for executor in (INLINE, pool(1), pool(2), pool(3))
    ]
    for key in ("weights_sha256", "metrics_sha256", "accuracy", "bytes"):
        assert all(result[key] == results[0][key] for result in results)


@dataclass(frozen=True, eq=False)
class DiesOnce:
    """Kills its process in client 1's first attempt of round 2."""

    marker: str = ""

    @hookimpl(wrapper=True)
    def client_update(self, ctx: ClientContext) -> Any:
        marker = Path(self.marker)
        if (ctx.round, ctx.client) == (2, 1) and not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return (yield)


@dataclass(frozen=True, eq=False)
class AlwaysDies:
    """Kills its process whenever client 1 trains."""

    @hookimpl(wrapper=True)
    def client_update(self, ctx: ClientContext) -> Any:
        if ctx.client == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return (yield)


def test_a_worker_that_dies_is_replaced_and_its_client_runs_again(
    run_tiny: Callable[..., Run], add: Callable[..., None], tmp_path: Path
) -> None:
    add(dies_once=DiesOnce)
    undisturbed = run_tiny("fedavg", rounds=3, executor=INLINE).result()
    marker = tmp_path / "died"
    extra = {"dies_once": {"marker": str(marker)}}
    result = run_tiny("fedavg", rounds=3, executor=pool(2), extra=extra).result()
    assert marker.exists()
    assert result["weights_sha256"] == undisturbed["weights_sha256"]


def test_a_client_that_kills_every_worker_ends_the_run_with_its_name(
    run_tiny: Callable[..., Run], add: Callable[..., None]
) -> None:
    add(always_dies=AlwaysDies)
    with pytest.raises(WorkerDied, match="round 1, client 1: its worker process died 3 times"):
        run_tiny("fedavg", executor=pool(2), extra={"always_dies": {}})


@dataclass(frozen=True, eq=False)
class Fails:
    """Raises in client 2."""

    known: bool = True

    @hookimpl(wrapper=True)
    def client_update(self, ctx: ClientContext) -> Any:
        if ctx.client == 2:
            if self.known:
                raise ConfigError("a plain reason")
            raise Awkward("one", "two")
        return (yield)


class Awkward(Exception):
    """An exception that cannot be unpickled."""

    def __init__(self, one: str, two: str) -> None:
        super().__init__(f"{one} and {two}")


@pytest.mark.parametrize("known", [True, False])
def test_an_error_in_a_worker_is_the_same_error_in_the_parent(
    known: bool, run_tiny: Callable[..., Run], add: Callable[..., None]
) -> None:
    add(fails=Fails)
    kind, text = (
        (ConfigError, "a plain reason") if known else (RuntimeError, "Awkward: one and two")
    )
    with pytest.raises(kind, match=text) as caught:
        run_tiny("fedavg", executor=pool(2), extra={"fails": {"known": known}})
    assert caught.value.__notes__ == ["in round 1, client 2"]


def test_no_worker_is_left_when_a_run_ends_or_is_stopped_early(
    registry: Registry, tiny_config: Callable[..., Any], pids: list[int]
) -> None:
    run = Run(tiny_config(registry, rounds=3, executor=pool(2)), registry=registry)
    for _ in run.rounds():
        assert all(Path(f"/proc/{pid}").exists() for pid in pids)
        break
    assert len(pids) == 2
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_a_worker_that_dies_while_idle_is_replaced(
    registry: Registry,
    tiny_config: Callable[..., Any],
    run_tiny: Callable[..., Run],
    pids: list[int],
) -> None:
    undisturbed = run_tiny("fedavg", rounds=3, executor=INLINE).result()
    run = Run(tiny_config(registry, rounds=3, executor=pool(2)), registry=registry)
    for result in run.rounds():
        if result.round < 3:
            os.kill(pids[-1], signal.SIGKILL)
    assert len(pids) == 4  # each of the two that died has a successor
    assert run.result()["weights_sha256"] == undisturbed["weights_sha256"]


@pytest.mark.long
def test_no_worker_outlives_a_killed_parent(tmp_path: Path) -> None:
    words = ["run", "fedavg", "--set", "domains.examples=20", "--set", "sgd.epochs=1"]
    words += ["--rounds", "500", "--executor", "pool", "--set", "executor.workers=2"]
    parent = subprocess.Popen(
        [sys.executable, "-m", "fedbench", *words, "--out", str(tmp_path / "r")],
        stdout=subprocess.PIPE,
    )
    assert parent.stdout is not None
    while b"round 1/500" not in parent.stdout.readline():
        assert parent.poll() is None
    children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()
    assert len(children) == 2
    parent.kill()
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 10
    while any(_alive(pid) for pid in children) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(_alive(pid) for pid in children)


def _alive(pid: str) -> bool:
    """Return whether a process is running; a zombie is not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_results_come_in_client_order_and_few_wait(
    registry: Registry, tiny_config: Callable[..., Any]
) -> None:
    sizes = {"clients_per_domain": 9, "examples": 3}
    config = tiny_config(registry, rounds=1, executor=pool(2), extra={"domains": sizes})
    seen: list[int] = []
    run = Run(config, registry=registry, progress=lambda _, done, __: seen.append(done))
    run.run()
    assert seen == list(range(1, 19))


@pytest.mark.parametrize("size", [17, 1 << 16], ids=["too small", "large enough"])
@pytest.mark.parametrize("copied", [True, False])
@pytest.mark.parametrize("channels_last", [True, False])
def test_a_buffer_returns_what_was_put(size: int, copied: bool, channels_last: bool) -> None:
    buffer = Buffer(size)
    values = {
        "t": torch.arange(7, dtype=torch.float32).reshape(7, 1),
        "empty": torch.empty(0, 3, dtype=torch.int64),
        "scalar": torch.tensor(3, dtype=torch.int64),
        "half": torch.tensor([1.5], dtype=torch.bfloat16),
        "flag": torch.tensor([True, False]),
        "p": PerClass(torch.tensor([1]), torch.ones(1, 2), torch.tensor([4])),
        "m": {
            "a.b": torch.ones(2, 2),
            "n": torch.tensor(1),
            "kernel": torch.arange(24.0).reshape(1, 2, 3, 4),
        },
    }
    found: Any = buffer.get(buffer.put(values, channels_last), lambda key, size: copied)
    assert set(found) == set(values)
    for key in ("t", "empty", "scalar", "half", "flag"):
        assert torch.equal(found[key], values[key])  # type: ignore[arg-type]
        assert found[key].dtype == values[key].dtype  # type: ignore[union-attr]
    assert torch.equal(found["p"].values, values["p"].values)  # type: ignore[union-attr]
    assert torch.equal(found["m"]["a.b"], values["m"]["a.b"])  # type: ignore[index,call-overload]
    assert torch.equal(found["m"]["kernel"], values["m"]["kernel"])  # type: ignore[index,call-overload]
    # In the layout that convolutions use, if requested.
    assert found["m"]["kernel"].is_contiguous() != channels_last


def test_a_large_copy_stays_unchanged_while_in_use_and_then_its_memory_is_reused() -> None:
    buffer = Buffer(8 << 20)

    def copy(weights: dict[str, torch.Tensor]) -> Any:
        buffer.clear()
        return buffer.get(buffer.put({"w": weights}), lambda key, size: True)["w"]

    first = copy({"a": torch.zeros(400_000), "b": torch.ones(3)})
    place = first["a"].data_ptr()
    view = first["b"][1:]  # a view keeps the whole copy in use
    del first
    second = copy({"a": torch.full((400_000,), 2.0)})
    assert second["a"].data_ptr() != place
    assert torch.equal(view, torch.ones(2))
    del view
    third = copy({"a": torch.full((400_000,), 3.0)})
    assert third["a"].data_ptr() == place
    assert torch.equal(second["a"], torch.full((400_000,), 2.0))


def test_what_is_made_in_a_buffer_is_not_written_twice_and_is_lent_until_nothing_uses_it() -> None:
    buffer = Buffer(1 << 16)
    made = seal({"a": torch.arange(30.0).reshape(5, 6).t(), "b": torch.ones(2)}, "w", buffer.empty)
    places = buffer.put({"w": made})
    returned: list[str] = []
    lent: Any = buffer.get(places, memory=buffer.lend(lambda: returned.append("back")))
    assert lent["w"]["a"].data_ptr() == made["a"].data_ptr()  # type: ignore[index,call-overload]
    assert torch.equal(lent["w"]["a"], torch.arange(30.0).reshape(5, 6).t())
    assert lent["w"]["a"].is_contiguous()
    rest = lent["w"]["b"][:1]
    del lent
    assert not returned
    del rest
    assert returned == ["back"]


def test_an_aggregator_may_hold_more_results_than_there_are_slots(
    run_tiny: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = {"domains": {"clients_per_domain": 9, "examples": 3}}
    expected = run_tiny("fedavg", executor=INLINE, extra=sizes).result()["weights_sha256"]
    shared: list[bool] = []
    mean = fedavg.weighted_mean

    def of_all(items: Iterable[Any]) -> Any:
        held = list(items)
        for weights, _ in held:
            (size,) = {tensor.untyped_storage().nbytes() for tensor in weights.values()}
            shared.append(size >= 16 << 20)
        return mean(held)

    monkeypatch.setattr(fedavg, "weighted_mean", of_all)
    monkeypatch.setattr(Copies, "LARGE", 1 << 10)
    monkeypatch.setattr("fedbench.executors.pool.WAITING", 0)
    assert run_tiny("fedavg", executor=pool(2), extra=sizes).result()["weights_sha256"] == expected
    assert len(shared) == 2 * 18
    for one in (shared[:18], shared[18:]):  # slots are free again after each round
        assert one[0]
        assert not one[-1]


def test_too_few_workers_are_refused(registry: Registry, tiny_config: Callable[..., Any]) -> None:
    with pytest.raises(FedbenchError, match="workers"):
        tiny_config(registry, executor=pool(0))


class Spied:
    """Workers that record which test data they run."""

    def __init__(self, inner: Any, test: bool) -> None:
        self.inner, self.seen = inner, []
        self.run, self.close = inner.run, inner.close
        if test:
            self.test = self._test

    def _test(self, weights: Any, chunks: Any) -> Any:
        for chunk, output in zip(chunks, self.inner.test(weights, chunks), strict=True):
            self.seen.append((chunk.domain, chunk.start, len(output.logits)))
            yield output


@pytest.mark.parametrize("method", ["fedavg", "fedproto-aaai"])
def test_test_data_goes_to_workers_that_accept_it_and_the_bits_are_the_same(
    method: str, run_tiny: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fedbench.pipeline.EVAL_BATCH", 5)
    expected = run_tiny(method, rounds=1, executor=INLINE).result()["metrics_sha256"]
    opened = Pool.open
    for test in (True, False):
        spies: list[Spied] = []

        def spied(self: Pool, runtime: Any, test: bool = test, spies: list[Spied] = spies) -> Any:
            spies.append(Spied(opened(self, runtime), test))
            return spies[0]

        monkeypatch.setattr(Pool, "open", spied)
        result = run_tiny(method, rounds=1, executor=pool(2)).result()
        assert result["metrics_sha256"] == expected
        # 12 test examples in each of 2 domains; clients' own models are scored in their turns
        parts = [(d, s, n) for d in (0, 1) for s, n in PARTS]
        assert spies[0].seen == (parts if test and method == "fedavg" else [])


PARTS = ((0, 5), (5, 5), (10, 2))


@dataclass(frozen=True, eq=False)
class DisturbsTests:
    """Kills its process, or raises, when test data is prepared.

    It spares the process ``spared``: the main one prepares some to see whether the model fits it.
    """

    marker: str = ""
    spared: int = 0

    @hookimpl
    def transform(self, inputs: torch.Tensor, train: bool) -> torch.Tensor:
        if train or os.getpid() == self.spared:
            return inputs
        if not self.marker:
            raise ZeroDivisionError("in a transform")
        if not Path(self.marker).exists():
            Path(self.marker).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return inputs


def test_a_worker_that_dies_with_test_data_is_replaced(
    run_tiny: Callable[..., Run], add: Callable[..., None], tmp_path: Path
) -> None:
    add(disturbs=DisturbsTests)
    undisturbed = run_tiny("fedavg", executor=INLINE).result()
    extra = {"disturbs": {"marker": str(tmp_path / "died"), "spared": os.getpid()}}
    result = run_tiny("fedavg", executor=pool(2), extra=extra).result()
    assert (tmp_path / "died").exists()
    assert result["metrics_sha256"] == undisturbed["metrics_sha256"]


def test_an_error_with_test_data_is_the_same_error_in_the_parent(
    run_tiny: Callable[..., Run], add: Callable[..., None]
) -> None:
    add(disturbs=DisturbsTests)
    with pytest.raises(ZeroDivisionError, match="in a transform"):
        run_tiny("fedavg", executor=pool(2), extra={"disturbs": {"spared": os.getpid()}})


def test_random_test_transforms_do_not_depend_on_who_runs_them(
    run_tiny: Callable[..., Run], add: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fedbench.pipeline.EVAL_BATCH", 5)
    add(noise=Noise)
    results = [
        run_tiny("fedavg", executor=executor, extra={"noise": {}}).result()["metrics_sha256"]
        for executor in (INLINE, pool(2), pool(3))
    ]
    assert len(set(results)) == 1
    assert results[0] != run_tiny("fedavg", executor=INLINE).result()["metrics_sha256"]


@dataclass(frozen=True, eq=False)
class Noise:
    """Adds noise to test data: from its stream and from torch's global generator."""

    @hookimpl
    def transform(self, inputs: torch.Tensor, train: bool, rng: torch.Generator) -> torch.Tensor:
        if train:
            return inputs
        return inputs + torch.rand(inputs.shape, generator=rng) + torch.rand(inputs.shape)
