"""Run clients on a Ray cluster, or in Ray's processes on this machine; same bits as inline.

Each worker is an actor: a process on some node with its own runtime. The data and the partition are
put into Ray's object store once, and a node's workers read one copy of them in place; so is each
round's payload. Plugins travel as names, so every node must have the same packages. A worker that
is lost with its process or node is replaced, and its client runs again.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import chdir, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import torch
from pydantic import Field

from ..ambient import settled
from ..config.layers import CHOICES
from ..config.resolve import resolve
from ..config.yamlfile import Document
from ..device import cores, open_device
from ..errors import ConfigError
from ..plugins.registry import Registry
from ..runtime import Runtime
from ..store.environment import versions
from ..text import summary
from ..types import ClientJob, ClientResult, Payload, Value, flatten, unflatten
from .packing import Packed, pack, pack_data, unpack, unpack_data
from .pool import ATTEMPTS, WorkerDied

if TYPE_CHECKING:
    from ..config.model import RunConfig
    from ..failures import ClientFailure

PATIENCE = 300.0
"""How many seconds to wait while no worker runs and no node has room for one."""


@dataclass(frozen=True, eq=False)
class Ray:
    """Run clients on the nodes of a Ray cluster, or start Ray on this machine."""

    addresses: ClassVar[tuple[str, ...]] = ("address",)

    address: Annotated[
        str | None,
        Field(description="of a running cluster: host:port or auto; by default one is started"),
    ] = None
    workers: Annotated[
        Annotated[int, Field(ge=1)] | None,
        Field(description="clients at a time; default as many as the cluster has room for"),
    ] = None
    cpus_per_client: Annotated[
        float, Field(gt=0, description="CPUs to reserve per client, which computes on one thread")
    ] = 1.0
    gpus_per_client: Annotated[
        Annotated[float, Field(ge=0, le=1)] | None,
        Field(description="GPUs to reserve per client; 0.25: four share one; default 1 on cuda"),
    ] = None

    def open(self, runtime: Runtime) -> RayWorkers:
        """Connect to the cluster, or start one, and request the workers of a run from it.

        Raises:
            ConfigError: when Ray is not installed, there is no cluster at the address, or the
                cluster has no room.
        """
        return RayWorkers(runtime, self)


def _import_ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise ConfigError(
            "executor 'ray' needs Ray; install it: pip install 'fedbench-toolkit[ray]'"
        ) from error
    return ray


class Worker:
    """A worker's process on its node; Ray turns this class into an actor."""

    def start(
        self, config: dict[str, Any], key: str, needs: dict[str, str], entries: bytes, data: Any,
        folder: str = ".",
    ) -> str:  # fmt: skip
        """Build the runtime around the node's copy of the data; return what `_computes` says here.

        Raises:
            ConfigError: when the node's packages differ from the main process's.
        """
        ray = _import_ray()
        torch.set_num_threads(1)
        with suppress(OSError):  # where relative paths begin on the main process's machine
            os.chdir(folder)
        where = f"the cluster's node {ray.util.get_node_ip_address()}"
        for name, wanted in needs.items():
            found = versions().get(name)
            if found != wanted:
                raise ConfigError(f"{where} has {name} {found}, the main process has {wanted}")
        try:
            registry = Registry(ray.cloudpickle.loads(entries))
        except (ImportError, AttributeError) as error:
            raise ConfigError(
                f"{where} lacks a plugin of this run ({error}); install the same packages on all "
                "nodes"
            ) from error
        resolved = resolve(registry, file=Document(config, where))
        if resolved.hash != key:
            raise ConfigError(
                f"{where} reads this config differently (hash {resolved.hash[:12]}, here "
                f"{key[:12]}); install the same packages on all nodes"
            )
        # Ray shows a process only the GPU that it may use, and always as number 0.
        resolved = replace(resolved, device=resolved.device.split(":")[0])
        with settled():
            self._runtime = Runtime(resolved, registry, Path(), unpack_data(data))
        return _computes(resolved)

    def turn(self, job: ClientJob, state: Packed, payload: Packed) -> Any:
        """Run one client; return the answer, and its uploads, state and observations, packed.

        Args:
            job: its job, without the state.
            state: what the client kept.
            payload: what the server sent.
        """
        job = replace(job, state=unflatten(unpack(state, copy=True)))
        answer = self._runtime.run_client(job, unflatten(unpack(payload, copy=False)))
        if not isinstance(answer, ClientResult):
            return answer, ()
        light = replace(answer, uploads=Payload({}, ""), state={}, observed={})
        parts = answer.uploads, answer.state, answer.observed
        return light, tuple(pack(flatten(part)) for part in parts)


