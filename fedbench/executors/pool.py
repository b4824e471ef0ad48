"""Clients in parallel processes on this machine, with the same bits as one after the other.

Workers are forked once the data is loaded, so data and plugins are shared without a copy and no
plugin is pickled. Tensors travel through memory that was mapped before the fork: uploads are sealed
there, large ones are averaged there, and a pipe carries only their places. A worker that dies is
replaced and its client runs again; one that loses its parent ends.
"""

from __future__ import annotations

import ctypes
import math
import mmap
import multiprocessing
import os
import signal
import sys
import weakref
from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field
from torch import Tensor

from ..errors import FedbenchError
from ..failures import ClientFailure
from ..types import (
    Chunk,
    ClientJob,
    ClientResult,
    Output,
    Payload,
    Value,
    Weights,
    assembled,
    kind_of,
    nbytes,
    tensors,
)
from .inline import InlineWorkers

if TYPE_CHECKING:
    from ..runtime import Runtime

ATTEMPTS = 3
"""How often a job may lose its worker before the run ends."""

WAITING = 32 << 20
"""Bytes of weights that may wait for an earlier client: the more, the evener is work shared.

At least 3 results a worker, though, and at most 16, beyond which nothing is gained.
"""

ALIGN = 64
"""Bytes; tensors start at multiples of it, as PyTorch's own do."""

SERVER = -1
"""The client of an answer about no client's job."""

Job: TypeAlias = ClientJob | Chunk


@dataclass(frozen=True, eq=False)
class Pool:
    """Run clients in parallel processes, one thread each; on one core or a GPU, in turn."""

    workers: Annotated[
        Annotated[int, Field(ge=1)] | None, Field(description="processes; default one a core")
    ] = None

    def open(self, runtime: Runtime) -> PoolWorkers | InlineWorkers:
        """Start the workers of a run."""
        count = min(self.workers or _cores(), len(runtime.parts))
        usable = sys.platform.startswith("linux") and runtime.device.type == "cpu"
        if not usable or (self.workers is None and count == 1):
            return InlineWorkers(runtime)
        return PoolWorkers(runtime, count)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class WorkerDied(FedbenchError):
    """A worker process ended without an answer, several times for one client."""


