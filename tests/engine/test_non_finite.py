"""Values that stop being finite end a run with a name, and the last good state stays to go on from.

Every way that a NaN can take: a loss, an upload, the aggregate, a server's update, a metric.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from fedbench import ClientContext, Run, ServerUpdate, hookimpl
from fedbench.cli import printing as terminal
from fedbench.errors import NonFiniteError
from fedbench.failures import TooFewClients
from fedbench.plugins.registry import Registry
from fedbench.types import sha256


@dataclass(frozen=True, eq=False)
class Sick:
    """Makes one kind of value NaN in round 3, in client 1 where it has a client."""

    what: str = "loss"

    @hookimpl
    def local_loss(self, ctx: ClientContext, output: Any) -> dict[str, torch.Tensor]:
        ill = self.what == "loss" and (ctx.round, ctx.client) == (3, 1)
        return {"sick": output.logits.sum() * (math.nan if ill else 0.0)}

    @hookimpl(wrapper=True)
    def client_update(self, ctx: ClientContext) -> Any:
        trained = yield
        if (ctx.round, ctx.client) == (3, 1):
            if self.what == "upload":
                with torch.no_grad():
                    ctx.model.classifier.bias[2] = math.nan  # type: ignore[operator, index]
            if self.what == "client metric":
                ctx.metric("sick.metric", math.inf)
        return trained

    @hookimpl(wrapper=True)
    def aggregate(self, ctx: Any) -> Any:
        found = dict((yield))
        if self.what == "aggregate" and ctx.round == 3:
            found["hidden.bias"] = found["hidden.bias"] * math.inf
        return found

    @hookimpl
    def server_update(self, ctx: Any, state: Any) -> ServerUpdate:
        if ctx.round < 3:
            return ServerUpdate()
        if self.what == "server update":
            return ServerUpdate(weights={"hidden.bias": state.weights["hidden.bias"] * math.nan})
        if self.what == "server metric":
            return ServerUpdate(metrics={"sick.metric": -math.inf})
        return ServerUpdate()


@dataclass(frozen=True, eq=False)
class Huge:
    """A metric on test data that is infinite once scores are huge."""

    higher_is_better = True
    unit = "plain"

    def __call__(self, scores: torch.Tensor, labels: torch.Tensor) -> float:
        return math.inf if float(scores.abs().max()) > 1e6 else 0.5


TEXTS = {
    "loss": "plugin 'sick': loss term 'sick' is nan in round 3, client 1; try a smaller learning "
    "rate",
    "upload": "upload 'weights', tensor 'classifier.bias', is not finite in round 3, client 1",
    "client metric": "metric 'sick.metric' is inf in round 3, client 1",
    "aggregate": "weight 'hidden.bias' is not finite after aggregation in round 3",
    "server update": "weight 'hidden.bias' is not finite after 'sick' changed it in round 3",
    "server metric": "plugin 'sick': metric 'sick.metric' is -inf in round 3",
}


@pytest.fixture
def sick(
    add: Callable[..., None], registry: Registry, tiny_config: Callable[..., Any]
) -> Callable[..., Any]:
    """The config of five rounds with `Sick` inside of FedAvg's upload."""
    add(sick=Sick)

    def config(what: str, **given: Any) -> Any:
        return tiny_config(registry, rounds=5, extra={"sick": {"what": what}}, **given)

    return config


@pytest.mark.parametrize("what", sorted(TEXTS))
def test_the_run_ends_with_a_name_and_keeps_the_last_good_state(
    what: str,
    sick: Callable[..., Any],
    registry: Registry,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "r"
    run = Run(sick(what), path, registry=registry)
    with pytest.raises(NonFiniteError) as caught:
        run.run()
    assert str(caught.value) == TEXTS[what]
    assert run.state is not None
    assert run.state.round == 2
    pointer = json.loads((path / "checkpoint" / "checkpoint.json").read_text())
    assert pointer["round"] == 2
    kept = load_file(path / "checkpoint" / pointer["file"])
    weights = {k.removeprefix("weights/"): v for k, v in kept.items() if k.startswith("weights/")}
    assert sha256(weights) == sha256(dict(run.state.weights))
    assert all(bool(torch.isfinite(v).all()) for v in weights.values())
    assert len((path / "rounds.jsonl").read_text().splitlines()) == 2
    # resuming without a change fails in the same way and the same place
    again = Run.resume(path, registry=registry)
    assert len(again.history) == 2
    with pytest.raises(NonFiniteError) as caught:
        again.run()
    assert str(caught.value) == TEXTS[what]
    terminal.print_run(registry, path)
    assert "2 rounds; the run is not finished" in capsys.readouterr().out


def test_a_metric_on_test_data_names_its_round(
    registry: Registry, run_tiny: Callable[..., Run], add: Callable[..., None]
) -> None:
    from types import SimpleNamespace

    @dataclass(frozen=True, eq=False)
    class Grows:
        @hookimpl
        def server_update(self, ctx: Any, state: Any) -> ServerUpdate:
            factor = 1e9 if ctx.round == 2 else 1.0
            name = "classifier.bias"
            return ServerUpdate(weights={name: (state.weights[name] + 1) * factor})

    add(grows=Grows)
    registry.add(SimpleNamespace(register_metrics=hookimpl(lambda: {"huge": Huge})), "tests")
    with pytest.raises(NonFiniteError, match=r"^metric 'huge' is inf on the test data of") as e:
        run_tiny(extra={"grows": {}}, metrics={"accuracy": {}, "huge": {}}, rounds=3)
    assert e.value.__notes__ == ["after round 2"]


def test_a_run_that_fails_in_round_one_starts_anew(
    registry: Registry, tiny_config: Callable[..., Any], tmp_path: Path
) -> None:
    config = tiny_config(registry, extra={"sgd": {"lr": 1e30}})
    with pytest.raises(NonFiniteError, match="try a smaller learning rate"):
        Run(config, tmp_path / "r", registry=registry).run()
    assert not (tmp_path / "r" / "checkpoint" / "checkpoint.json").exists()
    again = Run.resume(tmp_path / "r", registry=registry)
    assert again.history == []
    with pytest.raises(NonFiniteError, match="try a smaller learning rate"):
        again.run()


@pytest.mark.parametrize("what", ["loss", "upload", "client metric"])
def test_under_skip_the_client_is_left_out_and_the_run_continues(
    what: str, sick: Callable[..., Any], registry: Registry
) -> None:
    run = Run(sick(what, failures={"policy": "skip"}), registry=registry)
    result = run.run()
    assert result["failures"] == {"not_finite": 1, "lost": 1}
    assert run.history[2].failures[0].reason == TEXTS[what]


@pytest.mark.parametrize("what", ["aggregate", "server update", "server metric"])
def test_under_skip_the_server_still_ends_the_run(
    what: str, sick: Callable[..., Any], registry: Registry
) -> None:
    with pytest.raises(NonFiniteError):
        Run(sick(what, failures={"policy": "skip"}), registry=registry).run()


def test_a_cohort_that_is_too_small_keeps_the_last_good_state_too(
    sick: Callable[..., Any], registry: Registry, tmp_path: Path
) -> None:
    config = sick("loss", failures={"policy": "skip", "min_clients": 4})
    with pytest.raises(TooFewClients, match="round 3: 3 of 4 clients left") as caught:
        Run(config, tmp_path / "r", registry=registry).run()
    assert isinstance(caught.value.__cause__, NonFiniteError)
    assert len(Run.resume(tmp_path / "r", registry=registry).history) == 2
