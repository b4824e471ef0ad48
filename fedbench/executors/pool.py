"""Run clients in parallel processes on this machine, with the same bits as one after the other.

Workers are forked after the data is loaded, so data and plugins are shared without a copy and no
plugin is pickled. Tensors travel through memory that was mapped before the fork: uploads are sealed
there, large ones are averaged there, and a pipe carries only their positions. A worker that dies is
replaced and its client runs again. A worker ends when its parent does.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypeAlias

import torch
from pydantic import Field

from ..device import cores
from ..errors import TemporaryError
from ..failures import ClientFailure
from ..types import (
    Chunk,
    ClientJob,
    ClientResult,
    Output,
    Payload,
    Value,
    Weights,
    nbytes,
)
from .inline import InlineWorkers
from .shared import Buffer, Copies, identical

if TYPE_CHECKING:
    from ..runtime import Runtime

ATTEMPTS = 3
"""How often a job may lose its worker before the run ends."""

WAITING = 32 << 20
"""How many bytes of weights may wait for an earlier client; more balance the load better.

At least 3 results per worker may wait in any case, and at most 16; more would gain nothing.
"""


SERVER = -1
"""The client id of a failure that is not a client's."""

Job: TypeAlias = ClientJob | Chunk


@dataclass(frozen=True, eq=False)
class Pool:
    """Run clients in parallel processes on this machine, one thread each.

    On a GPU, on one core, or without Linux, clients run one after the other in this process.
    """

    workers: Annotated[
        Annotated[int, Field(ge=1)] | None, Field(description="processes; default one per core")
    ] = None

    def open(self, runtime: Runtime) -> PoolWorkers | InlineWorkers:
        """Start the workers of a run."""
        count = min(self.workers or cores(), len(runtime.parts))
        usable = sys.platform.startswith("linux") and runtime.device.type == "cpu"
        if not usable or (self.workers is None and count == 1):
            return InlineWorkers(runtime)
        return PoolWorkers(runtime, count)


class WorkerDied(TemporaryError):
    """A worker process ended without an answer, repeatedly for the same client."""