class Block:
    """Tensors that lie in some memory, without a copy."""

    def __init__(self, memory: Any) -> None:
        self._memory = memory
        self._whole: dict[torch.dtype, Tensor] = {}

    def tensor(self, dtype: torch.dtype, shape: tuple[int, ...], offset: int) -> Tensor:
        """Return the contiguous tensor that lies so many bytes into the memory."""
        if dtype not in self._whole:
            self._whole[dtype] = torch.frombuffer(self._memory, dtype=dtype)
        whole = self._whole[dtype]
        return whole.as_strided(shape, _strides(shape), offset // whole.itemsize)


@lru_cache(10_000)
def _strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(math.prod(shape[d + 1 :]) for d in range(len(shape)))


def _aligned(size: int) -> int:
    return math.ceil(size / ALIGN) * ALIGN


class Buffer:
    """Memory that parent and children share, since it is mapped before the fork."""

    def __init__(self, size: int, copies: Copies | None = None) -> None:
        size = _aligned(size)
        self._map = mmap.mmap(-1, size)
        self._block = Block(self._map)
        self._start = self._block.tensor(torch.uint8, (size,), 0).data_ptr()
        self._size, self._used = size, 0
        self._copies = copies or Copies()

    def clear(self) -> None:
        """Let new values take the place of the old ones."""
        self._used = 0

    def empty(self, like: Tensor) -> Tensor:
        """Return an unset, contiguous CPU tensor like another one; here, while there is room."""
        size, offset = like.nbytes, self._used
        if size == 0 or offset + size > self._size:
            return torch.empty_like(like, device="cpu", memory_format=torch.contiguous_format)
        self._used = offset + _aligned(size)
        return self._block.tensor(like.dtype, tuple(like.shape), offset)

    def put(self, values: Mapping[str, Value], channels_last: bool = False) -> list[Any]:
        """Write what is not here already and return what `get` needs; the rest goes in line.

        With ``channels_last`` a tensor of four dimensions is laid out as convolutions use it.
        """
        places: list[Any] = []
        for key, value in values.items():
            start, end = self._size, 0
            parts: list[Any] = []
            for name, tensor in tensors(value):
                turned = channels_last and tensor.ndim == 4
                here = tensor.permute(0, 2, 3, 1) if turned else tensor
                if not (self._holds(here) and here.is_contiguous()):
                    here = self.empty(here).copy_(here)
                shape = tuple(here.shape)
                if self._holds(here):
                    offset = here.data_ptr() - self._start
                    start, end = min(start, offset), max(end, offset + here.nbytes)
                    parts.append((name, here.dtype, shape, turned, offset, None))
                else:
                    raw = here.reshape(-1).view(torch.uint8).numpy() if here.numel() else b""
                    parts.append((name, here.dtype, shape, turned, None, bytes(raw)))
            places.append((key, kind_of(key, value), start, end, parts))
        return places

    def get(
        self,
        places: Sequence[Any],
        copied: Callable[[str, int], bool] = lambda key, size: False,
        memory: Any = None,
    ) -> dict[str, Value]:
        """Read what `put` wrote.

        Args:
            places: what `put` returned.
            copied: whether to copy a key's value of so many bytes; others lie in the shared memory.
            memory: what `lend` returned.
        """
        values = {}
        shared = self._block if memory is None else Block(memory)
        for key, kind, start, end, parts in places:
            block, base, size = shared, 0, end - start
            if size > 0 and copied(key, size):
                copy, base = self._copies.take(size), start
                np.copyto(copy[:size], np.frombuffer(self._map, np.uint8, size, start))
                block = Block(copy)
            found = {}
            for name, dtype, shape, turned, offset, raw in parts:
                if offset is not None:
                    tensor = block.tensor(dtype, shape, offset - base)
                elif raw:
                    tensor = Block(bytearray(raw)).tensor(dtype, shape, 0)
                else:
                    tensor = torch.empty(shape, dtype=dtype)
                found[name] = tensor.permute(0, 3, 1, 2) if turned else tensor
            values[key] = assembled(kind, found)
        return values

    def lend(self, back: Callable[[], object]) -> npt.NDArray[np.uint8]:
        """Return all bytes; ``back`` is called once nothing, and no tensor, lies in them."""
        array = np.frombuffer(self._map, dtype=np.uint8)
        weakref.finalize(array, back).atexit = False
        return array

    def _holds(self, tensor: Tensor) -> bool:
        return tensor.numel() > 0 and 0 <= tensor.data_ptr() - self._start < self._size


class Copies:
    """Memory for copies of what clients sent, used again once no tensor lies in it any more.

    Large copies from the heap would leave gaps between longer-lived values, and memory would creep
    up with the clients of a round.
    """

    LARGE = 1 << 20
    """Bytes from which on a copy is one; its memory is taken in multiples of it."""

    def __init__(self) -> None:
        self._free: dict[int, list[mmap.mmap]] = {}

    def take(self, size: int) -> npt.NDArray[np.uint8]:
        """Return ``size`` bytes or a little more, in use as long as a tensor on the array lives."""
        if size < self.LARGE:
            return torch.empty(_aligned(size), dtype=torch.uint8).numpy()
        whole = math.ceil(size / self.LARGE) * self.LARGE
        free = self._free.setdefault(whole, [])
        memory = free.pop() if free else mmap.mmap(-1, whole, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        array = np.frombuffer(memory, dtype=np.uint8)
        weakref.finalize(array, free.append, memory).atexit = False
        return array


class Shared:
    """What parent and workers share: the broadcast, and a slot for each client's result."""

    def __init__(self, slots: int, size: int) -> None:
        copies = Copies()
        self.payload = Buffer(size)
        self.slots = [Buffer(size, copies) for _ in range(slots)]


class Worker:
    """One forked process and its pipe."""

    def __init__(self, runtime: Runtime, shared: Shared, others: list[Worker]) -> None:
        self.pipe, child = multiprocessing.Pipe()
        self.job: int | None = None
        self.slot = 0
        self._shared = shared
        self._payload: Sequence[Any] | None = None
        parent = os.getpid()
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            for other in (self, *others):
                other.pipe.close()
            _serve(runtime, shared, child, parent)
        child.close()

    def give(self, number: int, job: Job, payload: Sequence[Any], slot: int) -> None:
        """Hand the worker a job, which is its caller's ``number``, and a slot for its result."""
        self.job, self.slot = number, slot
        state: list[Any] = []
        if isinstance(job, ClientJob) and job.state:
            buffer = self._shared.slots[slot]
            buffer.clear()
            state, job = buffer.put(job.state), replace(job, state={})
        known = payload is self._payload
        self._payload = payload
        self.pipe.send((job, slot, state, None if known else payload))

    def end(self) -> None:
        """Stop the process and wait for it."""
        self.pipe.close()
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        with suppress(ChildProcessError):
            os.waitpid(self.pid, 0)


def _serve(runtime: Runtime, shared: Shared, pipe: Connection, parent: int) -> NoReturn:
    """Answer jobs until the parent is gone. Runs in the child and never returns."""
    status = 1
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        _die_with(parent)
        torch.set_num_threads(1)
        torch.set_grad_enabled(True)  # a worker may be replaced while the parent evaluates
        received: Mapping[str, Any] = {}
        while True:
            job, slot, state, places = pipe.recv()
            if places is not None:
                received = shared.payload.get(places)
            buffer = shared.slots[slot]
            if isinstance(job, ClientJob):
                job = replace(job, state=buffer.get(state, lambda key, size: True))
                buffer.clear()
                answer: Any = runtime.run_client(job, received, buffer.empty)
            else:
                buffer.clear()
                answer = _tested(runtime, job, received)
            pipe.send(answer if isinstance(answer, ClientFailure) else _packed(answer, buffer))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        status = 0
    finally:
        os._exit(status)


def _die_with(parent: int) -> None:
    """Ask Linux to end this process when its parent ends, whatever ends it."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)


def _packed(answer: ClientResult | Output, buffer: Buffer) -> Any:
    """Put an answer's tensors into the shared memory; return the rest and their places."""
    if isinstance(answer, Output):
        return None, buffer.put({"features": answer.features, "logits": answer.logits})
    values = {f"u{key}": value for key, value in answer.uploads.items()}
    values |= {f"s{key}": value for key, value in answer.state.items()}
    return replace(answer, uploads=Payload({}, ""), state={}), buffer.put(values)


def _tested(runtime: Runtime, chunk: Chunk, payload: Mapping[str, Any]) -> Output | ClientFailure:
    try:
        return runtime.run_chunk(chunk, payload["weights"])
    except Exception as error:
        return ClientFailure(SERVER, (), error, 0.0)


class PoolWorkers:
    """See `Pool`."""

    def __init__(self, runtime: Runtime, count: int) -> None:
        self._runtime = runtime
        weights = nbytes(runtime.initial)
        self._window = min(max(3 * count, WAITING // max(1, weights)), 16 * count)
        # For those that wait, if they stay there, and for a few that an aggregator holds.
        slots = 2 * count + (self._window if weights >= Copies.LARGE else 0)
        self._shared = Shared(slots, max(16 << 20, 4 * weights))
        self._free = list(range(len(self._shared.slots)))
        self._workers: list[Worker] = []
        try:
            for _ in range(count):
                self._start()
        except BaseException:
            self.close()
            raise

    def _start(self) -> Worker:
        worker = Worker(self._runtime, self._shared, self._workers)
        self._workers.append(worker)
        return worker

    def _replace(self, worker: Worker) -> None:
        """Put a new worker in the place of one that has died with a slot of its own."""
        self._workers.remove(worker)
        worker.end()
        self._free.append(worker.slot)
        self._start()

    def run(
        self, payload: Mapping[str, Value], jobs: Sequence[ClientJob]
    ) -> Iterator[ClientResult | ClientFailure]:
        """Yield the answers in client-id order, with few of them waiting at any time.

        Within a window of the next clients, larger ones start first.
        """
        ordered = sorted(jobs, key=lambda job: job.client)
        sizes = [len(self._runtime.parts[job.client]) for job in ordered]
        return self._work(payload, ordered, sizes)

    def test(self, weights: Weights, chunks: Sequence[Chunk]) -> Iterator[Output]:
        """Yield what a model makes of parts of the test data, in their order."""
        for answer in self._work({"weights": weights}, chunks, [1] * len(chunks)):
            if isinstance(answer, ClientFailure):
                raise answer.error
            yield answer

    def _work(
        self, payload: Mapping[str, Value], jobs: Sequence[Job], sizes: Sequence[int]
    ) -> Iterator[Any]:
        """Yield the jobs' answers in their order."""
        self._shared.payload.clear()
        places = self._shared.payload.put(payload, channels_last=True)
        waiting = list(range(len(jobs)))
        ready: dict[int, Any] = {}
        deaths: Counter[int] = Counter()
        delivered = 0
        while delivered < len(jobs):
            for worker in [w for w in self._workers if w.job is None]:
                window = waiting[: bisect_left(waiting, delivered + self._window)]
                if not window:
                    break
                number = max(window, key=sizes.__getitem__)
                waiting.remove(number)
                try:
                    worker.give(number, jobs[number], places, self._free.pop())
                except OSError:  # it died while it had nothing to do
                    self._replace(worker)
                    insort(waiting, number)
            while delivered in ready:  # what its reader does, workers do not wait for
                yield ready.pop(delivered)
                delivered += 1
            for number in self._collect(ready):
                deaths[number] += 1
                if deaths[number] == ATTEMPTS:
                    raise WorkerDied(
                        f"{_place(jobs[number])}: its worker process died {ATTEMPTS} times; is "
                        "there enough memory?"
                    )
                insort(waiting, number)

    def _collect(self, ready: dict[int, Any]) -> list[int]:
        """Wait for answers and put them into ``ready``; return the jobs whose worker died."""
        busy = {worker.pipe: worker for worker in self._workers if worker.job is not None}
        lost = []
        for pipe in wait(list(busy)) if busy else ():
            worker = busy[pipe]  # type: ignore[index]
            number = worker.job
            assert number is not None
            try:
                answer = worker.pipe.recv()
            except (EOFError, ConnectionResetError, OSError):
                self._replace(worker)
                lost.append(number)
                continue
            worker.job = None
            ready[number] = self._unpacked(answer, worker.slot)
        return lost

    def _unpacked(
        self, answer: ClientFailure | tuple[ClientResult | None, Any], slot: int
    ) -> ClientResult | Output | ClientFailure:
        """Return an answer with its tensors: large ones in the slot, the rest copied out of it."""
        memory = self._shared.slots[slot].lend(partial(self._free.append, slot))
        if isinstance(answer, ClientFailure):
            return answer
        result, places = answer
        # Every idle worker needs a slot for its next job.
        short = len(self._free) < sum(worker.job is None for worker in self._workers)

        def copied(key: str, size: int) -> bool:
            # What a client keeps, and small values, may be needed long after the weights.
            return short or size < Copies.LARGE or key[0] == "s"

        values = self._shared.slots[slot].get(places, copied, memory)
        if result is None:
            return Output(**values)  # type: ignore[arg-type]
        uploads = {key[1:]: value for key, value in values.items() if key[0] == "u"}
        state = {key[1:]: value for key, value in values.items() if key[0] == "s"}
        sent = Payload(uploads, f"the uploads of client {result.client}")
        return replace(result, uploads=sent, state=state)

    def close(self) -> None:
        """Stop every worker."""
        for worker in self._workers:
            worker.end()
        self._workers = []


def _place(job: Job) -> str:
    if isinstance(job, Chunk):
        return f"round {job.round}, test data from {job.start}"
    return f"round {job.round}, client {job.client}"
