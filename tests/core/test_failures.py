"""Clients that fail: the policy decides what happens, and every executor reports the same."""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from fedbench import ClientContext, ConfigError, PluginError, Run, ServerUpdate, hookimpl
from fedbench.engine.totals import canonical_round, count_failures
from fedbench.errors import NonFiniteError
from fedbench.failures import ClientFailed, ClientFailure, TooFewClients, failure
from fedbench.plugins.registry import Registry
from fedbench.store.directory import RunDirectory
from fedbench.store.files import json_ready
from fedbench.types import Failure, Payload

INLINE = {"name": "inline"}
EXECUTORS = [INLINE] + [
    pytest.param(
        {"name": "pool", "workers": n},
        marks=pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the pool forks"),
    )
    for n in (1, 2, 3)
]
SKIP = {"policy": "skip"}


@dataclass(frozen=True, eq=False)
class Breaks:
    """Fails the clients ``who`` in their first ``times`` attempts, from round ``since`` on."""

    who: tuple[int, ...] = (1,)
    times: int = 99
    since: int = 1
    error: str = "plain"

    @hookimpl(wrapper=True)
    def client_update(self, ctx: ClientContext) -> Any:
        trained = yield
        ctx.state["turns"] = ctx.state.get("turns", torch.zeros(1)) + 1
        if ctx.client in self.who and ctx.attempt <= self.times and ctx.round >= self.since:
            if self.error == "memory":
                raise MemoryError("no more")
            if self.error == "disk":
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            if self.error == "rule":
                raise PluginError("a broken rule")
            if self.error == "config":
                raise ConfigError("a wrong option")
            if self.error == "purpose":
                raise ClientFailed("dropped", "went away")
            if self.error == "upload":
                ctx.scratch["breaks"] = True
            elif self.error == "metric":
                ctx.metric("breaks", torch.tensor(torch.inf))
            else:
                raise ZeroDivisionError(f"by client {ctx.client}")
        return trained

    @hookimpl
    def send_uploads(self, ctx: ClientContext, uploads: Payload) -> dict[str, Any]:
        if "breaks" not in ctx.scratch:
            return {**uploads}
        weights = {k: v.clone() for k, v in uploads.weights().items()}
        weights["classifier.bias"][1] = torch.inf
        return {**uploads, "weights": weights}


@pytest.fixture
def broken(
    add: Callable[..., None], run_tiny: Callable[..., Run], registry: Registry
) -> Callable[..., Run]:
    """Run FedAvg (four clients) with `Breaks` and ``failures`` as given."""
    add(breaks=Breaks)

    def run(failures: dict[str, Any], directory: Path | None = None, **options: Any) -> Run:
        given = {k: options.pop(k) for k in ("executor", "rounds") if k in options}
        given |= {"extra": {"breaks": options}}
        return run_tiny(directory=directory, failures=failures, **given)

    return run


@pytest.fixture
def without(add: Callable[..., None], run_tiny: Callable[..., Run]) -> Callable[..., Run]:
    """Run FedAvg with some clients never selected."""

    def run(clients: tuple[int, ...]) -> Run:
        @dataclass(frozen=True, eq=False)
        class Others:
            @hookimpl
            def select_clients(self) -> list[int]:
                return [c for c in range(4) if c not in clients]

        add(others=Others)
        return run_tiny(extra={"others": {}}, without=["uniform"])

    return run


# --- policies ------------------------------------------------------------------------------------


@pytest.mark.parametrize("executor", EXECUTORS, ids=str)
def test_fail_raises_the_error_of_the_lowest_client_id(
    broken: Callable[..., Run], executor: dict[str, Any]
) -> None:
    with pytest.raises(ZeroDivisionError, match="by client 1") as caught:
        broken({"policy": "fail"}, who=[3, 1], executor=executor)
    assert caught.value.__notes__ == ["in round 1, client 1"]


def test_skip_gives_the_bits_of_a_round_without_the_client(
    broken: Callable[..., Run], without: Callable[..., Run]
) -> None:
    run, other = broken(SKIP, who=[1, 2]), without((1, 2))
    assert run.result()["weights_sha256"] == other.result()["weights_sha256"]
    assert run.history[0].bytes_up == other.history[0].bytes_up
    assert run.history[0].bytes_down["weights"] == 2 * other.history[0].bytes_down["weights"]
    assert run.history[0].clients == [0, 1, 2, 3]
    assert run.result()["failures"] == {"ZeroDivisionError": 4, "lost": 4}
    assert run.history[1].failures[1] == Failure(
        2, 1, "ZeroDivisionError", "ZeroDivisionError: by client 2", lost=True
    )


@pytest.mark.parametrize("executor", EXECUTORS, ids=str)
def test_a_retry_that_succeeds_gives_the_bits_of_a_turn_that_never_failed(
    broken: Callable[..., Run], run_tiny: Callable[..., Run], executor: dict[str, Any]
) -> None:
    run = broken({"policy": "retry"}, who=[0, 3], times=2, executor=executor)
    assert run.result()["weights_sha256"] == run_tiny().result()["weights_sha256"]
    assert run.result()["failures"] == {"ZeroDivisionError": 8, "lost": 0}
    assert [(f.client, f.attempt) for f in run.history[0].failures] == [
        (0, 1), (0, 2), (3, 1), (3, 2)
    ]  # fmt: skip