class Shared:
    """Memory that parent and workers share: the broadcast, and slots for results."""

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
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:  # as in services, and in pythonw
                with suppress(OSError, ValueError):
                    stream.flush()
        self.pid = os.fork()
        if self.pid == 0:
            for other in (self, *others):
                other.pipe.close()
            _serve(runtime, shared, child, parent)
        child.close()

    def give(self, number: int, job: Job, payload: Sequence[Any], slot: int) -> None:
        """Send the worker a job, the caller's ``number``, and a slot for its result."""
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
    """Answer jobs until the parent is gone; runs in the child and never returns."""
    status = 1
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
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
    """Tell Linux to end this process when its parent ends for whatever reason."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)


def _packed(answer: ClientResult | Output, buffer: Buffer) -> Any:
    """Put an answer's tensors into the shared memory; return the rest and the tensors' places."""
    if isinstance(answer, Output):
        return None, buffer.put({"features": answer.features, "logits": answer.logits})
    values = {f"u{key}": value for key, value in answer.uploads.items()}
    values |= {f"s{key}": value for key, value in answer.state.items()}
    values |= {f"o{key}": value for key, value in answer.observed.items()}
    return replace(answer, uploads=Payload({}, ""), state={}, observed={}), buffer.put(values)


def _tested(runtime: Runtime, chunk: Chunk, payload: Mapping[str, Any]) -> Output | ClientFailure:
    try:
        return runtime.run_chunk(chunk, payload["weights"])
    except Exception as error:
        return ClientFailure(SERVER, (), error, 0.0)


class PoolWorkers:
    """The workers of `Pool`: forked processes with shared memory."""

    def __init__(self, runtime: Runtime, count: int) -> None:
        self._runtime = runtime
        weights = nbytes(runtime.initial)
        self._window = min(max(3 * count, WAITING // max(1, weights)), 16 * count)
        # For the results that wait, if they stay in the slots, and a few that an aggregator holds.
        slots = 2 * count + (self._window if weights >= Copies.LARGE else 0)
        self._shared = Shared(slots, max(16 << 20, 4 * weights))
        self._free = list(range(len(self._shared.slots)))
        self._there: dict[str, tuple[Value, Any]] = {}
        """What lies in the shared memory for all workers: key -> value, and its place."""
        self._places: Sequence[Any] = ()
        self._order: list[str] = []
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
        """Start a new worker in place of one that died, and free the slot that it had."""
        self._workers.remove(worker)
        worker.end()
        self._free.append(worker.slot)
        self._start()

    def run(
        self, payload: Mapping[str, Value], jobs: Sequence[ClientJob]
    ) -> Iterator[ClientResult | ClientFailure]:
        """Yield the answers in client-id order, with few of them waiting at any time.

        Within a window of the next clients, those with more examples start first.
        """
        ordered = sorted(jobs, key=lambda job: job.client)
        sizes = [len(self._runtime.parts[job.client]) for job in ordered]
        return self._work(payload, ordered, sizes)

    def test(self, weights: Weights, chunks: Sequence[Chunk]) -> Iterator[Output]:
        """Yield a model's outputs for parts of the test data, in order."""
        for answer in self._work({"weights": weights}, chunks, [1] * len(chunks)):
            if isinstance(answer, ClientFailure):
                raise answer.error
            yield answer

    def _work(
        self, payload: Mapping[str, Value], jobs: Sequence[Job], sizes: Sequence[int]
    ) -> Iterator[Any]:
        """Yield the jobs' answers in the order of the jobs.

        Raises:
            WorkerDied: when a job has lost its worker `ATTEMPTS` times.
        """
        places = self._placed(payload)
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
                except OSError:  # it died while idle
                    self._replace(worker)
                    insort(waiting, number)
            while delivered in ready:  # workers compute on while the consumer uses the answer
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

    def _placed(self, payload: Mapping[str, Value]) -> Sequence[Any]:
        """Put a payload where all workers can read it; return the places.

        Weights that were scored after a round lie there already when the next one broadcasts them.
        """
        there = self._there
        if not all(key in payload and identical(payload[key], v) for key, (v, _) in there.items()):
            self._shared.payload.clear()
            there = {}
        new = {key: value for key, value in payload.items() if key not in there}
        if new or there is not self._there:
            places = self._shared.payload.put(new, channels_last=True)
            added = zip(new.items(), places, strict=True)
            self._there = there | {key: (value, place) for (key, value), place in added}
            self._order = []
        if self._order != list(payload):  # clients see the keys in the order of the broadcast
            self._order = list(payload)
            self._places = [self._there[key][1] for key in payload]
        return self._places

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
        """Return an answer with its tensors: large ones still in the slot, the rest copied."""
        memory = self._shared.slots[slot].lend(partial(self._free.append, slot))
        if isinstance(answer, ClientFailure):
            return answer
        result, places = answer
        # Every idle worker needs a slot for its next job.
        short = len(self._free) < sum(worker.job is None for worker in self._workers)

        def copied(key: str, size: int) -> bool:
            # A client's state, observations and small values may be needed long after the weights.
            return short or size < Copies.LARGE or key[0] in "so"

        values = self._shared.slots[slot].get(places, copied, memory)
        if result is None:
            return Output(**values)  # type: ignore[arg-type]
        uploads, state, observed = (
            {key[1:]: value for key, value in values.items() if key[0] == kind} for kind in "uso"
        )
        sent = Payload(uploads, f"the uploads of client {result.client}")
        return replace(result, uploads=sent, state=state, observed=observed)

    def close(self) -> None:
        """Stop every worker."""
        for worker in self._workers:
            worker.end()
        self._workers = []


def _place(job: Job) -> str:
    if isinstance(job, Chunk):
        return f"round {job.round}, test data from {job.start}"
    return f"round {job.round}, client {job.client}"
