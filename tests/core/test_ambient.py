"""Switches of torch set outside a run change no bit of its result, and the run restores them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest
import torch
from torch.backends import cudnn

from fedbench import Run
from fedbench.ambient import SWITCHES, Switch, settled
from fedbench.plugins.registry import Registry


@contextmanager
def switched(put: Callable[[Any], object], value: Any, back: Any) -> Iterator[None]:
    put(value)
    try:
        yield
    finally:
        put(back)


@contextmanager
def newer_precision(holder: Any, value: str) -> Iterator[None]:
    before = holder.fp32_precision
    holder.fp32_precision = value
    try:
        yield
    finally:
        holder.fp32_precision = before


@pytest.fixture(autouse=True)
def agreeing() -> Iterator[None]:
    """Make cuDNN's older and newer switches agree again: torch does not show the older one then."""
    yield
    torch._C._set_cudnn_allow_tf32(True)


def forced_determinism() -> AbstractContextManager[None]:
    return switched(torch.use_deterministic_algorithms, True, False)


AMBIENT: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "no gradients": torch.no_grad,
    "inference mode": torch.inference_mode,
    "float64 by default": lambda: switched(torch.set_default_dtype, torch.float64, torch.float32),
    "meta device by default": lambda: torch.device("meta"),
    "meta device set by default": lambda: switched(torch.set_default_device, "meta", None),
    "hooks on saved tensors": lambda: torch.autograd.graph.saved_tensors_hooks(
        lambda tensor: tensor.bfloat16() if tensor.is_floating_point() else tensor,
        lambda tensor: tensor.float() if tensor.is_floating_point() else tensor,
    ),
    "saved tensors on the CPU": torch.autograd.graph.save_on_cpu,
    "medium matmul precision": lambda: switched(
        torch.set_float32_matmul_precision, "medium", "highest"
    ),
    "no oneDNN": lambda: switched(torch._C._set_mkldnn_enabled, False, True),
    "deterministic algorithms": forced_determinism,
    "flushed denormals": lambda: switched(torch.set_flush_denormal, True, False),
    "cuDNN's choices": lambda: cudnn.flags(
        enabled=False, benchmark=True, deterministic=False, allow_tf32=True
    ),
    "no TF32 in cuDNN": lambda: cudnn.flags(enabled=True, allow_tf32=False),
    "two threads": lambda: switched(torch.set_num_threads, 2, torch.get_num_threads()),
}
if hasattr(torch.backends.mkldnn, "matmul"):
    for part in ("matmul", "conv"):
        holder = getattr(torch.backends.mkldnn, part)
        AMBIENT[f"bf16 {part}"] = lambda holder=holder: newer_precision(holder, "bf16")
    for part in ("conv", "rnn"):
        holder = getattr(torch.backends.cudnn, part)
        AMBIENT[f"cuDNN's {part} in float32"] = lambda holder=holder: newer_precision(
            holder, "ieee"
        )
    AMBIENT |= {
        "TF32 products on CUDA": lambda: newer_precision(torch.backends.cuda.matmul, "tf32"),
        "float32 on CUDA": lambda: newer_precision(torch.backends.cudnn, "ieee"),
    }


@pytest.fixture
def digests(tiny_config: Callable[..., Any], registry: Registry) -> Callable[..., tuple[str, str]]:
    def run(precision: str = "fp32") -> tuple[str, str]:
        config = tiny_config(registry, rounds=2, precision=precision)
        result = Run(config, registry=registry).run()
        return result["weights_sha256"], result["metrics_sha256"]

    return run


def state() -> dict[str, Any]:
    return {switch.name: switch.get() for switch in SWITCHES}


@pytest.mark.parametrize("name", AMBIENT)
def test_a_run_has_the_same_bits_and_leaves_everything_as_it_was(
    name: str, digests: Callable[..., tuple[str, str]]
) -> None:
    plain = digests()
    with AMBIENT[name]():
        before = state()
        assert digests() == plain
        assert state() == before


@pytest.mark.skipif(
    not torch.ops.mkldnn._is_mkldnn_bf16_supported(), reason="needs bfloat16 arithmetic"
)
def test_bf16_has_the_same_bits_under_a_callers_autocast(
    digests: Callable[..., tuple[str, str]],
) -> None:
    """A cache of cast weights that outlives an optimiser's step would change them."""
    plain = digests("bf16")
    with torch.autocast("cpu", torch.bfloat16):
        assert digests("bf16") == plain


def test_a_run_computes_with_cudnn_deterministic_and_without_tf32() -> None:
    with cudnn.flags(enabled=False, benchmark=True, deterministic=False), settled():
        assert (cudnn.enabled, cudnn.deterministic, cudnn.benchmark) == (True, True, False)
        assert cudnn.allow_tf32 is False
        assert torch.get_float32_matmul_precision() == "highest"


def test_code_inside_may_use_torchs_own_ways_to_set_the_switches() -> None:
    with settled(), cudnn.flags(enabled=True, deterministic=False, allow_tf32=True):
        assert cudnn.allow_tf32 is True


OLDER = {
    "matmul precision": ("medium", "bf16", "tf32"),
    "cudnn TF32": (True, "tf32", "tf32"),
}
OTHER: dict[type, Any] = {int: 2, torch.dtype: torch.float64, tuple: (True, True)}


@pytest.mark.parametrize("switch", SWITCHES, ids=lambda switch: switch.name)
def test_a_switch_that_is_changed_inside_is_put_back(switch: Switch) -> None:
    if isinstance(switch.wanted, bool):
        other = not switch.wanted
    elif isinstance(switch.wanted, str):
        other = "tf32"
    elif switch.name in OLDER:
        value, *precisions = OLDER[switch.name]
        other = (value, *precisions[: len(switch.wanted) - 1])
    else:
        other = OTHER[type(switch.wanted)]
    before = switch.get()
    with settled():
        assert switch.get() == switch.wanted
        switch.set(other)
        assert switch.get() == other
    assert switch.get() == before


def test_hooks_on_saved_tensors_are_put_back_in_their_order() -> None:
    seen: list[str] = []

    def noting(name: str) -> AbstractContextManager[None]:
        def pack(tensor: torch.Tensor) -> torch.Tensor:
            seen.append(name)
            return tensor

        return torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor)

    weight = torch.ones(1, requires_grad=True)
    with noting("outer"):
        with noting("inner"):
            with settled(), noting("own"):
                _ = weight * weight
            assert set(seen) == {"own"}
            seen.clear()
            _ = weight * weight
            assert set(seen) == {"inner"}
            seen.clear()
        _ = weight * weight
        assert set(seen) == {"outer"}