def test_a_retry_that_never_succeeds_continues_without_the_client(
    broken: Callable[..., Run], without: Callable[..., Run]
) -> None:
    run = broken({"policy": "retry", "attempts": 4})
    assert run.result()["weights_sha256"] == without((1,)).result()["weights_sha256"]
    assert run.result()["failures"] == {"ZeroDivisionError": 8, "lost": 2}
    assert [f.lost for f in run.history[0].failures] == [False, False, False, True]


@pytest.mark.parametrize("policy", ["skip", "retry"])
@pytest.mark.parametrize("error", ["rule", "config", "memory"])
@pytest.mark.parametrize("executor", EXECUTORS[:3], ids=str)
def test_broken_rules_and_a_lack_of_memory_are_never_the_clients_failure(
    broken: Callable[..., Run], policy: str, error: str, executor: dict[str, Any]
) -> None:
    kind = {"rule": PluginError, "config": ConfigError, "memory": MemoryError}[error]
    with pytest.raises(kind) as caught:
        broken({"policy": policy}, error=error, executor=executor)
    assert caught.value.__notes__ == ["in round 1, client 1"]


def test_a_disk_that_is_full_is_never_the_clients_failure(broken: Callable[..., Run]) -> None:
    with pytest.raises(OSError, match="No space left on device") as caught:
        broken(SKIP, error="disk")
    assert caught.value.__notes__ == ["in round 1, client 1"]


@pytest.mark.parametrize("executor", EXECUTORS[:3], ids=str)
def test_a_round_ends_the_run_when_too_few_clients_are_left(
    broken: Callable[..., Run], executor: dict[str, Any]
) -> None:
    rule = {"policy": "skip", "min_clients": 3}
    assert len(broken(rule, who=[2], executor=executor).history) == 2
    with pytest.raises(TooFewClients) as caught:
        broken(rule, who=[2, 0], error="purpose", since=2, executor=executor)
    assert str(caught.value) == (
        "round 2: 2 of 4 clients left, failures.min_clients is 3 (client 0: dropped, went away; "
        "client 2: dropped, went away)"
    )
    assert isinstance(caught.value.__cause__, ClientFailed)


def test_requiring_more_clients_than_selected_ends_the_run(run_tiny: Callable[..., Run]) -> None:
    text = r"^round 1: 4 of 4 clients left, failures.min_clients is 5$"
    with pytest.raises(TooFewClients, match=text):
        run_tiny(failures={"min_clients": 5})


def test_a_failed_client_keeps_the_state_that_it_had(broken: Callable[..., Run]) -> None:
    run = broken(SKIP, who=[1], since=2, rounds=4)
    turns = {client: int(state["turns"]) for client, state in run._clients.items()}
    assert turns == {0: 4, 1: 1, 2: 4, 3: 4}


# --- what is kept --------------------------------------------------------------------------------


@pytest.mark.parametrize("executor", EXECUTORS[1:], ids=str)
@pytest.mark.parametrize("error", ["plain", "purpose", "upload"])
def test_every_executor_counts_the_same(
    broken: Callable[..., Run], executor: dict[str, Any], error: str
) -> None:
    one = broken(SKIP, who=[0, 2], error=error, executor=INLINE)
    two = broken(SKIP, who=[0, 2], error=error, executor=executor)
    for key in ("weights_sha256", "metrics_sha256", "failures"):
        assert one.result()[key] == two.result()[key]
    assert [r.failures for r in one.history] == [r.failures for r in two.history]


def test_rounds_with_failures_are_read_back(broken: Callable[..., Run], tmp_path: Path) -> None:
    run = broken(SKIP, directory=tmp_path / "r")
    assert run.history[0].failures
    assert RunDirectory(tmp_path / "r").read_rounds() == run.history
    written = json.loads((tmp_path / "r" / "result.json").read_text())
    assert written["failures"] == {"ZeroDivisionError": 2, "lost": 2}


def test_a_round_of_an_earlier_version_has_no_failures_and_keeps_its_hash(
    run_tiny: Callable[..., Run], tmp_path: Path
) -> None:
    run = run_tiny(rounds=1)
    old = json_ready(run.history[0])
    later = ("failures", "client_scores", "extra_scores", "validation", "time", "turns", "pictures")
    for key in (*later, "personal_seconds", "personal_bytes"):
        del old[key]
    RunDirectory(tmp_path).rounds_file.write_text(json.dumps(old) + "\n")
    assert RunDirectory(tmp_path).read_rounds() == run.history
    del old["seconds"]
    assert canonical_round(run.history[0]) == json.dumps(old, sort_keys=True)
    assert run.result()["failures"] == {}


def test_a_reason_is_one_line_of_at_most_300_characters_with_its_cause() -> None:
    def reason(text: str) -> str:
        return failure(1, 1, RuntimeError(text), lost=True).reason

    assert reason("Error(s) in loading:\n\tMissing \x1b[1mkey\n") == (
        r"RuntimeError: Error(s) in loading: Missing \x1b[1mkey"
    )
    shown = reason("x" * 400 + "\nthe cause")
    assert len(shown) == 300
    assert shown.endswith("the cause")


