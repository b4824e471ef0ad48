"""precision: bf16 reaches every pass through the model, and nothing else."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import nn

from fedbench import ConfigError, Run, device, hookimpl
from fedbench.plugins.registry import Registry
from fedbench.types import BF16, forward

pytestmark = pytest.mark.skipif(
    not torch.ops.mkldnn._is_mkldnn_bf16_supported(), reason="this processor has no bfloat16"
)
METHODS = ("fedavg", "moon", "fpl", "fedproto-aaai", "fedhpro")
SEEN: list[tuple[bool, torch.dtype, torch.dtype, torch.dtype]] = []


class Layers(nn.Module):
    """Records the type in which its hidden layer computes."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.classifier = nn.Linear(4, 3), nn.Linear(3, 2)
        self.inside = torch.float64

    def features(self, x: torch.Tensor) -> torch.Tensor:
        z = self.hidden(x)
        self.inside = z.dtype
        return z


@pytest.mark.parametrize("bf16", [False, True])
def test_features_under_autocast_and_a_classifier_in_float32(bf16: bool) -> None:
    model = Layers()
    setattr(model, BF16, bf16)
    model = copy.deepcopy(model)
    output = forward(model, torch.randn(5, 4, generator=torch.Generator().manual_seed(0)))
    assert model.inside == (torch.bfloat16 if bf16 else torch.float32)
    assert output.features.dtype == output.logits.dtype == torch.float32
    assert torch.equal(output.logits, model.classifier(output.features))
    output.logits.sum().backward()
    assert {p.grad.dtype for p in model.parameters()} == {torch.float32}


@dataclass(frozen=True, eq=False)
class Types:
    """Records the types that a local loss receives."""

    @hookimpl
    def local_loss(self, ctx: Any, output: Any) -> dict[str, torch.Tensor]:
        weight = ctx.model.classifier.weight.dtype
        SEEN.append((getattr(ctx.model, BF16), output.features.dtype, output.logits.dtype, weight))
        return {}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_plugins_see_float32(
    precision: str, run_tiny: Callable[..., Run], add: Callable[..., None]
) -> None:
    add(types=Types)
    SEEN.clear()
    run = run_tiny(precision=precision, extra={"types": {}})
    assert set(SEEN) == {(precision == "bf16", *[torch.float32] * 3)}
    assert run.state is not None
    assert {str(v.dtype) for v in run.state.weights.values()} == {"torch.float32", "torch.int64"}


def test_bf16_changes_training_and_the_test_alike(run_tiny: Callable[..., Run]) -> None:
    exact, coarse = (run_tiny(rounds=1, precision=p) for p in ("fp32", "bf16"))
    assert exact.result()["weights_sha256"] != coarse.result()["weights_sha256"]
    for name, value in coarse.state.weights.items():
        torch.testing.assert_close(value, exact.state.weights[name], rtol=0.05, atol=0.02)
    # the same weights are tested: with so small a step nothing is trained
    still = {"sgd": {"lr": 1e-30}, "uniform": {"fraction": 1.0}}
    losses = [
        run_tiny(rounds=1, precision=p, extra=still).history[0].scores["classifier"]["loss"].mean
        for p in ("fp32", "bf16")
    ]
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=0.05)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the pool forks")
@pytest.mark.parametrize("method", METHODS)
def test_the_same_bits_inline_and_in_the_pool(method: str, run_tiny: Callable[..., Run]) -> None:
    executors = [{"name": "inline"}, *({"name": "pool", "workers": n} for n in (1, 2, 3))]
    results = [run_tiny(method, precision="bf16", executor=e).result() for e in executors]
    for key in ("weights_sha256", "metrics_sha256", "accuracy", "bytes"):
        assert all(result[key] == results[0][key] for result in results)


def test_without_bf16_arithmetic_one_clear_line(
    registry: Registry, tiny_config: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "_has_bf16", lambda device: False)
    Run(tiny_config(registry, precision="fp32"), registry=registry)
    with pytest.raises(ConfigError, match=r"^precision 'bf16' cannot be used on device 'cpu' of "):
        Run(tiny_config(registry, precision="bf16"), registry=registry)


def test_a_device_without_autocast_has_none() -> None:
    assert not device._has_bf16(torch.device("meta"))
