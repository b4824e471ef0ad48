"""Process-wide torch settings that change results: set for each step of a run, restored after it.

Any package may change torch's switches when it is imported, and a caller may have autocast on. A
run always computes under the same switches, whatever they are outside: one thread, gradients on, no
hooks on saved tensors, no autocast, the CPU as the default device, float32 by default, in matrix
products and in convolutions, oneDNN on, cuDNN on and deterministic, other deterministic algorithms
not enforced.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch.backends import cudnn


@dataclass(frozen=True)
class Switch:
    """A switch of torch: its name, how to read and set it, and the value that a run needs."""

    name: str
    get: Callable[[], Any]
    set: Callable[[Any], object]
    wanted: Any


def _with_precision(*holders: Any) -> list[Any]:
    """Return those that have a switch ``fp32_precision``, as torch has had since 2.9."""
    return [holder for holder in holders if hasattr(holder, "fp32_precision")]


def _fp32_switch(name: str, holder: Any) -> Switch:
    get, put = partial(getattr, holder, "fp32_precision"), partial(setattr, holder)
    return Switch(name, get, partial(put, "fp32_precision"), "none")


def _older_switch(
    name: str,
    get: Callable[[], Any],
    put: Callable[[Any], object],
    wanted: Any,
    holders: Sequence[Any],
    precision: str,
) -> Switch:
    """Return an older switch of float32 arithmetic together with the newer ones that it sets.

    Its value is the older one's, followed by theirs. Where they contradict it, torch does not show
    the older one; it is ``None`` then, and only theirs, which count, are put back.
    """

    def read() -> tuple[Any, ...]:
        try:
            value = get()
        except RuntimeError:
            value = None
        return (value, *(holder.fp32_precision for holder in holders))

    def write(values: tuple[Any, ...]) -> None:
        if values[0] is not None:
            put(values[0])
        for holder, own in zip(holders, values[1:], strict=True):
            if holder.fp32_precision != own:
                holder.fp32_precision = own

    return Switch(name, read, write, (wanted, *(precision for _ in holders)))


def _set_deterministic(value: tuple[bool, bool]) -> None:
    torch.use_deterministic_algorithms(value[0], warn_only=value[1])


def _denormals_are_flushed() -> bool:
    return float(torch.full((), 1e-310, dtype=torch.float64, device="cpu") * 1.0) == 0.0


def _precision_switches() -> Iterator[Switch]:
    """Yield the switches of float32 arithmetic; those that others fall back to come first."""
    backends = torch.backends
    mkldnn, cuda = backends.mkldnn, backends.cuda
    holders: dict[str, Any] = {"fp32": backends, "mkldnn fp32": mkldnn, "cuda fp32": cudnn}
    holders |= {f"mkldnn {part} fp32": getattr(mkldnn, part, None) for part in ("conv", "rnn")}
    for name, holder in holders.items():
        if _with_precision(holder):
            yield _fp32_switch(f"{name} precision", holder)
    yield _older_switch(
        "matmul precision",
        torch.get_float32_matmul_precision,
        torch.set_float32_matmul_precision,
        "highest",
        _with_precision(getattr(mkldnn, "matmul", None), cuda.matmul),
        "ieee",
    )
    yield _older_switch(
        "cudnn TF32",
        torch._C._get_cudnn_allow_tf32,
        torch._C._set_cudnn_allow_tf32,
        False,
        _with_precision(getattr(cudnn, "conv", None), getattr(cudnn, "rnn", None)),
        "none",
    )


def _mkldnn_switches() -> Iterator[Switch]:
    for name, wanted in (("enabled", True), ("deterministic", False)):
        get = getattr(torch._C, f"_get_mkldnn_{name}", None)
        put = getattr(torch._C, f"_set_mkldnn_{name}", None)
        if get and put:
            yield Switch(f"mkldnn {name}", get, put, wanted)


def _cudnn_switches() -> Iterator[Switch]:
    """Yield the switches of cuDNN; they can be set without a GPU, too."""
    for name, wanted in (("enabled", True), ("deterministic", True), ("benchmark", False)):
        get = getattr(torch._C, f"_get_cudnn_{name}")
        yield Switch(f"cudnn {name}", get, getattr(torch._C, f"_set_cudnn_{name}"), wanted)


def _attention_switches() -> Iterator[Switch]:
    """Yield the switches of how attention is computed, on the CPU too, and of einsum's order."""
    cuda, mha, einsum = (getattr(torch.backends, n, None) for n in ("cuda", "mha", "opt_einsum"))
    for name in ("flash", "mem_efficient", "math", "cudnn"):
        get = getattr(cuda, f"{name}_sdp_enabled", None)
        put = getattr(cuda, f"enable_{name}_sdp", None)
        if get and put:
            yield Switch(f"{name} attention", get, put, True)
    get, put = (getattr(mha, f"{verb}_fastpath_enabled", None) for verb in ("get", "set"))
    if get and put:
        yield Switch("attention fast path", get, put, True)
    if hasattr(einsum, "enabled"):  # by default, whether another package is installed

        def put_order(value: bool) -> None:
            einsum.enabled = value  # type: ignore[union-attr]

        yield Switch("einsum order", lambda: einsum.enabled, put_order, False)  # type: ignore[union-attr]


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
    *_precision_switches(),
    *_mkldnn_switches(),
    *_cudnn_switches(),
    *_attention_switches(),
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
def _without_hooks_on_saved_tensors() -> Iterator[None]:
    """Set aside the hooks that change what autograd saves for the backward pass, and put them back.

    A caller that compresses or moves saved tensors is inside ``saved_tensors_hooks`` or
    ``save_on_cpu``. Those that are used inside are not affected.
    """
    autograd = torch._C._autograd
    taken = []
    while hooks := autograd._top_saved_tensors_default_hooks(True):
        autograd._pop_saved_tensors_default_hooks()
        taken.append(hooks)
    try:
        yield
    finally:
        for pack, unpack in reversed(taken):
            autograd._push_saved_tensors_default_hooks(pack, unpack)


@contextmanager
def settled() -> Iterator[None]:
    """Compute under the switches that a run needs, and restore the previous ones afterwards."""
    before: list[tuple[Switch, Any]] = []
    with ExitStack() as stack:
        if torch.is_inference_mode_enabled():
            stack.enter_context(torch.inference_mode(False))
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        stack.enter_context(_without_hooks_on_saved_tensors())
        try:
            for switch in SWITCHES:  # each is read when those that it falls back to are set
                value = switch.get()
                before.append((switch, value))
                if value != switch.wanted:
                    switch.set(switch.wanted)
            yield
        finally:
            for switch, value in reversed(before):
                if switch.get() != value:
                    switch.set(value)