def test_reasons_are_not_hashed_but_kinds_are(broken: Callable[..., Run]) -> None:
    from dataclasses import replace

    result = broken(SKIP).history[0]
    failure = result.failures[0]
    other = replace(result, failures=(replace(failure, reason="at 0x7f00"),))
    assert canonical_round(other) == canonical_round(result)
    other = replace(result, failures=(replace(failure, kind="dropped"),))
    assert canonical_round(other) != canonical_round(result)


def test_a_fault_in_a_turn_whose_result_is_used_is_recorded(
    add: Callable[..., None], run_tiny: Callable[..., Run]
) -> None:
    @dataclass(frozen=True, eq=False)
    class Odd:
        @hookimpl(wrapper=True)
        def client_update(self, ctx: ClientContext) -> Any:
            ctx.fault("odd", "counted only")
            return (yield)

    add(odd=Odd)
    run = run_tiny(extra={"odd": {}}, rounds=1)
    assert run.history[0].failures == tuple(
        Failure(client, 1, "odd", "counted only", lost=False) for client in range(4)
    )
    assert count_failures(run.history) == {"odd": 4, "lost": 0}


def test_a_resumed_run_counts_as_if_it_had_never_stopped(
    add: Callable[..., None], registry: Registry, tiny_config: Callable[..., Any], tmp_path: Path
) -> None:
    add(breaks=Breaks)
    config = tiny_config(registry, rounds=4, failures=SKIP, extra={"breaks": {}})
    whole = Run(config, registry=registry).run()
    for result in Run(config, tmp_path / "r", registry=registry).rounds():
        if result.round == 2:
            break
    again = Run.resume(tmp_path / "r", registry=registry)
    assert len(again.history) == 2
    result = again.run()
    for key in ("weights_sha256", "metrics_sha256", "failures"):
        assert result[key] == whole[key]
    assert result["failures"] == {"ZeroDivisionError": 4, "lost": 4}


# --- values that are not finite ------------------------------------------------------------------


@pytest.mark.parametrize("executor", EXECUTORS[:3], ids=str)
def test_an_upload_that_is_not_finite_names_tensor_round_and_client(
    broken: Callable[..., Run], executor: dict[str, Any]
) -> None:
    text = r"^upload 'weights', tensor 'classifier.bias', is not finite in round 2, client 1$"
    with pytest.raises(NonFiniteError, match=text):
        broken({}, error="upload", since=2, executor=executor)


def test_an_upload_that_is_not_finite_is_a_failed_client_under_skip(
    broken: Callable[..., Run], without: Callable[..., Run]
) -> None:
    run = broken(SKIP, error="upload")
    assert run.result()["failures"] == {"not_finite": 2, "lost": 2}
    assert run.result()["weights_sha256"] == without((1,)).result()["weights_sha256"]


def test_large_finite_uploads_whose_sum_overflows_are_fine(
    add: Callable[..., None], run_tiny: Callable[..., Run]
) -> None:
    @dataclass(frozen=True, eq=False)
    class Large:
        @hookimpl(wrapper=True)
        def client_update(self, ctx: ClientContext) -> Any:
            ctx.upload("large", torch.full((4,), 3e38))
            return (yield)

    add(large=Large)
    assert len(run_tiny(extra={"large": {}}).history) == 2


def test_a_clients_metric_that_is_not_finite(broken: Callable[..., Run]) -> None:
    with pytest.raises(NonFiniteError, match=r"^metric 'breaks' is inf in round 1, client 1$"):
        broken({}, error="metric")


def test_a_servers_metric_that_is_not_finite(
    add: Callable[..., None], run_tiny: Callable[..., Run]
) -> None:
    @dataclass(frozen=True, eq=False)
    class Bad:
        @hookimpl
        def server_update(self) -> ServerUpdate:
            return ServerUpdate(metrics={"gap": float("nan")})

    add(bad=Bad)
    with pytest.raises(NonFiniteError, match=r"^plugin 'bad': metric 'gap' is nan in round 1$"):
        run_tiny(extra={"bad": {}})


def test_a_failure_survives_pickling_whatever_its_exception_is() -> None:
    import pickle

    class Local(Exception):
        """A class that pickle cannot find."""

    error = Local("deep inside")
    error.add_note("in round 1, client 2")
    kept = (Failure(2, 1, "Local", "Local: deep inside", lost=True),)
    copy = pickle.loads(pickle.dumps(ClientFailure(2, kept, error, 0.5)))
    assert (copy.client, copy.failures, copy.seconds, copy.fatal) == (2, kept, 0.5, False)
    assert (type(copy.error), str(copy.error)) == (RuntimeError, "Local: deep inside")
    assert copy.error.__notes__ == ["in round 1, client 2"]
    known = pickle.loads(pickle.dumps(ClientFailure(2, kept, ClientFailed("late", "why"), 0.5)))
    assert (known.error.kind, str(known.error)) == ("late", "why")
