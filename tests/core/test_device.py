"""Training on a device other than the CPU: nothing in the batch loop waits for the device.

The device ``meta`` computes only shapes, so reading a value (``item``, a mask as an index, a copy
to the host) raises an error. FedHPro's margin, one number per turn, is left out.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from fedbench import Run
from fedbench.context import ClientContext
from fedbench.pipeline import send
from fedbench.plugins.discovery import discover
from fedbench.plugins.registry import Registry
from fedbench.types import ClientJob, Received

META = torch.device("meta")


@pytest.mark.parametrize("method", sorted(discover().names("recipe")))
def test_no_batch_waits_for_the_device(
    method: str, registry: Registry, tiny_config: Callable[..., Any], run_tiny: Callable[..., Run]
) -> None:
    run = run_tiny(method, rounds=2)
    runtime, state = run.runtime, run.state
    assert state is not None
    values: dict[str, Any] = {"weights": state.weights, **state.entries}
    model = runtime.model.to(META)
    ctx = ClientContext(
        job=ClientJob(2, 0, {}),
        rounds=2,
        num_classes=3,
        device=META,
        model=model,
        payload=Received(values, META),
        data=runtime.client_data(0),
        plugins=runtime.plugins,
        streams=runtime.streams,
        num_clients=len(runtime.parts),
    )
    # what the methods' wrappers put there for the batch loop
    ctx.scratch["fedprox.anchor"] = [p.detach().clone() for p in model.parameters()]
    ctx.scratch["hpcl.margin"] = (0, 0.1)
    if method == "moon":
        ctx.scratch["moon.previous"] = (copy.deepcopy(model).eval(), copy.deepcopy(model).eval())
    steps = 0
    for batch in ctx.batches(8, 2):
        assert batch.inputs.device == batch.labels.device == META
        ctx.loss(batch).backward()
        ctx.after_backward(batch)
        steps += 1
    assert steps == 2 * 3
    terms = {name for name in ctx._terms._sums if name != "cross_entropy"}
    assert bool(terms) == (method != "fedavg")
    with pytest.raises(RuntimeError):
        float(next(iter(ctx._terms._sums.values())))  # the device does refuse to show a value


def test_sending_to_a_cpu_copies_nothing() -> None:
    here = torch.ones(3)
    assert send(here, torch.device("cpu")) is here


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_round_on_a_gpu(precision: str, run_tiny: Callable[..., Run]) -> None:
    here, there = (run_tiny(device=d, precision=precision, rounds=2) for d in ("cpu", "cuda"))
    for name, value in there.state.weights.items():
        torch.testing.assert_close(value, here.state.weights[name], rtol=0.05, atol=0.05)
    assert isinstance(there.runtime.model, nn.Module)
    assert there.runtime.model.classifier.weight.is_cuda
    again = run_tiny(device="cuda", precision=precision, rounds=2)
    assert again.result()["weights_sha256"] == there.result()["weights_sha256"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_sending_to_a_gpu_does_not_wait() -> None:
    torch.cuda.set_sync_debug_mode("error")
    try:
        there = send(torch.arange(5), torch.device("cuda"))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert there.tolist() == [0, 1, 2, 3, 4]
