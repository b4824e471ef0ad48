"""Training on a device other than the CPU: nothing in the batch loop waits for the device.

The device ``meta`` computes only shapes, so reading a value (``item``, a mask as an index, a copy
to the host) raises an error. FedHPro's margin, one number per turn, is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import nn

from fedbench import Run, Training, hookimpl
from fedbench.context import ClientContext
from fedbench.pipeline import send
from fedbench.plugins.hooks import RunPlugins
from fedbench.types import ClientJob, Received

META = torch.device("meta")


class Done(Exception):
    """The batch loop has ended; what comes after it may wait for the device."""


@dataclass(frozen=True, eq=False)
class Stepping:
    """Trains on the CPU; on ``meta``, ends the turn after the last batch."""

    @hookimpl
    def train(self, ctx: ClientContext, work: Training) -> bool:
        work.lr, work.momentum = 0.05, 0.0
        for batch in work.batches(8, 2):
            assert batch.inputs.device == batch.labels.device == ctx.device
            work.backward(batch)
            for parameter in work.parameters:
                if parameter.grad is not None:
                    parameter.data.add_(parameter.grad, alpha=-work.lr)
        if ctx.device == META and work.record:
            raise Done
        return True


def by_hand(plugins: Collection[str], width: int) -> dict[str, Any]:
    """Return the scratch of methods whose turn begins with something that waits, once per turn."""
    if "hyper_prototypes" in plugins:
        return {"hpcl.margin": (0, 0.1)}
    if "fedpcl" in plugins:
        units, held = torch.zeros(2, 3, width), torch.ones(2, 3, dtype=torch.bool)
        return {"fedpcl.sets": (units.to(META), held.to(META))}
    return {}


def turn(ctx: ClientContext, plugins: RunPlugins) -> None:
    """Play a turn; what a method does before its batch loop may wait for the device, once."""
    try:
        plugins.hook.client_update(ctx=ctx)
    except (NotImplementedError, RuntimeError):
        if ctx._training is not None:
            raise
    ctx.train()


@pytest.mark.filterwarnings("ignore:for .* copying from a non-meta parameter:UserWarning")
@pytest.mark.every_method(slow=True, but=["pfedme"])
def test_no_batch_waits_for_the_device(
    method: str,
    add: Callable[..., None],
    run_tiny: Callable[..., Run],
) -> None:
    add(stepping=Stepping)
    run = run_tiny(method, rounds=2, extra={"stepping": {}}, without=["sgd"])
    runtime, state = run.runtime, run.state
    assert state is not None
    server = runtime.server_context(2)
    values = runtime.plugins.collect("broadcast", ctx=server, state=state)
    ctx = ClientContext(
        job=ClientJob(2, 0, run._clients.newest(0) or {}),
        rounds=3,
        num_classes=3,
        device=META,
        model=runtime.model.to(META),
        payload=Received(values, META),
        data=runtime.client_data(0),
        plugins=runtime.plugins,
        streams=runtime.streams,
        num_clients=len(runtime.parts),
        initial=runtime.initial,
    )
    ctx.scratch |= by_hand(run.config.plugins, runtime.model.classifier.in_features)
    with pytest.raises(Done):
        turn(ctx, runtime.plugins)
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
