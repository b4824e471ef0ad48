"""Process-wide torch settings that change results: set for each step of a run, restored after it.

Any package may change torch's switches when it is imported, and a caller may have autocast on. A
run always computes under the same switches, whatever they are outside: one thread, gradients on, no
autocast, float32 by default and in matrix products, oneDNN on, deterministic algorithms not
enforced.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch


@dataclass(frozen=True)
class Switch:
    """A switch of torch: its name, how to read and set it, and the value that a run needs."""

    name: str
    get: Callable[[], Any]
    set: Callable[[Any], object]
    wanted: Any


def _matmul_precision() -> str | None:
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:  # someone set torch's newer switches, which the table has too
        return None


def _set_matmul_precision(value: str | None) -> None:
    if value is not None:
        torch.set_float32_matmul_precision(value)


def _set_deterministic(value: tuple[bool, bool]) -> None:
    torch.use_deterministic_algorithms(value[0], warn_only=value[1])


def _denormals_are_flushed() -> bool:
    return float(torch.full((), 1e-310, dtype=torch.float64, device="cpu") * 1.0) == 0.0


def _fp32_switches() -> Iterator[Switch]:
    """Yield the switches of float32 arithmetic that torch has had since 2.9, at their defaults."""
    mkldnn = torch.backends.mkldnn
    holders: dict[str, Any] = {"fp32 precision": torch.backends, "mkldnn fp32 precision": mkldnn}
    holders |= {
        f"mkldnn {part} fp32 precision": getattr(mkldnn, part, None)
        for part in ("matmul", "conv", "rnn")
    }
    for name, holder in holders.items():
        if hasattr(holder, "fp32_precision"):
            get, put = partial(getattr, holder, "fp32_precision"), partial(setattr, holder)
            yield Switch(name, get, partial(put, "fp32_precision"), "none")


def _mkldnn_switches() -> Iterator[Switch]:
    for name, wanted in (("enabled", True), ("deterministic", False)):
        get = getattr(torch._C, f"_get_mkldnn_{name}", None)
        put = getattr(torch._C, f"_set_mkldnn_{name}", None)
        if get and put:
            yield Switch(f"mkldnn {name}", get, put, wanted)


def _autocast_switch(device: str) -> Switch:
    return Switch(
        f"autocast on {device}",
        lambda: torch.is_autocast_enabled(device),
        lambda value: torch.set_autocast_enabled(device, value),
        False,
    )


SWITCHES = (
    Switch("threads", torch.get_num_threads, torch.set_num_threads, 1),
    Switch("default dtype", torch.get_default_dtype, torch.set_default_dtype, torch.float32),
    Switch("gradients", torch.is_grad_enabled, torch.set_grad_enabled, True),
    _autocast_switch("cpu"),
    *([_autocast_switch("cuda")] if torch.cuda.is_available() else []),
    # Under a caller's autocast, the cache of cast weights would outlive an optimiser step.
    Switch(
        "autocast cache", torch.is_autocast_cache_enabled, torch.set_autocast_cache_enabled, False
    ),
    Switch("matmul precision", _matmul_precision, _set_matmul_precision, "highest"),
    *_fp32_switches(),
    *_mkldnn_switches(),
    Switch(
        "deterministic algorithms",
        lambda: (
            torch.are_deterministic_algorithms_enabled(),
            torch.is_deterministic_algorithms_warn_only_enabled(),
        ),
        _set_deterministic,
        (False, False),
    ),
    Switch("flushed denormals", _denormals_are_flushed, torch.set_flush_denormal, False),
)
"""In the order in which they are set."""


@contextmanager
def settled() -> Iterator[None]:
    """Compute under the switches that a run needs, and restore the previous ones afterwards."""
    before = [(switch, switch.get()) for switch in SWITCHES]
    with ExitStack() as stack:
        if torch.is_inference_mode_enabled():
            stack.enter_context(torch.inference_mode(False))
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        try:
            for switch, value in before:
                if value != switch.wanted:
                    switch.set(switch.wanted)
            yield
        finally:
            for switch, value in reversed(before):
                if switch.get() != value:
                    switch.set(value)