def _computes(config: RunConfig) -> str:
    """Return what the bits depend on besides versions: the GPU's name or the CPU's capability."""
    device = open_device(config.device)
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type} {torch.backends.cpu.get_cpu_capability()}"


class RayWorkers:
    """The workers of `Ray`: actors on the nodes of a cluster."""

    def __init__(self, runtime: Runtime, options: Ray) -> None:
        self._ray = _import_ray()
        self._runtime = runtime
        self._cpus = options.cpus_per_client
        on_gpu = runtime.device.type == "cuda"
        self._gpus = options.gpus_per_client if options.gpus_per_client is not None else on_gpu
        if on_gpu and not self._gpus:
            raise ConfigError("executor.gpus_per_client: 0 hides the GPU that `device` names")
        self._starting: dict[Any, Any] = {}
        self._idle: list[Any] = []
        self._busy: dict[Any, tuple[Any, ClientJob]] = {}
        self._failed_starts = 0
        self._guard: subprocess.Popen[bytes] | None = None
        self._ours = not self._ray.is_initialized()
        try:
            if self._ours:
                # Ray's workers look for modules in the folder that is current now. They shall find
                # none in the user's, where a file may have the name of any module.
                with chdir(Path(os.__file__).parent):
                    self._connect(options)
            self._count = self._size(options, len(runtime.parts))
            self._arguments = self._place(runtime)
            for _ in range(self._count):
                self._start()
        except BaseException:
            self.close()
            raise

    def _connect(self, options: Ray) -> None:
        quiet = {"log_to_driver": False, "logging_level": "ERROR"}
        if address := options.address:
            try:
                self._ray.init(address=address, **quiet)
            except (ConnectionError, RuntimeError, ValueError) as error:
                raise ConfigError(f"executor.address {address!r}: {summary(error)}") from error
            return
        # This run's own folder and cluster, which other runs on the machine never see. The folder
        # holds sockets, whose paths can have at most 107 characters.
        parent = tempfile.gettempdir()
        folder = tempfile.mkdtemp(prefix="fb-", dir=parent if len(parent) < 24 else "/tmp")
        # Detached from this terminal, so that Ctrl-C does not end the guard before this process.
        script = str(Path(__file__).with_name("ray_guard.py"))
        command = [sys.executable, "-IS", script, folder, str(os.getpid())]
        self._guard = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        cpus = max(cores(), math.ceil((options.workers or 1) * self._cpus))
        local = {"address": "local", "include_dashboard": False, "_temp_dir": folder}
        self._ray.init(num_cpus=cpus, **local, **quiet)

    def _size(self, options: Ray, clients: int) -> int:
        """Return how many workers to request.

        A running cluster may grow, so more can be requested from it than fit now; they join later.

        Raises:
            ConfigError: when there is no room for a worker, or too little on this machine.
        """
        room = sum(self._room(node["Resources"]) for node in self._ray.nodes() if node["Alive"])
        count = min(options.workers or room, clients)
        if not count or (self._guard and count > room):
            raise ConfigError(
                f"executor 'ray': there is room for {room} of {count or 1} workers of "
                f"{self._cpus:g} CPU and {self._gpus:g} GPU each; `ray status` shows what there is"
            )
        return count

    def _room(self, has: Mapping[str, float]) -> int:
        slots = int(has.get("CPU", 0) / self._cpus + 1e-9)
        if self._gpus:  # a worker's share is on one GPU
            slots = min(slots, int(has.get("GPU", 0)) * int(1 / self._gpus + 1e-9))
        return slots

    def _place(self, runtime: Runtime) -> tuple[Any, ...]:
        """Put the data into the object store; return the arguments of `Worker.start`."""
        config = runtime.config
        kinds = [(kind, str(getattr(config, key)["name"])) for key, kind in CHOICES.items()]
        kinds += [("plugin", name) for name in config.plugins]
        kinds += [("metric", name) for name in config.metrics]
        entries = {key: runtime.registry.entries[key] for key in kinds}
        return (
            config.to_dict(),
            config.hash,
            versions(),
            self._ray.cloudpickle.dumps(entries),
            self._ray.put(pack_data(runtime.data, runtime.parts)),
            os.getcwd(),
        )

    def _new_worker(self) -> Any:
        needs = {"num_cpus": self._cpus, "num_gpus": self._gpus}
        return self._ray.remote(Worker).options(scheduling_strategy="SPREAD", **needs).remote()

    def _start(self) -> None:
        worker = self._new_worker()
        self._starting[worker.start.remote(*self._arguments)] = worker

    def run(
        self, payload: Mapping[str, Value], jobs: Sequence[ClientJob]
    ) -> Iterator[ClientResult | ClientFailure]:
        """Yield the answers in client-id order, with few of them waiting at any time.

        Within a window of the next clients, those with more examples start first.
        """
        shared = self._ray.put(pack(flatten(payload)))
        sizes = {job.client: len(self._runtime.parts[job.client]) for job in jobs}
        waiting = sorted(jobs, key=lambda job: job.client)
        order = [job.client for job in waiting]
        ready: dict[int, ClientResult | ClientFailure] = {}
        attempts: dict[int, int] = {}
        delivered = 0
        while delivered < len(order):
            window = set(order[delivered : delivered + 4 * self._count])
            while self._idle and (near := [job for job in waiting if job.client in window]):
                job = max(near, key=lambda j: sizes[j.client])
                waiting.remove(job)
                worker = self._idle.pop()
                state = pack(flatten(job.state))
                answer = worker.turn.remote(replace(job, state={}), state, shared)
                self._busy[answer] = worker, job
            self._collect(ready, waiting, attempts)
            while delivered < len(order) and order[delivered] in ready:
                yield ready.pop(order[delivered])
                delivered += 1

    def _collect(
        self,
        ready: dict[int, ClientResult | ClientFailure],
        waiting: list[ClientJob],
        attempts: dict[int, int],
    ) -> None:
        """Wait until a worker has started, answered or been lost; collect its answer or its job.

        Raises:
            WorkerDied: when a job or the start has lost too many workers, or none has room.
        """
        patience = None if self._busy else PATIENCE
        found, _ = self._ray.wait([*self._busy, *self._starting], num_returns=1, timeout=patience)
        if not found:
            raise WorkerDied(
                f"no node of the cluster had room for a worker within {PATIENCE:g} s; "
                "`ray status` shows what it has"
            )
        ref = found[0]
        job = None
        if ref in self._starting:
            worker = self._starting.pop(ref)
        else:
            worker, job = self._busy.pop(ref)
        try:
            answer = self._ray.get(ref)
        except self._ray.exceptions.RayError as error:
            cause = getattr(error, "cause", error)  # what the worker raised, if it still lives
            if not isinstance(cause, self._ray.exceptions.RayError):
                raise cause from None
            self._replace(worker, job, attempts, str(error))
            if job:
                waiting.append(job)
            return
        self._idle.append(worker)
        if job:
            ready[job.client] = _answer(*answer)
        else:
            self._started(answer)

    def _started(self, computes: str) -> None:
        self._failed_starts = 0
        here = _computes(self._runtime.config)
        if computes != here:
            warnings.warn(
                f"a node computes on {computes}, this machine on {here}: results may differ in "
                "the last bits from run to run",
                stacklevel=2,
            )

    def _replace(
        self, worker: Any, job: ClientJob | None, attempts: dict[int, int], why: str
    ) -> None:
        self._end(worker)
        why = why.strip().split("\n")[-1].strip()
        if job:
            attempts[job.client] = attempts.get(job.client, 0) + 1
            if attempts[job.client] >= ATTEMPTS:
                raise WorkerDied(
                    f"round {job.round}, client {job.client}: its worker died {ATTEMPTS} times; "
                    f"is there enough memory? Ray says: {why}"
                )
        else:
            self._failed_starts += 1
            if self._failed_starts >= ATTEMPTS * self._count:
                raise WorkerDied(f"no worker could be started. Ray says: {why}")
        self._start()

    def _end(self, worker: Any) -> None:
        with suppress(self._ray.exceptions.RayError):
            self._ray.kill(worker)

    def close(self) -> None:
        """Stop every worker, and Ray too unless the caller's program started it."""
        busy = [worker for worker, _ in self._busy.values()]
        for worker in [*self._starting.values(), *busy, *self._idle]:
            self._end(worker)
        self._starting, self._busy, self._idle = {}, {}, []
        self._arguments = ()
        try:
            if self._ours:
                self._ray.shutdown()
        finally:
            if self._guard:
                self._guard.communicate()  # closes its pipe, upon which it ends what is left of Ray
                self._guard = None


def _answer(light: Any, parts: Sequence[Packed]) -> Any:
    """Reassemble an answer of `Worker.turn`, in memory of its own."""
    if not isinstance(light, ClientResult):
        return light
    uploads, state, observed = (unflatten(unpack(part, copy=True)) for part in parts)
    sent = Payload(uploads, f"the uploads of client {light.client}")
    return replace(light, uploads=sent, state=state, observed=observed)
