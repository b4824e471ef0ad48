"""Clients in parallel processes on this machine, with the same bits as one after the other.

Workers are forked once the data is loaded, so data and plugins are shared without a copy and no
plugin is pickled. Tensors travel through memory that was mapped before the fork; a pipe carries
only their places. A worker that dies is replaced and its client runs again; one that loses its
parent ends.
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
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
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
    flatten,
    nbytes,
    unflatten,
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


class Buffer:
    """Memory that parent and children share, since it is mapped before the fork."""

    def __init__(self, size: int, copies: Copies | None = None) -> None:
        self._map = mmap.mmap(-1, size)
        self._size = size
        self._copies = copies or Copies()

    def put(self, values: Mapping[str, Value]) -> list[Any]:
        """Write ``values`` and return what `get` needs to find them; the rest goes in line."""
        places: list[Any] = []
        offset = 0
        for key, value in values.items():
            start = offset
            parts: list[Any] = []
            for name, tensor in flatten({key: value}).items():
                plain = tensor.contiguous()
                kind, shape = str(plain.dtype).removeprefix("torch."), list(plain.shape)
                size = plain.numel() * plain.element_size()
                if size == 0 or offset + size > self._size:
                    raw = bytes(plain.reshape(-1).view(torch.uint8).numpy()) if size else b""
                    parts.append((name, kind, shape, None, raw))
                    continue
                _tensor(self._map, kind, shape, offset).copy_(plain)
                parts.append((name, kind, shape, offset, None))
                offset = min(math.ceil((offset + size) / 64) * 64, self._size)
            places.append((start, offset, parts))
        return places

    def get(self, places: Sequence[Any], copy: bool) -> dict[str, Value]:
        """Read what `put` wrote; without ``copy`` the tensors lie in the shared memory."""
        flat = {}
        for start, end, parts in places:
            memory: Any = self._map
            if copy and end > start:
                size = end - start
                memory = self._copies.take(size)
                np.copyto(memory[:size], np.frombuffer(self._map, np.uint8, size, start))
            for name, kind, shape, offset, raw in parts:
                if offset is not None:
                    here = offset - start if copy else offset
                    flat[name] = _tensor(memory, kind, shape, here)
                elif raw:
                    flat[name] = _tensor(bytearray(raw), kind, shape, 0)
                else:
                    flat[name] = torch.empty(shape, dtype=getattr(torch, kind))
        return unflatten(flat)


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
            return torch.empty(size, dtype=torch.uint8).numpy()
        whole = math.ceil(size / self.LARGE) * self.LARGE
        free = self._free.setdefault(whole, [])
        memory = free.pop() if free else mmap.mmap(-1, whole, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        array = np.frombuffer(memory, dtype=np.uint8)
        weakref.finalize(array, free.append, memory).atexit = False
        return array


def _tensor(memory: Any, kind: str, shape: Sequence[int], offset: int) -> Tensor:
    """Return the tensor that lies ``offset`` bytes into ``memory``, without a copy."""
    dtype = getattr(torch, kind)
    count = math.prod(shape)
    return torch.frombuffer(memory, dtype=dtype, count=count, offset=offset).reshape(shape)


class Worker:
    """One forked process, its pipe and its buffer."""

    def __init__(
        self,
        runtime: Runtime,
        payload: Buffer,
        size: int,
        copies: Copies,
        others: list[Worker],
    ) -> None:
        self.buffer = Buffer(size, copies)
        self.pipe, child = multiprocessing.Pipe()
        self.job: int | None = None
        parent = os.getpid()
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            for other in (self, *others):
                other.pipe.close()
            _serve(runtime, payload, self.buffer, child, parent)
        child.close()

    def give(self, number: int, job: Job, payload: Sequence[Any]) -> None:
        """Hand the worker a job, which is its caller's ``number``."""
        self.job = number
        state: list[Any] = []
        if isinstance(job, ClientJob):
            state, job = self.buffer.put(job.state), replace(job, state={})
        self.pipe.send((job, state, payload))

    def end(self) -> None:
        """Stop the process and wait for it."""
        self.pipe.close()
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        with suppress(ChildProcessError):
            os.waitpid(self.pid, 0)


def _serve(
    runtime: Runtime, payload: Buffer, buffer: Buffer, pipe: Connection, parent: int
) -> NoReturn:
    """Answer jobs until the parent is gone. Runs in the child and never returns."""
    status = 1
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        _die_with(parent)
        torch.set_num_threads(1)
        torch.set_grad_enabled(True)  # a worker may be replaced while the parent evaluates
        while True:
            job, state, places = pipe.recv()
            received = payload.get(places, copy=False)
            if isinstance(job, Chunk):
                pipe.send(_tested(runtime, job, received, buffer))
                continue
            job = replace(job, state=buffer.get(state, copy=True))
            answer = runtime.run_client(job, received)
            if isinstance(answer, ClientResult):
                pipe.send(_packed(answer, buffer))
            else:
                pipe.send(answer)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        status = 0
    finally:
        os._exit(status)


def _die_with(parent: int) -> None:
    """Ask Linux to end this process when its parent ends, whatever ends it."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)


def _packed(result: ClientResult, buffer: Buffer) -> Any:
    """Put a result's tensors into the shared memory; return the rest and their places."""
    values = {f"u{key}": value for key, value in result.uploads.items()}
    values |= {f"s{key}": value for key, value in result.state.items()}
    return replace(result, uploads=Payload({}, ""), state={}), buffer.put(values)


def _tested(
    runtime: Runtime, chunk: Chunk, payload: Mapping[str, Any], buffer: Buffer
) -> tuple[None, Any] | ClientFailure:
    try:
        output = runtime.run_chunk(chunk, payload["weights"])
    except Exception as error:
        return ClientFailure(SERVER, (), error, 0.0)
    return None, buffer.put({"features": output.features, "logits": output.logits})


class PoolWorkers:
    """See `Pool`."""

    def __init__(self, runtime: Runtime, count: int) -> None:
        self._runtime = runtime
        weights = nbytes(runtime.initial)
        self._size = max(64 << 20, 4 * weights)
        self._payload = Buffer(self._size)
        self._copies = Copies()
        self._window = min(max(3 * count, WAITING // max(1, weights)), 16 * count)
        self._workers: list[Worker] = []
        for _ in range(count):
            self._start()

    def _start(self) -> Worker:
        worker = Worker(self._runtime, self._payload, self._size, self._copies, self._workers)
        self._workers.append(worker)
        return worker

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
        places = self._payload.put(payload)
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
                worker.give(number, jobs[number], places)
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
                self._workers.remove(worker)
                worker.end()
                self._start()
                lost.append(number)
                continue
            worker.job = None
            ready[number] = (
                answer if isinstance(answer, ClientFailure) else _unpacked(answer, worker.buffer)
            )
        return lost

    def close(self) -> None:
        """Stop every worker."""
        for worker in self._workers:
            worker.end()
        self._workers = []


def _unpacked(answer: tuple[ClientResult | None, Any], buffer: Buffer) -> ClientResult | Output:
    result, places = answer
    values = buffer.get(places, copy=True)
    if result is None:
        return Output(**values)  # type: ignore[arg-type]
    uploads = {key[1:]: value for key, value in values.items() if key[0] == "u"}
    state = {key[1:]: value for key, value in values.items() if key[0] == "s"}
    sent = Payload(uploads, f"the uploads of client {result.client}")
    return replace(result, uploads=sent, state=state)


def _place(job: Job) -> str:
    if isinstance(job, Chunk):
        return f"round {job.round}, test data from {job.start}"
    return f"round {job.round}, client {job.client}"
